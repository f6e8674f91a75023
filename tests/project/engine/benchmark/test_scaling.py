"""Which runs are compared, and what their times make of efficiency, overhead and communication."""

from __future__ import annotations

from typing import Any

import pytest

from arclight import hardware
from arclight.benchmark import scaling
from arclight.benchmark.scaling import Job, Wish, common_overrides, measure_scaling, plan_jobs, to_cases, untouched
from arclight.benchmark.train_process import Trained
from arclight.config.compose import compose_with_hydra
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks

MACHINE = MeasuredPeaks("cpu", "Some CPU, 4 threads", 4, {"fp32": 1e11, "bf16": 4e11}, 2e10)
LAPTOP = hardware.HardwareInfo(num_cores=4, memory_bytes=2**33)
SERVER = hardware.HardwareInfo(num_cores=16, memory_bytes=2**37, gpus=(hardware.Gpu("A100", 2**36, (8, 0)),) * 4)
COMMUNICATION = {
    "world_size": 2,
    "gradient_bytes": 8_000_000,
    "num_buckets": 2,
    "with_ms": [12.0, 14.0, 13.0],
    "without_ms": [10.0, 11.0, 12.0],
    "in_flight_ms": [6.0, 5.0, 7.0],
    "all_reduce_ms": [4.0, 5.0, 6.0],
}


def jobs_of(wish: Wish, hardware_info: hardware.HardwareInfo, *, is_cpu: bool, batch_size: int = 64) -> list[Job]:
    return plan_jobs(wish, is_cpu=is_cpu, hardware_info=hardware_info, batch_size=batch_size)


def test_the_runs_on_a_cpu() -> None:
    jobs = jobs_of(Wish(devices=(1, 2, 4)), LAPTOP, is_cpu=True)
    assert [(job.name, job.num_threads, job.batch_size) for job in jobs] == [
        ("1 process, 4 threads", 4, 64),
        ("1 process, 2 threads", 2, 64),
        ("2 processes, strong", 2, 64),
        ("2 processes, weak", 2, 128),
        ("1 process, 1 thread", 1, 64),
        ("4 processes, strong", 1, 64),
        ("4 processes, weak", 1, 256),
    ]
    assert jobs[2].overrides[:4] == ("trainer=cpu", "strategy=ddp_cpu", "trainer.devices=2", "data.batch_size=64")
    assert jobs[0].overrides == ("trainer=cpu", "strategy=single", "data.batch_size=64")


def test_the_runs_on_gpus() -> None:
    jobs = jobs_of(Wish(with_untuned=True), SERVER, is_cpu=False, batch_size=48)
    assert [job.name for job in jobs] == [
        *("untuned", "1 GPU", "2 GPUs, strong", "2 GPUs, weak", "3 GPUs, strong", "3 GPUs, weak", "4 GPUs, strong"),
        "4 GPUs, weak",
    ]
    assert jobs[0].overrides[-4::3] == ("precision=fp32", "++hardware.compile=false")
    assert jobs[2].overrides[:3] == ("trainer=gpu", "strategy=ddp", "trainer.devices=2")


def test_the_runs_of_the_overhead() -> None:
    jobs = jobs_of(Wish(only_overhead=True), LAPTOP, is_cpu=True)
    assert [(job.kind, job.num_threads) for job in jobs] == [("one", 4), ("ddp", 4)]
    assert jobs[1].overrides == ("trainer=cpu", "strategy=ddp_cpu", "trainer.devices=1", "data.batch_size=64")


@pytest.mark.parametrize("task", ["images", "text"])
@pytest.mark.parametrize("extra", [(), ("precision=fp32", "trainer.max_epochs=2")])
def test_every_command_composes(task: str, extra: tuple[str, ...]) -> None:
    wish = Wish(task=task, overrides=extra, with_untuned=True)
    common = common_overrides(wish, 128)
    for job in jobs_of(wish, LAPTOP, is_cpu=True):
        with compose_with_hydra([*untouched(common, job), *job.overrides]) as config:
            assert config.data.batch_size == job.batch_size
            assert config.data.num_train == 70 * 128
            assert config.trainer.limit_train_batches == 70
            assert not config.logger
    assert (CONF.parent / "train.py").is_file()


def trained(step_ms: float, batch_size: int, communication: dict[str, Any] | None = None) -> Trained:
    results = {"train/step_ms": step_ms, "train/samples_per_s": 1000 * batch_size / step_ms}
    return Trained(results, communication or {})


