from __future__ import annotations

from pathlib import Path

import pytest

from arclight.loggers.csv import rows_between, rows_until
from arclight.loggers.run_ids import LONGEST_NAME, facts_of, group_of, id_of, keep_id, name_of


def test_a_name_is_made_of_what_was_said(tmp_path: Path) -> None:
    said = [
        "experiment=demo",
        "data=synthetic_images",
        "optimizer.lr=1e-3",
        "+model.width=8",
        "logger.wandb.project=x",
        "~callbacks",
    ]
    (tmp_path / "overrides.txt").write_text("\n".join(said))
    assert name_of(tmp_path, "synthetic_images-cnn") == "synthetic_images-cnn lr=1e-3 width=8"
    (tmp_path / "overrides.txt").write_text("a.b=" + "x" * 500)
    assert len(name_of(tmp_path, "n")) == LONGEST_NAME
    assert name_of(tmp_path / "nowhere", "n") == "n"


def test_the_runs_of_a_multirun_are_a_group() -> None:
    assert group_of(Path("outputs/multirun/2026-01-31_12-00-00/3-a-b"), "a-b") == "multirun 2026-01-31_12-00-00"
    assert group_of(Path("outputs/a-b/2026-01-31_12-00-00"), "a-b") == "a-b"


def test_the_runs_of_a_sweep_are_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert group_of(Path("outputs/a-b/2026-01-31_12-00-00"), "a-b") == "sweep abc"


def test_rows_up_to_a_step_and_those_that_a_tracker_lacks(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert rows_until(path, 9) == []
    path.write_text("step,train/loss,val/loss\n2,0.5,\n3,,0.4\n4,0.3,\n6,0.2,\n7,,0.1\n8,0.1,\n")
    # Lightning counts the validation after step 4 as of step 3
    assert [row["step"] for row in rows_until(path, 7)] == ["2", "3", "4", "6"]
    assert [row["step"] for row in rows_between(path, 0, 8)] == ["2", "3", "4", "6", "7", "8"]
    assert rows_between(path, 4, 7) == [{"step": "6", "train/loss": "0.2"}]
    assert [row["step"] for row in rows_between(path, 3, 6)] == ["3", "4", "6"]


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 7}', '{"wan'])
def test_ids_are_kept_and_broken_files_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers.json").write_text(content)
    assert id_of(tmp_path, "wandb") is None
    keep_id(tmp_path, "wandb", "abc")
    keep_id(tmp_path, "mlflow", "def")
    assert (id_of(tmp_path, "wandb"), id_of(tmp_path, "mlflow")) == ("abc", "def")


def test_facts_of_a_half_written_folder(tmp_path: Path) -> None:
    assert facts_of(tmp_path) == {"overrides": "", "folder": str(tmp_path)}
