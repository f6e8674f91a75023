"""metrics.csv is the record: a resumed run keeps the rows of its checkpoint, and no logger records a row twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arclight.loggers.record import ROWS, Record, RecordedRows, Repeats, metrics_of, read_rows

# as Lightning and the engine log them: "own" with the number of steps done, the module's metrics with that of those before
ROWS_IN_ORDER = """step,own,module,val/loss,test/loss
1,1.0,,,
0,,0.5,,
2,2.0,,,
1,,0.4,,
1,,,0.3,
2,,9.0,,
3,3.0,,,
3,,,,0.2
"""


@pytest.mark.parametrize(
    ("after_step", "num_rows", "steps"),
    [
        (0, None, []),  # killed before the first checkpoint
        (1, 1, ["1", "0"]),  # the module's metrics of a step are logged after its checkpoint
        (2, 3, ["1", "0", "2", "1", "1"]),
        (2, 5, ["1", "0", "2", "1", "1"]),
        (2, 6, ["1", "0", "2", "1", "1", "2"]),  # another logged before the checkpoint, with the number of steps done
        (3, 7, ["1", "0", "2", "1", "1", "2", "3"]),  # not the test, which is repeated
        (3, None, ["1", "0", "2", "1", "1", "2", "3"]),
        (2, None, ["1", "0", "2", "1", "1", "2"]),  # a checkpoint that does not hold the number of rows
    ],
)
def test_rows_of_a_checkpoint(after_step: int, num_rows: int | None, steps: list[str], tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(ROWS_IN_ORDER)
    record = Record.read(tmp_path, after_step, num_rows)
    assert [row["step"] for row in record.rows] == steps
    assert (record.after_step, record.num_rows, len(record.found)) == (after_step, len(steps), 8)


def test_a_run_without_metrics_csv_has_no_rows(tmp_path: Path) -> None:
    assert Record.read(tmp_path, 7, 3) == Record(7)


def test_truncated_and_invalid_lines_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,train/loss,val/loss\n10,1.0,\n9,,2.0\n20,2.0,\n3")
    assert read_rows(file) == [
        {"step": "10", "train/loss": "1.0"},
        {"step": "9", "val/loss": "2.0"},
        {"step": "20", "train/loss": "2.0"},
    ]
    file.write_text("step,train/loss\n10,1.0\n\0\0,\nx,2.0\n\n")
    assert [row["step"] for row in read_rows(file)] == ["10"]
    file.write_text("")
    assert read_rows(file) == []


def test_metrics_of_a_row_are_numbers() -> None:
    metrics = metrics_of({"step": "3", "a": "0.5", "b": "inf", "note": "text"})
    assert metrics == {"a": 0.5, "b": float("inf")}


def test_each_recorded_metric_is_left_out_once() -> None:
    repeats = Repeats([("loss", 1), ("epoch", 1), ("epoch", 1), ("loss", 2)])
    assert repeats.new({"loss": 0.5, "epoch": 0, "lr": 0.1}, 1) == {"lr": 0.1}
    assert repeats.new({"accuracy": 0.5, "epoch": 0}, 1) == {"accuracy": 0.5}
    assert repeats.new({"epoch": 0}, 1) == {"epoch": 0}
    assert repeats.new({"loss": 0.5}, 3) == {"loss": 0.5}
    assert repeats.new({"loss": 0.5}, None) == {"loss": 0.5}
    assert repeats.new({"loss": 0.5}, 2) == {}


def test_a_checkpoint_holds_the_number_of_rows() -> None:
    record = Record(rows=[{"step": "1"}, {"step": "2"}])
    record.num_rows += 1
    checkpoint: dict[str, Any] = {}
    nothing: Any = SimpleNamespace()
    RecordedRows(record).on_save_checkpoint(nothing, nothing, checkpoint)
    assert checkpoint == {ROWS: 3}
