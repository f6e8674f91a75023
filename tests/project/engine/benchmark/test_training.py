"""How training is compared with other ways to train; no claim on any time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arclight import hardware
from arclight.benchmark import training
from arclight.benchmark.measurement import Result
from arclight.benchmark.training import (
    BASELINES,
    KINDS,
    Wish,
    in_fp32,
    precision_of,
    run_baseline,
    steady,
    to_cases,
    to_table,
)
from arclight.benchmark.training_step import compose, make_sample
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e11, "bf16": 4e11}, 1e10)


@pytest.mark.parametrize(("overrides", "per"), [(TINY_IMAGES, "samples"), (TINY_TEXT, "tokens")])
def test_ours_over_theirs_and_shares_of_the_peak(overrides: list[str], per: str) -> None:
    sample = make_sample(overrides)
    ours, theirs = {"samples": 30.0, "step": 2.0}, {"samples": 10.0, "step": 6.0}
    if per == "tokens":
        ours["tokens"], theirs["tokens"] = 300.0, 100.0
    measured = {"arclight": [ours, ours], "raw": [theirs, ours]}
    cases = to_cases(measured, sample, MACHINE, precisions=dict.fromkeys(measured, "bf16"))
    assert [case.name for case in cases] == ["arclight", "raw"]
    assert cases[1].figures["factor"].values == pytest.approx((3.0, 1.0))
    unit = sample.work.tokens or sample.work.samples
    assert cases[0].figures["peak_share"].median == pytest.approx(ours[per] * sample.flops / unit / 4e11)
    hardware_info = {"device": "made up", "num_rounds": 2, "machine": {"flops": {"fp32": 1e11}, "copy_bytes_per_s": 1e10}}
    assert to_table(Result("train-x", hardware_info, tuple(cases))).row_count == 2


def test_in_fp32_like_is_set_against_like() -> None:
    sample = make_sample(TINY_IMAGES)
    speeds = {"arclight": 60.0, "arclight in fp32": 20.0, "raw": 60.0, "dataloader": 10.0}
    measured = {name: [{"samples": speed, "step": 1.0}] for name, speed in speeds.items()}
    plan = {"precision": hardware.Decision("bf16-mixed", ""), "matmul_precision": hardware.Decision("highest", "")}
    used = {name: precision_of(name, plan, device_type="cpu", task="images") for name in speeds}
    assert used == {"arclight": "bf16", "arclight in fp32": "fp32", "raw": "bf16", "dataloader": "fp32"}
    cases = {case.name: case.figures for case in to_cases(measured, sample, MACHINE, precisions=used)}
    assert (cases["dataloader"]["factor"].median, cases["dataloader"]["factor_fp32"].median) == (6, 2)
    assert "factor_fp32" not in cases["arclight"]
    # each is a share of the peak of its own precision
    per_sample = sample.flops / sample.work.samples
    assert cases["arclight"]["peak_share"].median == pytest.approx(60 * per_sample / 4e11)
    assert cases["arclight in fp32"]["peak_share"].median == pytest.approx(20 * per_sample / 1e11)


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
def test_what_is_multiplied_in_which_precision(name: str, chosen: str, matmul: str, precision: str) -> None:
    plan = {"precision": hardware.Decision(chosen, ""), "matmul_precision": hardware.Decision(matmul, "")}
    assert precision_of(name, plan, device_type="cuda", task="images") == precision


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"against": ("hf_trainer",)}, "--against hf_trainer: baselines of --task images are raw, dataloader"),
        (
            {"task": "text", "against": ("dataloader",)},
            "baselines of --task text are raw, hf_trainer, padded, hf_trainer_bf16, tagger_loop, tagger_loop_bf16",
        ),
        ({"num_steps": 0}, "--steps 0 must be 1 or more"),
        ({"num_rounds": 0}, "--repeats 0 must be 1 or more"),
    ],
)
def test_a_wrong_wish_is_told(wish: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Wish(**wish)  # type: ignore[arg-type]


def test_fp32_stands_instead_of_another_precision() -> None:
    assert in_fp32(["model=cnn", "precision=bf16"]) == ["model=cnn", "precision=fp32"]


def test_a_run_in_the_steady_state_composes() -> None:
    settings = compose(steady(TINY_IMAGES, 7))
    assert (settings["trainer"]["max_steps"], settings["callbacks"]) == (17, {})


def test_every_baseline_has_its_program() -> None:
    for name in {*KINDS["images"], *KINDS["text"]}:
        first, *rest = BASELINES[name]
        assert (CONF.parent / "benchmarks" / first).is_file() or rest == ["arclight.benchmark.raw_loop"]


def test_a_baseline_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.BASELINES, "broken", ("-m", "arclight.nowhere"))
    with pytest.raises(RuntimeError, match=r"(?s)-m arclight.nowhere 3 ended with status 1:.*No module named"):
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
    script = CONF.parent / "benchmarks" / "hf_trainer.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--steps", "2", "--pad-to", "40", *TINY_TEXT, "data.batch_size=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    numbers = json.loads(ended.stdout.splitlines()[-1])
    assert numbers["train/tokens_per_s"] > numbers["train/samples_per_s"] > 0


@pytest.mark.processes
def test_the_plain_loop_of_a_tagger_trains() -> None:
    numbers = run_baseline("tagger_loop_bf16", 2, [*TINY_TEXT, "data.batch_size=2"], num_threads=1)
    assert numbers["tokens"] > numbers["samples"] > 0
