"""Which settings are measured, which are left out and why, and what the times give."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from rich.console import Console

from arclight.benchmark import precision
from arclight.benchmark.measurement import Case, make_result
from arclight.benchmark.precision import (
    PLAIN,
    Options,
    Subject,
    combinations,
    find_missing,
    single_changes,
    to_case,
    to_table,
)
from arclight.benchmark.training_step import Backend, Work, make_sample
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.benchmark.test_training_step import TINY_IMAGES

CPU = torch.device("cpu")
MACHINE = MeasuredPeaks("cpu", "Some CPU, 2 threads", 2, {"fp32": 1e11, "bf16": 4e11}, 2e10)


def made_up(flops: float | None = 1e9) -> Subject:
    return Subject(
        dataclasses.replace(make_sample(TINY_IMAGES), work=Work(10, 0, 0), flops=flops), CPU, [MACHINE], lambda: MACHINE
    )


def test_each_change_is_measured_alone() -> None:
    names = [backend.name for backend in single_changes()]
    assert names == ["plain", "tf32", "bf16", "fp16", "cudnn off", "cudnn benchmark", "channels last", "compile"]


def test_every_combination_once_and_no_single_change_again() -> None:
    backends = combinations(["bf16", "fp32"], ["channels_last", "compile"])
    assert [backend.name for backend in backends] == [
        *("bf16 + channels last", "bf16 + compile", "bf16 + channels last + compile", "channels last + compile"),
    ]
    assert len(combinations(["bf16", "fp16"], ["cudnn_benchmark", "channels_last", "compile"])) == 14


def test_what_is_left_out_has_a_reason() -> None:
    reasons = {"fp32": None, "tf32": "why", "bf16": None, "fp16": None}
    assert find_missing(reasons, CPU, has_layout=True, skip=["compile"]) == {
        "tf32": "not on this device: why",
        "cudnn off": "not on this device: cuDNN is a library for NVIDIA GPUs",
        "cudnn benchmark": "not on this device: cuDNN is a library for NVIDIA GPUs",
        "compile": "left out (--without)",
    }
    gpu = find_missing({**reasons, "tf32": None}, torch.device("cuda"), has_layout=False, skip=[])
    assert gpu == {"channels last": "makes no difference: this module has no option channels_last"}


def test_factors_and_fractions_of_given_times() -> None:
    figures = to_case(Backend(precision="bf16"), made_up(), [10.0, 20.0, 10.0], [20.0, 80.0, 30.0], 0.5).figures
    assert figures["factor"].values == (2, 4, 3)
    assert figures["samples"].median == pytest.approx(1000)
    assert figures["flops"].median == pytest.approx(100)  # 10^9 in 10 ms
    assert figures["peak_share"].median == pytest.approx(0.25)  # of the peak in bf16, not in fp32
    assert "tokens" not in figures
    assert "flops" not in to_case(PLAIN, made_up(None), [10.0], [10.0], 0.5).figures


def test_the_table_names_the_fastest_and_what_is_missing() -> None:
    plain = to_case(PLAIN, made_up(), [20.0, 20.0], [20.0, 20.0], 0.1)
    fast = to_case(Backend(precision="bf16", channels_last=True), made_up(), [10.0, 8.0], [20.0, 20.0], 0.1)
    cases = (plain, Case("compile", {}, missing="failed: no compiler"), fast)
    result = make_result("precision-cnn", cases, MACHINE, {}, {"model": "cnn", "samples": 10}, num_rounds=2)
    console = Console(file=io.StringIO(), width=140)
    console.print(to_table(result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fastest: bf16 + channels last, 2.25 (2.00 to 2.50)" in text
    assert "compile: failed: no compiler" in text
    assert "measured peaks, GFLOP/s: fp32 100, bf16 400; copy 20.0 GB/s" in text


def test_a_measured_table(monkeypatch: pytest.MonkeyPatch) -> None:
    available = {"fp32": None, "tf32": "why", "bf16": None, "fp16": "why"}
    monkeypatch.setattr(precision, "measure_peaks", lambda device, hardware_info: MACHINE)
    monkeypatch.setattr(precision, "unavailable_precisions", lambda device, hardware_info: available)

    def no_compiler(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    result = precision.measure(Options(overrides=TINY_IMAGES, device="cpu", num_rounds=2, round_s=0.01), print)
    cases = {case.name: case for case in result.cases}
    assert cases["compile"].missing == "failed: RuntimeError: no compiler"
    for name in ("plain", "bf16", "channels last", "bf16 + channels last"):
        assert len(cases[name].figures["step"].values) == 2
        assert min(cases[name].figures["peak_share"].values) > 0
    assert cases["plain"].figures["factor"].values == (1, 1)
    assert cases["fp16"].missing is not None
    assert result.metadata["settings"]["samples"] == 4
    assert result.metadata["plan"]["precision"]["reason"]
    to_table(result)


def test_plain_settings_that_fail_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(precision, "TrainingStep", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        precision.compare(made_up(), [PLAIN], Options(num_rounds=1), print)


def test_wrong_overrides_are_an_error() -> None:
    with pytest.raises(InputError, match=r"model=resnet19: conf/model/ has no resnet19.yaml. Did you mean 'resnet18'"):
        precision.measure(Options(overrides=["model=resnet19"]), print)
    with pytest.raises(InputError, match="data.batch_size=0 must be 1 or more"):
        precision.measure(Options(overrides=["data=synthetic_images", "data.batch_size=0"]), print)
