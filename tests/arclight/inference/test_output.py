"""Records are written as JSON lines, CSV and tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.images.inference import ImagePipeline
from arclight.images.info import ImageInfo
from arclight.inference.output import ROWS_ALIGNED, render

PIPELINE = ImagePipeline(ImageInfo(channels=1, height=2, width=2, classes=("a", "b"), mean=(0.5,), std=(0.5,)))


def record(source: str) -> dict[str, Any]:
    top = [{"label": "a", "probability": 0.75}, {"label": "b", "probability": 0.25}]
    return {"source": source, **top[0], "top": top}


def test_formats() -> None:
    records = [record("x,1.png"), record("日本.png")]
    assert [json.loads(line) for line in render(records, "jsonl", PIPELINE)] == records
    csv = "".join(render(records, "csv", PIPELINE))
    assert csv == 'source,label,probability,label_2,probability_2\n"x,1.png",a,0.75,b,0.25\n日本.png,a,0.75,b,0.25\n'
    table = "".join(render(records, "table", PIPELINE)).splitlines()
    assert table[1:] == ["x,1.png   a      0.7500       b        0.2500", "日本.png  a      0.7500       b        0.2500"]
    assert "".join(render([], "table", PIPELINE)) == "".join(render([], "csv", PIPELINE)) == ""


def test_a_long_table_is_written_in_parts() -> None:
    parts = list(render((record(str(number)) for number in range(ROWS_ALIGNED + 1)), "table", PIPELINE))
    assert [part.count("\n") for part in parts] == [ROWS_ALIGNED + 1, 1]


def test_a_format_of_another_kind_of_input() -> None:
    with pytest.raises(InputError, match="--format html is not for images; choose one of jsonl, csv, table"):
        render([], "html", PIPELINE)
