"""The table of settings: what is tried, what is left out and why, and what the times make of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from arclight.benchmark import precision
from arclight.benchmark.backend import Backend
from arclight.benchmark.measurement import Case, Result, gather_facts
from arclight.benchmark.precision import (
    PLAIN,
    best_case,
    combinations,
    measure_precision,
    not_here,
    single_changes,
    to_case,
    to_table,
)
from arclight.benchmark.training_step import Sample, Work, make_sample
from arclight.errors import InputError
from arclight.hardware import peak_measurement
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.benchmark.test_training_step import TINY_IMAGES

MACHINE = MeasuredPeaks("cpu", "Some CPU, 2 threads", 2, {"fp32": 1e11, "bf16": 4e11}, 2e10)


def made_up(flops: float = 1e9) -> Sample:
    sample = make_sample(TINY_IMAGES)
    return Sample(sample.overrides, sample.settings, sample.data_info, sample.batch, Work(10, 0, 0), flops)


def test_each_change_is_tried_alone() -> None:
    names = [backend.name for backend in single_changes()]
    assert names == ["plain", "tf32", "bf16", "fp16", "cudnn off", "cudnn benchmark", "channels last", "compile"]


def test_every_combination_once_and_no_single_change_again() -> None:
    made = combinations(["bf16", "fp32"], ["channels_last", "compile"])
    assert [backend.name for backend in made] == [
        *("bf16 + channels last", "bf16 + compile", "bf16 + channels last + compile", "channels last + compile"),
    ]
    assert len(combinations(["bf16", "fp16"], ["cudnn_benchmark", "channels_last", "compile"])) == 14


def test_what_cannot_be_tried_is_told() -> None:
    reasons = {"fp32": None, "tf32": "why", "bf16": None, "fp16": None}
    cpu = not_here(reasons, torch.device("cpu"), has_images=True, skip=["compile"])
    assert cpu == {
        "tf32": "not on this device: why",
        "cudnn off": "not on this device: cuDNN is a library for NVIDIA GPUs",
        "cudnn benchmark": "not on this device: cuDNN is a library for NVIDIA GPUs",
        "compile": "left out by choice",
    }
    gpu = not_here({**reasons, "tf32": None}, torch.device("cuda"), has_images=False, skip=[])
    assert gpu == dict.fromkeys(
        ("cudnn off", "cudnn benchmark", "channels last"), "makes no difference: no images in this data"
    )


def test_factors_and_shares_of_made_up_times() -> None:
    case = to_case(Backend(precision="bf16"), made_up(), MACHINE, [10.0, 20.0, 10.0], [20.0, 80.0, 30.0], 0.5)
    figures = case.figures
    assert figures["factor"].values == (2, 4, 3)
    assert figures["samples"].median == pytest.approx(1000)
    assert figures["flops"].median == pytest.approx(100)  # 10^9 in 10 ms
    assert figures["peak_share"].median == pytest.approx(0.25)  # of the peak in bf16, not in fp32
    assert "tokens" not in figures


def test_the_table_names_the_best_and_what_is_missing() -> None:
    plain = to_case(PLAIN, made_up(), MACHINE, [20.0, 20.0], [20.0, 20.0], 0.1)
    fast = to_case(Backend(precision="bf16", channels_last=True), made_up(), MACHINE, [10.0, 8.0], [20.0, 20.0], 0.1)
    cases = (plain, Case("compile", {}, missing="failed: no compiler"), fast)
    hardware_info = gather_facts(MACHINE, {}, {"model": "cnn", "samples": 10}, num_rounds=2)
    result = Result("precision-cnn", hardware_info, cases)
    assert best_case(cases) is fast
    console = Console(file=io.StringIO(), width=140)
    console.print(to_table(result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "best: bf16 + channels last │ 2.25 (2.00 to 2.50)" in text
    assert "compile: failed: no compiler" in text
    assert "products at most, GFLOP/s: fp32 100, bf16 400; copy 20.0 GB/s" in text


def test_a_real_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})
    there = {"fp32": None, "tf32": "why", "bf16": None, "fp16": "why"}
    for module in (peak_measurement, precision):
        monkeypatch.setattr(module, "unavailable_precisions", lambda device, hardware_info: there)

    def no_compiler(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    result = measure_precision("small_cnn", ["data.num_train=64"], device_wish="cpu", batch_size=8, num_rounds=2, round_s=0.01)
    cases = {case.name: case for case in result.cases}
    assert cases["compile"].missing == "failed: RuntimeError: no compiler"
    for name in ("plain", "bf16", "channels last", "bf16 + channels last"):
        assert len(cases[name].figures["step"].values) == 2
        assert cases[name].figures["peak_share"].low > 0
    assert cases["plain"].figures["factor"].values == (1, 1)
    assert cases["fp16"].missing is not None
    assert result.facts["settings"]["samples"] == 8
    assert result.facts["plan"]["precision"]["reason"]
    to_table(result)


def test_a_plain_setting_that_fails_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(precision, "TrainingStep", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        precision.compare(made_up(), MACHINE, torch.device("cpu"), [PLAIN], num_rounds=1, round_s=0, tell=print)


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="--repeats 0 must be 1 or more"):
        measure_precision("cnn", [], num_rounds=0)
    with pytest.raises(InputError, match="model=resnet19: conf/model/ has no resnet19.yaml. Did you mean 'resnet18'"):
        measure_precision("resnet19", [])
    with pytest.raises(InputError, match="data.batch_size=0 must be 1 or more"):
        measure_precision("cnn", [], batch_size=0)