def test_efficiency_of_made_up_times() -> None:
    jobs = jobs_of(Wish(devices=(1, 2), with_untuned=True), LAPTOP, is_cpu=True)
    measured = {
        "untuned": [trained(100, 64), trained(100, 64)],
        "1 process, 4 threads": [trained(40, 64), trained(80, 64)],
        "1 process, 2 threads": [trained(60, 64), trained(120, 64)],
        "2 processes, strong": [trained(40, 64, COMMUNICATION), trained(80, 64, COMMUNICATION)],
        "2 processes, weak": [trained(80, 128, COMMUNICATION), trained(160, 128, COMMUNICATION)],
    }
    found = to_cases(jobs, measured, flops=("train/samples_per_s", 1e6), machine=MACHINE, precision="bf16-mixed")
    figures = {case.name: case.figures for case in found}
    assert figures["2 processes, strong"]["efficiency"].values == (0.75, 0.75)  # 60 / (2 * 40): over as many threads each
    assert figures["2 processes, weak"]["efficiency"].values == (0.75, 0.75)  # 60 / 80
    assert figures["2 processes, strong"]["speedup"].values == (1, 1)  # over one process with all cores
    assert figures["2 processes, weak"]["speedup"].values == (1, 1)
    assert figures["untuned"]["speedup"].values == (0.4, 0.8)
    assert "efficiency" not in figures["1 process, 2 threads"]
    # 1600 samples/s of 10^6 FLOPs each; plain is a share of the peak in fp32
    assert figures["1 process, 4 threads"]["peak_share"].high == pytest.approx(1.6e9 / 4e11)
    assert figures["untuned"]["peak_share"].median == pytest.approx(0.64e9 / 1e11)


def test_communication_of_made_up_times() -> None:
    figures = scaling.communication_figures([COMMUNICATION])
    assert figures["in_flight"].median == 6
    assert figures["exposed"].median == 13 - 11
    assert figures["floor"].median == pytest.approx(4)  # 8 MB * 2 * 1 / 2 at what 4 ms for as much make
    assert figures["all_reduce"].median == pytest.approx(2)
    assert scaling.communication_figures([{}, COMMUNICATION]) == {}


def test_overhead_of_made_up_times() -> None:
    jobs = jobs_of(Wish(only_overhead=True), LAPTOP, is_cpu=True)
    measured = {jobs[0].name: [trained(50, 64), trained(100, 64)], jobs[1].name: [trained(51, 64), trained(103, 64)]}
    cases = to_cases(jobs, measured, flops=("train/samples_per_s", 0), machine=MACHINE, precision="32-true")
    assert cases[1].figures["overhead"].values == pytest.approx((1.02, 1.03))
    assert "peak_share" not in cases[0].figures


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"num_rounds": 0}, "--repeats 0 must be 1 or more"),
        ({"num_steps": 0}, "--steps 0 must be 1 or more"),
        ({"batch_size": -4}, "--batch-size -4 must be 1 or more"),
        (
            {"overrides": ("data.batch_size=8",)},
            "data.batch_size=8: the benchmark sets data.batch_size for each case; use --batch",
        ),
        ({"overrides": ("strategy=ddp",)}, "strategy=ddp: the benchmark sets strategy for each case; use --devices"),
    ],
)
def test_a_wrong_wish_is_told(wish: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Wish(**wish)


@pytest.mark.parametrize(
    ("devices", "hardware_info", "is_cpu", "told"),
    [
        ((1, 33), LAPTOP, True, "--devices 33: 4 cores carry at most 32 processes; take 1 to 32"),
        ((0, 1), LAPTOP, True, "--devices 0: 4 cores carry"),
        ((1, 8), SERVER, False, "--devices 8: this machine has 4 GPUs; take 1 to 4"),
        ((1,), LAPTOP, True, "--devices 1: scaling wants two devices or more"),
        ((1, 3), LAPTOP, True, "data.batch_size=64 is not divisible by 3 processes; nearest sizes: 63 or 66"),
    ],
)
def test_devices_that_cannot_be_had_are_told(
    devices: tuple[int, ...], hardware_info: hardware.HardwareInfo, is_cpu: bool, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        jobs_of(Wish(devices=devices), hardware_info, is_cpu=is_cpu)


def test_a_mistake_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "train", None)
    with pytest.raises(InputError, match="model=cmm: conf/model/ has no cmm.yaml"):
        measure_scaling(Wish(overrides=("model=cmm",), device="cpu"))
