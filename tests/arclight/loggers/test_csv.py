"""A killed and resumed run keeps exactly the rows of the steps that it has done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.loggers.csv import MetricsFile
from arclight.loggers.record import Record, read_rows


def write_file(run_dir: Path) -> Path:
    writer = MetricsFile(run_dir, Record())
    for step in (10, 20, 30):
        writer.log_metrics({"train/loss": step / 10}, step)
        writer.log_metrics({"val/loss": step / 5}, step - 1)
        writer.save()
    return run_dir / "metrics.csv"


def test_a_resumed_run_keeps_its_rows(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    assert file.read_text().splitlines()[:3] == ["step,train/loss,val/loss", "10,1.0,", "9,,2.0"]
    record = Record.read(tmp_path, 20)
    writer = MetricsFile(tmp_path, record)
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19"]
    assert record.num_rows == 4
    writer.log_metrics({"train/loss": 7.0, "new": 1.0}, 30)
    assert record.num_rows == 5
    writer.save()
    assert file.read_text().splitlines()[0] == "new,step,train/loss,val/loss"
    assert [row["step"] for row in read_rows(file)] == ["10", "9", "20", "19", "30"]
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_is_deleted_meanwhile_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = MetricsFile(tmp_path, Record())
    for step in (10, 20, 30):
        writer.log_metrics({"train/loss": 1.0}, step)
        writer.save()
        if step == 10:
            (tmp_path / "metrics.csv").unlink()
    assert caplog.text.count("metrics.csv was deleted while the run trains") == 1
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["20", "30"]


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    MetricsFile(tmp_path, Record.read(tmp_path, 0))
    assert not file.exists()


@pytest.mark.parametrize("when", ["resumes", "has a new metric"])
def test_a_kill_during_a_rewrite_keeps_the_old_file(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> Any:
        raise KeyboardInterrupt

    file = write_file(tmp_path)
    before = file.read_text()
    writer = MetricsFile(tmp_path, Record.read(tmp_path, 30))
    monkeypatch.setattr(Path, "replace", killed)
    writer.log_metrics({"new": 1.0}, 40)
    rewrite = writer.save if when == "has a new metric" else lambda: MetricsFile(tmp_path, Record.read(tmp_path, 20))
    with pytest.raises(KeyboardInterrupt):
        rewrite()
    assert file.read_text() == before
