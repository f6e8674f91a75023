"""What a config and a machine lead to, made for each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from arclight import hardware
from arclight.checkpoint.fsdp import ShardedStrategy
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.config.compose import compose
from arclight.hardware import Gpu, HardwareInfo
from arclight.runs import build
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

CPU = HardwareInfo(num_cores=2, memory_bytes=2**34)
TWO_GPUS = replace(CPU, gpus=(Gpu("A100", 40 * 10**9, (8, 0)),) * 2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("num_parameters", "strategy"), [(None, "ddp"), (10**8, "ddp"), (3 * 10**9, "fsdp")])
def test_a_net_too_large_for_one_gpu_is_sharded(num_parameters: int | None, strategy: str) -> None:
    decisions = build.plan_for(compose(TINY_TEXT).settings, TWO_GPUS, num_parameters)
    assert decisions["strategy"].value == strategy


def test_images_have_fixed_shapes_and_text_that_is_packed_so() -> None:
    kinds = (TINY_IMAGES, TINY_TEXT, [*TINY_TEXT, "data.packing=fixed"])
    searched = [build.plan_for(compose(data).settings, TWO_GPUS)["cudnn_benchmark"].value for data in kinds]
    assert searched == [True, False, True]


def test_any_strategy_goes_on_from_what_fsdp_saved() -> None:
    assert isinstance(build.placing_of("fsdp", LastCheckpoint(Path()))["strategy"], ShardedStrategy)
    assert isinstance(build.placing_of("ddp", LastCheckpoint(Path()))["plugins"][0], CheckpointFiles)


def test_the_batch_is_cut_for_the_machine() -> None:
    run_config = compose([*TINY_IMAGES, "data.max_batch_per_device=4", "logger=none"])
    parts = build.build_components(run_config, hardware.probe(), [], Console(quiet=True))
    assert parts.trainer.accumulate_grad_batches == 4
    assert parts.data.batch_size == 16
    assert build.count_parameters(parts.module) > 0


def test_own_accumulation_is_kept() -> None:
    run_config = compose([*TINY_IMAGES, "trainer.accumulate_grad_batches=2", "logger=none"])
    assert build.build_components(run_config, hardware.probe(), [], Console(quiet=True)).trainer.accumulate_grad_batches == 2


def test_the_task_names_the_metric_that_decides() -> None:
    assert [build.monitor_of(compose(data).settings) for data in (TINY_IMAGES, TINY_TEXT)] == ["val/accuracy", "val/f1"]
