"""The components built from a config, for a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from arclight import hardware
from arclight.checkpoint.fsdp import ShardedStrategy
from arclight.checkpoint.last_checkpoint import LastCheckpoint
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.config.compose import compose
from arclight.runs import build
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_fsdp_has_its_own_strategy_and_other_strategies_a_plugin() -> None:
    assert isinstance(build.checkpoint_io("fsdp", LastCheckpoint(Path()))["strategy"], ShardedStrategy)
    assert isinstance(build.checkpoint_io("ddp", LastCheckpoint(Path()))["plugins"][0], CheckpointFiles)


def test_the_batch_is_split_into_accumulation_steps() -> None:
    run_config = compose([*TINY_IMAGES, "data.max_batch_per_device=4", "logger=none"])
    parts = build.build_components(run_config, hardware.probe(), [], Console(quiet=True))
    assert parts.trainer.accumulate_grad_batches == 4
    assert parts.data.batch_size == 16
    assert build.count_parameters(parts.module) > 0


def test_the_users_accumulation_is_kept() -> None:
    run_config = compose([*TINY_IMAGES, "trainer.accumulate_grad_batches=2", "logger=none"])
    assert build.build_components(run_config, hardware.probe(), [], Console(quiet=True)).trainer.accumulate_grad_batches == 2


def test_the_module_names_the_monitored_metric() -> None:
    assert [
        build.monitor_in_results(build.configured_monitor(compose(data).settings)) for data in (TINY_IMAGES, TINY_TEXT)
    ] == [{"monitor": name, "monitor_mode": "max"} for name in ("val/accuracy", "val/f1")]
