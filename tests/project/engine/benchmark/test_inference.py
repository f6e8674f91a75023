"""The forward pass alone: what is called, what is counted, which cases there are; no claim on any time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arclight.benchmark import inference
from arclight.benchmark.backend import Backend
from arclight.benchmark.inference import (
    Forward,
    Wish,
    backends_for,
    count_forward,
    latencies,
    measure_inference,
    to_case,
    to_table,
)
from arclight.benchmark.training_step import make_sample
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from tests.project.engine.benchmark.test_training_step import TINY_IMAGES, TINY_TEXT

CPU = torch.device("cpu")
MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e9, "bf16": 4e9}, 1e10)


def test_flops_of_a_forward_pass_counted_by_hand() -> None:
    sample = make_sample(TINY_IMAGES)
    task = Forward(sample, Backend(), CPU).task
    assert count_forward(task, sample) == 4 * 2 * (32 * 32 * 16 * 27 + 16 * 16 * 32 * 144 + 32 * 8 * 8 * 8)


@pytest.mark.parametrize("packing", ["none", "buckets", "rows"])
def test_text_in_every_packing_goes_through(packing: str) -> None:
    sample = make_sample([*TINY_TEXT, f"data.packing={packing}"])
    call = Forward(sample, Backend(precision="bf16"), CPU)
    call()
    assert (call.given[2] is not None) is (packing == "rows")
    assert 0 < sample.work.tokens <= sample.work.positions


def test_nothing_is_learned() -> None:
    call = Forward(make_sample(TINY_IMAGES), Backend(), CPU)
    before = [value.clone() for value in call.task.state_dict().values()]
    assert not call.task.training
    assert len(latencies(call, CPU, 0.0)()) == 3
    assert all(torch.equal(old, new) for old, new in zip(before, call.task.state_dict().values(), strict=True))


def test_only_what_makes_a_difference_is_tried() -> None:
    assert len(backends_for(make_sample(TINY_IMAGES), ())) == 6
    text = backends_for(make_sample(TINY_TEXT), ("compile",))
    assert [backend.name for backend in text] == ["plain", "bf16"]


def test_rates_follow_from_the_latencies() -> None:
    sample = make_sample(TINY_IMAGES)
    case = to_case("x", Backend(), sample, "", 1e6, MACHINE, [[0.1, 0.1, 0.4], [0.2, 0.2, 0.2]])
    assert case.figures["latency"].values == pytest.approx((100, 200))
    assert case.figures["samples"].values == pytest.approx((20, 20))
    assert case.figures["peak_share"].values == pytest.approx((0.005, 0.005))
    assert case.figures["latency_p95"].values[0] == pytest.approx(370)


def test_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "measure_peaks", lambda device, hardware_info: MACHINE)
    monkeypatch.setattr(inference, "unavailable_precisions", lambda device, hardware_info: {"fp32": None, "bf16": "not here"})
    wish = Wish(model="small_cnn", sizes=(1, 2), overrides=("data.num_train=16",), skip=("compile",), num_rounds=1, round_s=0.0)
    result = measure_inference(wish)
    measured = [case.name for case in result.cases if case.missing is None]
    assert measured == ["batch 1, plain", "batch 1, channels last", "batch 2, plain", "batch 2, channels last"]
    assert {case.missing for case in result.cases if case.missing} == {"not on this device: not here"}
    assert to_table(result).row_count == 4


@pytest.mark.parametrize(
    ("wish", "told"),
    [({"num_rounds": 0}, "--repeats 0 must be 1 or more"), ({"sizes": (4, 0)}, "--batch-sizes 0 must be 1 or more")],
)
def test_a_wrong_wish_is_told(wish: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Wish(**wish)
