from __future__ import annotations

from pathlib import Path

import pytest

from arclight.loggers.run_ids import MAX_NAME_LENGTH, read_id, run_group, run_metadata, run_name, write_id


def test_the_name_lists_the_overrides(tmp_path: Path) -> None:
    overrides = [
        "experiment=demo",
        "data=synthetic_images",
        "optimizer.lr=1e-3",
        "+model.width=8",
        "logger.wandb.project=x",
        "~callbacks",
    ]
    (tmp_path / "overrides.txt").write_text("\n".join(overrides))
    assert run_name(tmp_path, "synthetic_images-cnn") == "synthetic_images-cnn lr=1e-3 width=8"
    (tmp_path / "overrides.txt").write_text("a.b=" + "x" * 500)
    assert len(run_name(tmp_path, "n")) == MAX_NAME_LENGTH
    assert run_name(tmp_path / "nowhere", "n") == "n"


def test_runs_of_a_multirun_share_a_group() -> None:
    assert run_group(Path("outputs/multirun/2026-01-31_12-00-00/3-a-b"), "a-b") == "multirun 2026-01-31_12-00-00"
    assert run_group(Path("outputs/a-b/2026-01-31_12-00-00"), "a-b") == "a-b"


def test_runs_of_a_sweep_share_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert run_group(Path("outputs/a-b/2026-01-31_12-00-00"), "a-b") == "sweep abc"


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 7}', '{"wan'])
def test_ids_are_stored_and_damaged_files_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers.json").write_text(content)
    assert read_id(tmp_path, "wandb") is None
    write_id(tmp_path, "wandb", "abc")
    write_id(tmp_path, "mlflow", "def")
    assert (read_id(tmp_path, "wandb"), read_id(tmp_path, "mlflow")) == ("abc", "def")


def test_metadata_of_an_incomplete_run_directory(tmp_path: Path) -> None:
    assert run_metadata(tmp_path) == {"overrides": "", "folder": str(tmp_path)}
