"""No kill costs a row of metrics.csv that the run has behind it, and none of those that it has not stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.loggers.csv import MetricsFile, read_rows, rows_until


def leave(folder: Path) -> Path:
    writer = MetricsFile(folder, [])
    for step in (10, 20, 30):
        writer.log_metrics({"train/loss": step / 10}, step)
        writer.log_metrics({"val/loss": step / 5}, step - 1)
        writer.save()
    return folder / "metrics.csv"


def test_rows_come_back(tmp_path: Path) -> None:
    assert leave(tmp_path).read_text().splitlines()[:3] == ["step,train/loss,val/loss", "10,1.0,", "9,,2.0"]
    assert rows_until(tmp_path / "metrics.csv", 20) == [
        *({"step": "10", "train/loss": "1.0"}, {"step": "9", "val/loss": "2.0"}),
        *({"step": "20", "train/loss": "2.0"}, {"step": "19", "val/loss": "4.0"}),
    ]
    assert rows_until(tmp_path / "none.csv", 20) == []
    writer = MetricsFile(tmp_path, rows_until(tmp_path / "metrics.csv", 30))
    writer.log_metrics({"test/loss": 3.0}, 30)
    writer.save()
    assert [row["step"] for row in rows_until(tmp_path / "metrics.csv", 30)] == ["10", "9", "20", "19", "30", "29"]


def test_a_line_that_was_cut_short_is_no_row(tmp_path: Path) -> None:
    file = leave(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("30,3.0,", "3")[: text.index("30,3.0") + 1])
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19"]
    file.write_text("step,train/loss\n10,1.0\n\0\0,\nx,2.0\n\n")
    assert [row["step"] for row in read_rows(file)] == ["10"]
    file.write_text("")
    assert read_rows(file) == []


def test_a_run_that_goes_on_has_its_rows_from_the_start(tmp_path: Path) -> None:
    file = leave(tmp_path)
    writer = MetricsFile(tmp_path, rows_until(file, 20))
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19"]
    writer.log_metrics({"train/loss": 7.0, "new": 1.0}, 30)
    writer.save()
    assert file.read_text().splitlines()[0] == "new,step,train/loss,val/loss"
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19", "30"]
    assert not list(tmp_path.glob("*.part"))


def test_a_new_run_begins_with_none(tmp_path: Path) -> None:
    file = leave(tmp_path)
    MetricsFile(tmp_path, [])
    assert not file.exists()


@pytest.mark.parametrize("when", ["goes on", "has a new metric"])
def test_a_kill_while_it_is_written_anew_costs_nothing(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> Any:
        raise KeyboardInterrupt

    file = leave(tmp_path)
    before = file.read_text()
    writer = MetricsFile(tmp_path, rows_until(file, 30))
    monkeypatch.setattr(Path, "replace", killed)
    writer.log_metrics({"new": 1.0}, 40)
    begin = writer.save if when == "has a new metric" else lambda: MetricsFile(tmp_path, rows_until(file, 20))
    with pytest.raises(KeyboardInterrupt):
        begin()
    assert file.read_text() == before
