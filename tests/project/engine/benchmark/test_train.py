"""`benchmark train`: what runs are started, and what their results give; nothing here depends on time."""

from __future__ import annotations

from typing import Any

import pytest

from arclight import hardware
from arclight.benchmark import train
from arclight.benchmark.train import Options, numbers_of, precision_of, steady, to_cases, to_table
from arclight.benchmark.training_step import compose
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e11, "bf16": 4e11}, 1e10)


def test_a_run_in_the_steady_state_composes() -> None:
    settings = compose(steady(TINY_IMAGES, 7))
    assert (settings["trainer"]["max_steps"], settings["callbacks"]) == (17, {})
    assert compose(steady([*TINY_IMAGES, "callbacks=early_stopping"], 7))["callbacks"] != {}


def test_the_cases_differ_by_the_overrides_of_also(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(overrides: list[str], *, num_threads: int) -> dict[str, Any]:
        commands.append(overrides)
        speed = 10.0 if "model=small_cnn" in overrides and "precision=fp32" in overrides else 30.0
        return {"train/samples_per_s": speed, "train/step_ms": 1.0, "train/tflops": speed / 1000, "train/mfu": None}

    monkeypatch.setattr(train, "train", run)
    monkeypatch.setattr(train, "measure_peaks", lambda device, hardware_info: MACHINE)
    options = Options(overrides=TINY_IMAGES, also=["precision=fp32", "seed=1 precision=bf16"], num_rounds=2, device="cpu")
    result = train.measure(options, print)
    assert [case.name for case in result.cases] == ["arclight", "precision=fp32", "seed=1 precision=bf16"]
    assert len(commands) == 6
    assert all("trainer=cpu" in command for command in commands)
    fp32 = result.cases[1].figures
    assert fp32["factor"].values == (3, 3)
    assert fp32["peak_share"].median == pytest.approx(0.1)
    assert "mfu" not in fp32
    assert to_table(result).row_count == 3


def test_the_factor_is_in_tokens_where_all_cases_have_them() -> None:
    rounds = {"a": [{"samples": 1.0, "tokens": 30.0}], "b": [{"samples": 1.0, "tokens": 10.0}]}
    assert to_cases(rounds, {}, {"a": "bf16", "b": "bf16"})[1].figures["factor"].median == 3


def test_an_error_in_a_case_is_raised_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "train", None)
    with pytest.raises(InputError, match=r"model=cmm: conf/model/ has no cmm.yaml"):
        train.measure(Options(also=["model=cmm"]), print)


def test_missing_results_are_left_out() -> None:
    assert numbers_of({"train/step_ms": 3.0, "train/mfu": None}) == {"step": 3.0}


@pytest.mark.parametrize(
    ("chosen", "matmul", "precision"),
    [
        ("32-true", "highest", "fp32"),
        ("32-true", "high", "tf32"),
        ("16-mixed", "highest", "fp16"),
        ("bf16-true", "high", "bf16"),
    ],
)
def test_the_precision_of_matrix_products(chosen: str, matmul: str, precision: str) -> None:
    plan = {"precision": hardware.Decision(chosen, ""), "matmul_precision": hardware.Decision(matmul, "")}
    assert precision_of(plan) == precision
