"""A killed and resumed run keeps exactly the rows of the steps that it has done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.loggers.csv import MetricsFile, read_rows, rows_between, rows_until


def write_file(run_dir: Path) -> Path:
    writer = MetricsFile(run_dir, [])
    for step in (10, 20, 30):
        writer.log_metrics({"train/loss": step / 10}, step)
        writer.log_metrics({"val/loss": step / 5}, step - 1)
        writer.save()
    return run_dir / "metrics.csv"


def test_rows_are_read_back(tmp_path: Path) -> None:
    assert write_file(tmp_path).read_text().splitlines()[:3] == ["step,train/loss,val/loss", "10,1.0,", "9,,2.0"]
    assert rows_until(tmp_path / "metrics.csv", 20) == [
        *({"step": "10", "train/loss": "1.0"}, {"step": "9", "val/loss": "2.0"}),
        *({"step": "20", "train/loss": "2.0"}, {"step": "19", "val/loss": "4.0"}),
    ]
    assert rows_until(tmp_path / "none.csv", 20) == []
    writer = MetricsFile(tmp_path, rows_until(tmp_path / "metrics.csv", 30))
    writer.log_metrics({"test/loss": 3.0}, 30)
    writer.save()
    assert [row["step"] for row in rows_until(tmp_path / "metrics.csv", 30)] == ["10", "9", "20", "19", "30", "29"]


def test_truncated_and_invalid_lines_are_left_out(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("30,3.0,", "3")[: text.index("30,3.0") + 1])
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19"]
    file.write_text("step,train/loss\n10,1.0\n\0\0,\nx,2.0\n\n")
    assert [row["step"] for row in read_rows(file)] == ["10"]
    file.write_text("")
    assert read_rows(file) == []


def test_a_resumed_run_keeps_its_rows(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    writer = MetricsFile(tmp_path, rows_until(file, 20))
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19"]
    writer.log_metrics({"train/loss": 7.0, "new": 1.0}, 30)
    writer.save()
    assert file.read_text().splitlines()[0] == "new,step,train/loss,val/loss"
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19", "30"]
    assert not list(tmp_path.glob("*.part"))


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    MetricsFile(tmp_path, [])
    assert not file.exists()


@pytest.mark.parametrize("when", ["resumes", "has a new metric"])
def test_a_kill_during_a_rewrite_keeps_the_old_file(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> Any:
        raise KeyboardInterrupt

    file = write_file(tmp_path)
    before = file.read_text()
    writer = MetricsFile(tmp_path, rows_until(file, 30))
    monkeypatch.setattr(Path, "replace", killed)
    writer.log_metrics({"new": 1.0}, 40)
    rewrite = writer.save if when == "has a new metric" else lambda: MetricsFile(tmp_path, rows_until(file, 20))
    with pytest.raises(KeyboardInterrupt):
        rewrite()
    assert file.read_text() == before


def test_rows_that_a_logger_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss\n2,0.5,\n3,,0.4\n4,0.3,\n6,0.2,\n7,,0.1\n8,0.1,\n")
    # Lightning logs the validation after step 4 under step 3
    assert [row["step"] for row in rows_until(path, 7)] == ["2", "3", "4", "6"]
    assert [row["step"] for row in rows_between(path, 0, 8)] == ["2", "3", "4", "6", "7", "8"]
    assert rows_between(path, 4, 7) == [{"step": "6", "train/loss": "0.2"}]
    assert [row["step"] for row in rows_between(path, 3, 6)] == ["3", "4", "6"]
