"""How training is compared with other ways to train; nothing here depends on time."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from arclight import hardware
from arclight.benchmark.measurement import Result
from arclight.config.locations import CONF
from arclight.errors import InputError
from benchmarks import training
from benchmarks.training import BASELINES, KINDS, Options, compare, in_fp32, precision_in, run_baseline, to_table
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

PEAKS = {"fp32": 1e11, "bf16": 4e11}


@pytest.mark.parametrize("per", ["samples", "tokens"])
def test_ours_over_theirs_and_fractions_of_the_peak(per: str) -> None:
    ours, theirs = {"samples": 30.0, "step": 2.0, "tflops": 0.2}, {"samples": 10.0, "step": 6.0}
    if per == "tokens":
        ours["tokens"], theirs["tokens"] = 300.0, 100.0
    measured = {"arclight": [ours, ours], "raw": [theirs, {**theirs, per: ours[per]}]}
    cases = compare(measured, PEAKS, dict.fromkeys(measured, "bf16"))
    assert [case.name for case in cases] == ["arclight", "raw"]
    assert cases[1].figures["factor"].values == pytest.approx((3.0, 1.0))
    assert cases[0].figures["peak_share"].median == pytest.approx(0.5)
    assert min(cases[1].figures["peak_share"].values) == pytest.approx(0.5 / 3)  # the same work for each sample
    metadata = {"device": "CPU", "num_rounds": 2, "machine": {"flops": {"fp32": 1e11}, "copy_bytes_per_s": 1e10}}
    assert to_table(Result("train-x", metadata, tuple(cases))).row_count == 2


def test_fp32_is_compared_with_fp32() -> None:
    speeds = {"arclight": 60.0, "arclight in fp32": 20.0, "raw": 60.0, "dataloader": 10.0}
    measured = {name: [{"samples": speed, "step": 1.0, "tflops": speed / 1000}] for name, speed in speeds.items()}
    plan = {"precision": hardware.Decision("bf16-mixed", ""), "matmul_precision": hardware.Decision("highest", "")}
    used = {name: precision_in(name, plan, device_type="cpu", task="images") for name in speeds}
    assert used == {"arclight": "bf16", "arclight in fp32": "fp32", "raw": "bf16", "dataloader": "fp32"}
    cases = {case.name: case.figures for case in compare(measured, PEAKS, used)}
    assert (cases["dataloader"]["factor"].median, cases["dataloader"]["factor_fp32"].median) == (6, 2)
    assert "factor_fp32" not in cases["arclight"]
    assert "factor" not in cases["arclight in fp32"]
    # each is a fraction of the peak of its own precision
    assert cases["arclight"]["peak_share"].median == pytest.approx(0.06e12 / 4e11)
    assert cases["arclight in fp32"]["peak_share"].median == pytest.approx(0.02e12 / 1e11)


@pytest.mark.parametrize(
    ("name", "chosen", "matmul", "precision"),
    [
        ("arclight", "32-true", "highest", "fp32"),
        ("arclight", "32-true", "high", "tf32"),
        ("raw", "16-mixed", "highest", "fp16"),
        ("raw", "bf16-true", "highest", "bf16"),
        ("dataloader", "bf16-mixed", "highest", "tf32"),  # torch's default of convolutions on GPUs
        ("arclight in fp32", "bf16-mixed", "highest", "fp32"),
        ("hf_trainer_bf16", "32-true", "highest", "bf16"),
    ],
)
def test_the_precision_of_each_way(name: str, chosen: str, matmul: str, precision: str) -> None:
    plan = {"precision": hardware.Decision(chosen, ""), "matmul_precision": hardware.Decision(matmul, "")}
    assert precision_in(name, plan, device_type="cuda", task="images") == precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(against=("hf_trainer",)), "--against hf_trainer: the baselines of --task images are raw, dataloader"),
        (
            Options(task="text", against=("dataloader",)),
            "the baselines of --task text are raw, hf_trainer, padded, hf_trainer_bf16, tagger_loop, tagger_loop_bf16",
        ),
    ],
)
def test_a_baseline_of_the_other_task_is_an_error(options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        training.measure(options, print)


def test_a_missing_accelerate_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    message = r"needs accelerate\. Try: pip install -r benchmarks/requirements\.txt; or --against raw"
    for against in ((), ("hf_trainer_bf16",)):
        with pytest.raises(InputError, match=message):
            training.measure(Options(task="text", against=against), print)


def test_fp32_replaces_another_precision() -> None:
    assert in_fp32(["model=cnn", "precision=bf16"]) == ["model=cnn", "precision=fp32"]


def test_every_baseline_has_its_program() -> None:
    for name in {*KINDS["images"], *KINDS["text"]}:
        assert importlib.util.find_spec(f"benchmarks.{BASELINES[name][0]}") is not None


def test_a_baseline_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.BASELINES, "broken", ("nowhere",))
    with pytest.raises(RuntimeError, match=r"(?s)-m benchmarks.nowhere --steps 3 exited with status 1:.*No module named"):
        run_baseline("broken", 3, [], num_threads=1)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["raw", "dataloader"])
def test_a_baseline_trains(name: str) -> None:
    numbers = run_baseline(name, 2, TINY_IMAGES, num_threads=1)
    assert set(numbers) == {"samples", "step"}
    assert all(value > 0 for value in numbers.values())


@pytest.mark.processes
def test_transformers_trainer_trains(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="benchmarks/requirements.txt brings it")
    command = [sys.executable, "-m", "benchmarks.hf_trainer", "--steps", "2", "--pad-to", "40", *TINY_TEXT, "data.batch_size=2"]
    ended = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    numbers = json.loads(ended.stdout.splitlines()[-1])
    assert numbers["train/tokens_per_s"] > numbers["train/samples_per_s"] > 0


@pytest.mark.processes
def test_the_plain_loop_of_a_tagger_trains() -> None:
    numbers = run_baseline("tagger_loop_bf16", 2, [*TINY_TEXT, "data.batch_size=2"], num_threads=1)
    assert numbers["tokens"] > numbers["samples"] > 0
