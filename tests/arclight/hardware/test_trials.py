"""What is tried on the hardware, and that a trial that fails says so."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from arclight.hardware import trials
from arclight.hardware.trials import Trial, run_trials, try_all_reduce, try_product
from tests.project.engine.hardware.test_plan import A100, CPU, MI300


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LONG_ENOUGH_S", 1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
def test_a_product_is_right(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    trial = try_product(precision, "cpu")
    assert (trial.name, trial.is_right, trial.unit) == (f"matrix product in {precision}, cpu", True, "GFLOP/s")
    assert trial.value > 0
    assert torch.get_float32_matmul_precision() == before


def test_matrices_grow_until_a_product_takes_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def pretend(left: Any, right: Any) -> Any:
        sizes.append(len(left))
        return lambda num_products: num_products * (len(left) / 512) ** 3

    monkeypatch.setattr(trials, "LONG_ENOUGH_S", 0.05)
    monkeypatch.setattr(trials, "multiply", pretend)
    assert try_product("fp32", "cpu").value == pytest.approx(2 * 512**3 / 1e9)
    assert sizes == [128, 256]


def test_a_device_that_fails_is_told() -> None:
    trial = try_product("fp32", "nonsense")
    assert not trial.is_right
    assert "nonsense" in trial.problem


def test_a_product_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "measure_product", lambda precision, device: (0.5, 1e9))
    assert try_product("fp32", "cpu").problem == "the product is wrong: relative error 0.5, at most 0.0001 is right"
    monkeypatch.setattr(trials, "measure_product", lambda precision, device: (float("nan"), 1e9))
    assert not try_product("fp32", "cpu").is_right


def test_what_is_tried_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "try_product", lambda precision, device: Trial(precision, is_right=True))
    monkeypatch.setattr(trials, "try_all_reduce", lambda backend: Trial(backend, is_right=True))
    one = replace(A100, gpus=A100.gpus[:1])
    tried = [[trial.name for trial in run_trials(*on)] for on in ((CPU, "cpu"), (one, "cuda"), (MI300, "cuda"))]
    assert tried == [
        ["fp32", "bf16", "fp16", "fp64", "gloo"],
        ["fp32", "tf32", "bf16", "fp16", "fp64", "gloo"],
        ["fp32", "bf16", "fp16", "fp64", "gloo", "nccl"],
    ]


def test_two_processes_add_up() -> None:
    trial = try_all_reduce("gloo")
    assert trial.is_right, trial.problem
    assert trial.value > 0
    assert trial.unit == "MB/s"


@pytest.mark.parametrize(
    ("code", "timeout_s", "problem"),
    [
        ("import time; time.sleep(60)", 0.2, "no answer within 0 s"),
        ("raise SystemExit('no backend of this name')", 60, "no backend of this name"),
        ("import os; os._exit(7)", 60, "a process ended with status 7"),
        ("print('hello')", 60, "a process gave no answer"),
        ("pass", 60, "a process gave no answer"),
        ('print(\'{"is_right": false, "bytes_per_s": 1}\')', 60, "the sum is wrong"),
    ],
)
def test_processes_that_fail_are_told_and_ended(code: str, timeout_s: float, problem: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    trial = trials.hear("sum", processes, timeout_s)
    assert (trial.is_right, trial.problem) == (False, problem)
    assert all(process.returncode is not None for process in processes)
