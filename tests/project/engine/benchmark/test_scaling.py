"""Which runs are compared, and what their times give for speed-up and efficiency."""

from __future__ import annotations

from typing import Any

import pytest

from arclight import hardware
from arclight.benchmark import scaling
from arclight.benchmark.scaling import Options, device_counts, plan_jobs, to_cases, without_keys
from arclight.benchmark.train import steady
from arclight.benchmark.training_step import compose
from arclight.errors import InputError

LAPTOP = hardware.HardwareInfo(num_cores=4, memory_bytes=2**33)
SERVER = hardware.HardwareInfo(num_cores=16, memory_bytes=2**37, gpus=(hardware.Gpu("A100", 2**36, (8, 0)),) * 4)


def test_the_runs_on_a_cpu() -> None:
    jobs = plan_jobs((1, 2, 4), 4, 64, is_cpu=True)
    assert [(job.name, job.num_threads, job.batch_size) for job in jobs] == [
        ("1 process, 4 threads", 4, 64),
        ("1 process, 2 threads", 2, 64),
        ("2 processes, strong", 2, 64),
        ("2 processes, weak", 2, 128),
        ("1 process, 1 thread", 1, 64),
        ("4 processes, strong", 1, 64),
        ("4 processes, weak", 1, 256),
    ]
    assert jobs[2].overrides == ("trainer=cpu", "strategy=ddp_cpu", "trainer.devices=2", "data.batch_size=64")
    assert jobs[0].overrides == ("trainer=cpu", "strategy=single", "data.batch_size=64")


def test_the_runs_on_gpus() -> None:
    jobs = plan_jobs(device_counts(None, SERVER, is_cpu=False), 16, 48, is_cpu=False)
    assert [job.name for job in jobs] == [
        *("1 GPU", "2 GPUs, strong", "2 GPUs, weak", "3 GPUs, strong", "3 GPUs, weak", "4 GPUs, strong", "4 GPUs, weak"),
    ]
    assert jobs[1].overrides[:3] == ("trainer=gpu", "strategy=ddp", "trainer.devices=2")


def test_every_command_composes() -> None:
    common = steady(["data=synthetic_images", "data.batch_size=32", "precision=fp32"], 60)
    for job in plan_jobs((1, 2), 4, 64, is_cpu=True):
        settings = compose([*without_keys(common, job.overrides), *job.overrides])
        assert settings["data"]["batch_size"] == job.batch_size
        assert settings["trainer"]["max_steps"] == 70


def run(step_ms: float, batch_size: int, **results: float) -> dict[str, Any]:
    return {"train/step_ms": step_ms, "train/samples_per_s": 1000 * batch_size / step_ms, **results}


def test_efficiency_of_given_times() -> None:
    jobs = plan_jobs((1, 2), 4, 64, is_cpu=True)
    measured = {
        "1 process, 4 threads": [run(40, 64, **{"train/tflops": 0.0016}), run(80, 64, **{"train/tflops": 0.0008})],
        "1 process, 2 threads": [run(60, 64), run(120, 64)],
        "2 processes, strong": [run(40, 64), run(80, 64)],
        "2 processes, weak": [run(80, 128), run(160, 128)],
    }
    figures = {case.name: case.figures for case in to_cases(jobs, measured, {job.name: 4e11 for job in jobs})}
    assert figures["2 processes, strong"]["efficiency"].values == (0.75, 0.75)  # 60 / (2 * 40): over as many threads each
    assert figures["2 processes, weak"]["efficiency"].values == (0.75, 0.75)  # 60 / 80
    assert figures["2 processes, strong"]["speedup"].values == (1, 1)  # over one process with all cores
    assert figures["2 processes, weak"]["speedup"].values == (1, 1)
    assert "efficiency" not in figures["1 process, 2 threads"]
    assert max(figures["1 process, 4 threads"]["peak_share"].values) == pytest.approx(1.6e9 / 4e11)
    assert "peak_share" not in figures["1 process, 2 threads"]


@pytest.mark.parametrize(
    ("override", "option"), [("strategy=ddp", "--devices"), ("trainer.devices=2", "--devices"), ("trainer=gpu", "--device")]
)
def test_keys_that_the_benchmark_sets_are_an_error(override: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{override}: the benchmark sets .* for each case; use {option}"):
        scaling.measure(Options(overrides=(override,)), print)


@pytest.mark.parametrize(
    ("devices", "hardware_info", "is_cpu", "message"),
    [
        ((1, 33), LAPTOP, True, "trainer.devices=33: too many processes for 4 cores; at most 8 per core, 32 here"),
        ((1, 8), SERVER, False, "trainer.devices=8: this machine has 4 GPUs; use 1 to 4"),
        ((1,), LAPTOP, True, "--devices 1: scaling needs two devices or more"),
        ((1, 3), LAPTOP, True, "data.batch_size=64 is not divisible by 3 processes; nearest sizes: 63 or 66"),
    ],
)
def test_devices_that_are_not_there_are_an_error(
    devices: tuple[int, ...], hardware_info: hardware.HardwareInfo, is_cpu: bool, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_jobs(device_counts(devices, hardware_info, is_cpu=is_cpu), hardware_info.num_cores, 64, is_cpu=is_cpu)


def test_an_error_is_raised_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "train", None)
    with pytest.raises(InputError, match=r"model=cmm: conf/model/ has no cmm.yaml"):
        scaling.measure(Options(overrides=("model=cmm",), device="cpu"), print)
