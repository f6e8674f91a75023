"""Records -> text: JSON lines, CSV, a table, and the formats that a pipeline adds."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len

from arclight.errors import InputError
from arclight.inference.pipeline import InputPipeline, Record

FORMATS = ("jsonl", "csv", "table", "conll", "html")
ROWS_ALIGNED = 200  # of a table, so that memory stays bounded


def render(records: Iterable[Record], name: str, pipeline: InputPipeline) -> Iterator[str]:
    """Yields the text of records in a format, piece by piece.

    Raises:
        InputError: when the pipeline does not have this format.
    """
    own = pipeline.formats.get(name)
    if own is None and name not in ("jsonl", "csv", "table"):
        known = ", ".join(["jsonl", "csv", "table", *pipeline.formats])
        raise InputError(f"--format {name} is not for {pipeline.kind}; choose one of {known}")
    rows = (row for record in records for row in pipeline.table_rows(record))
    if own is not None:
        return itertools.chain([own.header], map(own.render, records), [own.footer])
    if name == "jsonl":
        return (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return csv_lines(rows) if name == "csv" else table_lines(rows)


def csv_lines(rows: Iterable[Record]) -> Iterator[str]:
    """Yields a header and the rows; lists are written as JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow(row.values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def table_lines(rows: Iterable[Record]) -> Iterator[str]:
    """Yields a header and the rows in columns, which are aligned within `ROWS_ALIGNED` rows."""
    rows = iter(rows)
    is_first = True
    while chunk := list(itertools.islice(rows, ROWS_ALIGNED)):
        lines = [*([list(chunk[0])] if is_first else []), *(list(map(cell, row.values())) for row in chunk)]
        is_first = False
        yield "".join(aligned(lines))


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the cells of each line, padded to the width of their column; East Asian letters take two columns."""
    widths = [max(map(cell_len, column)) for column in itertools.zip_longest(*lines, fillvalue="")]
    for line in lines:
        padded = (text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=False))
        yield "  ".join(padded).rstrip() + "\n"


def cell(value: object) -> str:
    """Returns a value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | Mapping) else str(value).replace("\n", " ")
