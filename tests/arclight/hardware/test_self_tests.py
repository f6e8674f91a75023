"""The self-tests of the hardware pass here, and failures are reported."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.hardware import peak_measurement, self_tests
from arclight.hardware.self_tests import SelfTest, check_all_reduce, check_product, run_self_tests
from tests.arclight.hardware.test_plan import A100, CPU, MI300


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_measurement, "BLOCK_S", 1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
def test_a_product_is_correct(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    result = check_product(precision, "cpu")
    assert (result.name, result.passed, result.unit) == (f"matrix product in {precision}, cpu", True, "GFLOP/s")
    assert result.value > 0
    assert torch.get_float32_matmul_precision() == before


def test_matrices_grow_until_a_product_takes_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def fake_product(device: Any, size: int, dtype: Any) -> Any:
        sizes.append(size)
        return lambda: size

    monkeypatch.setattr(peak_measurement, "BLOCK_S", 0.05)
    monkeypatch.setattr(peak_measurement, "product", fake_product)
    monkeypatch.setattr(peak_measurement, "seconds_of", lambda call, num_calls, device: num_calls * (call() / 512) ** 3)
    assert check_product("fp32", "cpu").value == pytest.approx(2 * 512**3 / 1e9)
    assert sizes == [128, 256]


def test_a_device_that_fails_is_reported() -> None:
    result = check_product("fp32", "nonsense")
    assert not result.passed
    assert "nonsense" in result.problem


def test_a_wrong_product_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_tests, "product_error", lambda precision, device: 0.5)
    assert check_product("fp32", "cpu").problem == "the product is wrong: relative error 0.5, at most 0.0001 is right"
    monkeypatch.setattr(self_tests, "product_error", lambda precision, device: float("nan"))
    assert not check_product("fp32", "cpu").passed


def test_which_tests_run_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_tests, "check_product", lambda precision, device: SelfTest(precision, passed=True))
    monkeypatch.setattr(self_tests, "check_all_reduce", lambda backend: SelfTest(backend, passed=True))
    one = replace(A100, gpus=A100.gpus[:1])
    names = [[test.name for test in run_self_tests(*on)] for on in ((CPU, "cpu"), (one, "cuda"), (MI300, "cuda"))]
    assert names == [
        ["fp32", "bf16", "fp16", "fp64", "gloo"],
        ["fp32", "tf32", "bf16", "fp16", "fp64", "gloo"],
        ["fp32", "bf16", "fp16", "fp64", "gloo", "nccl"],
    ]


def test_the_sum_of_two_processes() -> None:
    result = check_all_reduce("gloo")
    assert result.passed, result.problem
    assert result.value > 0
    assert result.unit == "MB/s"


@pytest.mark.parametrize(
    ("backend", "timeout_s", "problem"), [("gloo", 0.01, "no answer within 0 s"), ("nonsense", 60.0, "nonsense")]
)
def test_processes_that_fail_are_reported_and_ended(
    backend: str, timeout_s: float, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_tests, "TIMEOUT_S", timeout_s)
    result = check_all_reduce(backend)
    assert not result.passed
    assert problem in result.problem
    assert not multiprocessing.active_children()


def test_a_wrong_sum_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("init_process_group", "barrier", "all_reduce"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with pytest.raises(ArithmeticError, match="the sum is wrong"):
        self_tests.all_reduce((0, "gloo", str(tmp_path)))
