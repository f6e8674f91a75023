"""Records are written as JSON lines, CSV and tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lightning.pytorch import LightningModule

from arclight.errors import InputError
from arclight.inference.output import ROWS_ALIGNED, render
from arclight.inference.tensors import TensorPipeline


class Pipeline(TensorPipeline):
    """Rows of two columns."""

    def table_rows(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        return [record]


PIPELINE = Pipeline(LightningModule())


def record(source: str) -> dict[str, Any]:
    return {"source": source, "label": "a", "probability": 0.75, "rest": [1]}


def test_formats() -> None:
    records = [record("x,1.png"), record("日本.png")]
    assert [json.loads(line) for line in render(records, "jsonl", PIPELINE)] == records
    csv = "".join(render(records, "csv", PIPELINE))
    assert csv == 'source,label,probability,rest\n"x,1.png",a,0.75,[1]\n日本.png,a,0.75,[1]\n'
    table = "".join(render(records, "table", PIPELINE)).splitlines()
    assert table[1:] == ["x,1.png   a      0.7500       [1]", "日本.png  a      0.7500       [1]"]
    assert "".join(render([], "table", PIPELINE)) == "".join(render([], "csv", PIPELINE)) == ""


def test_a_long_table_is_written_in_parts() -> None:
    parts = list(render((record(str(number)) for number in range(ROWS_ALIGNED + 1)), "table", PIPELINE))
    assert [part.count("\n") for part in parts] == [ROWS_ALIGNED + 1, 1]


def test_a_format_of_another_kind_of_input() -> None:
    with pytest.raises(InputError, match="--format html is not for tensors; choose one of jsonl, csv, table"):
        render([], "html", PIPELINE)
