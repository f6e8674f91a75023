"""The forward pass: what is called, what is counted, which cases there are; nothing here depends on time."""

from __future__ import annotations

import pytest
import torch

from arclight.benchmark import inference
from arclight.benchmark.inference import Forward, Options, backends_for, latencies, to_case, to_table
from arclight.benchmark.training_step import Backend, make_sample
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.benchmark.test_training_step import TINY_IMAGES, TINY_TEXT

CPU = torch.device("cpu")
MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e9, "bf16": 4e9}, 1e10)


def test_flops_of_a_forward_pass_counted_by_hand() -> None:
    call = Forward(make_sample(TINY_IMAGES), Backend(), CPU)
    assert call.flops() == 4 * 2 * (32 * 32 * 16 * 27 + 16 * 16 * 32 * 144 + 32 * 8 * 8 * 8)


@pytest.mark.parametrize("packing", ["none", "buckets", "rows"])
def test_text_in_every_packing_can_be_measured(packing: str) -> None:
    sample = make_sample([*TINY_TEXT, f"data.packing={packing}"])
    call = Forward(sample, Backend(precision="bf16"), CPU)
    call()
    assert (call.inputs[2] is not None) is (packing == "rows")
    assert 0 < sample.work.tokens <= sample.work.positions


def test_no_weight_changes() -> None:
    call = Forward(make_sample(TINY_IMAGES), Backend(), CPU)
    before = [value.clone() for value in call.module.state_dict().values()]
    assert not call.module.training
    assert len(latencies(call, CPU, 0.0)()) == 3
    assert all(torch.equal(old, new) for old, new in zip(before, call.module.state_dict().values(), strict=True))


def test_only_settings_that_make_a_difference_are_measured() -> None:
    assert len(backends_for(make_sample(TINY_IMAGES), ())) == 6
    text = backends_for(make_sample(TINY_TEXT), ("compile",))
    assert [backend.name for backend in text] == ["plain", "bf16"]


def test_rates_follow_from_the_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Forward(make_sample(TINY_IMAGES), Backend(), CPU)
    monkeypatch.setattr(call, "flops", lambda: 1e6)
    case = to_case("x", call, 1e9, [[0.1, 0.1, 0.4], [0.2, 0.2, 0.2]])
    assert case.figures["latency"].values == pytest.approx((100, 200))
    assert case.figures["samples"].values == pytest.approx((20, 20))
    assert case.figures["peak_share"].values == pytest.approx((0.005, 0.005))
    assert case.figures["latency_p95"].values[0] == pytest.approx(370)


def test_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "measure_peaks", lambda device, hardware_info: MACHINE)
    monkeypatch.setattr(inference, "unavailable_precisions", lambda device, info: {"fp32": None, "bf16": "not here"})
    options = Options(sizes=(1, 2), overrides=TINY_IMAGES[:-1], skip=("compile",), num_rounds=1, round_s=0.0, device="cpu")
    result = inference.measure(options, print)
    measured = [case.name for case in result.cases if case.missing is None]
    assert measured == ["batch 1, plain", "batch 1, channels last", "batch 2, plain", "batch 2, channels last"]
    assert {case.missing for case in result.cases if case.missing} == {"not on this device: not here"}
    assert to_table(result).row_count == 4
