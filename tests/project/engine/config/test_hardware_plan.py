"""The hardware plan of a config: what the net and the data offer decides with the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arclight.config.compose import compose
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware import Gpu, HardwareInfo
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

TWO_GPUS = replace(HardwareInfo(num_cores=2, memory_bytes=2**34), gpus=(Gpu("A100", 40 * 10**9, (8, 0)),) * 2)


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("num_parameters", "strategy"), [(None, "ddp"), (10**8, "ddp"), (3 * 10**9, "fsdp")])
def test_a_net_too_large_for_one_gpu_is_sharded(num_parameters: int | None, strategy: str) -> None:
    decisions = plan_hardware(compose(TINY_TEXT).settings, TWO_GPUS, num_parameters)
    assert decisions["strategy"].value == strategy


def test_data_modules_offer_whether_shapes_are_fixed() -> None:
    kinds = (TINY_IMAGES, TINY_TEXT, [*TINY_TEXT, "data.packing=fixed"])
    searched = [plan_hardware(compose(data).settings, TWO_GPUS)["cudnn_benchmark"].value for data in kinds]
    assert searched == [True, False, True]
