from __future__ import annotations

from pathlib import Path

import pytest

from arclight.training.tracked_runs import LONGEST_NAME, facts_of, group_of, id_of, keep_id, name_of


def test_a_name_is_made_of_what_was_said(tmp_path: Path) -> None:
    said = ["experiment=demo", "data=shapes", "optimizer.lr=1e-3", "+model.width=8", "tracker.wandb.project=x", "~callbacks"]
    (tmp_path / "overrides.txt").write_text("\n".join(said))
    assert name_of(tmp_path, "shapes-cnn") == "shapes-cnn lr=1e-3 width=8"
    (tmp_path / "overrides.txt").write_text("a.b=" + "x" * 500)
    assert len(name_of(tmp_path, "n")) == LONGEST_NAME
    assert name_of(tmp_path / "nowhere", "n") == "n"


def test_the_runs_of_a_grid_are_a_group() -> None:
    assert group_of(Path("outputs/grid/2026-01-31_12-00-00/3-a-b"), "a-b") == "grid 2026-01-31_12-00-00"
    assert group_of(Path("outputs/a-b/2026-01-31_12-00-00"), "a-b") == "a-b"


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 7}', '{"wan'])
def test_ids_are_kept_and_broken_files_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers.json").write_text(content)
    assert id_of(tmp_path, "wandb") is None
    keep_id(tmp_path, "wandb", "abc")
    keep_id(tmp_path, "mlflow", "def")
    assert (id_of(tmp_path, "wandb"), id_of(tmp_path, "mlflow")) == ("abc", "def")


def test_facts_of_a_half_written_folder(tmp_path: Path) -> None:
    assert facts_of(tmp_path) == {"overrides": "", "folder": str(tmp_path)}
