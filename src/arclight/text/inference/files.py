"""Lines of a file of raw text, JSON lines or columns; what the file holds is seen from its first lines."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from arclight.inference.pipeline import BadItem
from arclight.text.columns import DOCUMENT_MARK, JSON_LINE, TAG_NAMES

MAX_LINE = 4_000_000  # bytes
NUL = "NUL bytes: this is not text, or text in UTF-16; save it as UTF-8"
SEPARATORS = ("\t", " ", ",", ";")


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, str | BadItem]]:
    """Yields the lines of a file in UTF-8, counted from 1; a BadItem for one too long, and for the first not in UTF-8."""
    for number in itertools.count(1):
        if not (chunk := file.readline(MAX_LINE)):
            return
        is_cut = len(chunk) == MAX_LINE and not chunk.endswith(b"\n")
        while is_cut and (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
            pass
        if is_cut:
            yield number, BadItem("", f"a line of more than {MAX_LINE:,} bytes; break it")
            continue
        try:
            if b"\0" in chunk:
                raise ValueError(NUL)
            line = chunk.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except ValueError as error:
            problem = str(error)
            if isinstance(error, UnicodeDecodeError):
                problem = f"byte 0x{chunk[error.start]:02x} is not UTF-8; save the file as UTF-8"
            yield number, BadItem("", f"{problem} (the rest of the file is skipped)")
            return
        yield number, line


def separator_of(lines: Sequence[str]) -> str | None:
    """Returns what separates the columns of a file with tags in the last one, by its first lines; None for other files."""
    rows = [line for line in lines if line.strip() and DOCUMENT_MARK not in line]
    if is_header(rows):
        rows = rows[1:]
    for separator in SEPARATORS:
        last = [columns[-1] if len(columns := fields(line, separator)) > 1 else "" for line in rows]
        if last and all(tag == "O" or tag[1:2] == "-" for tag in last):
            return separator
    return " " if any(line.startswith(DOCUMENT_MARK) for line in lines) else None


def is_header(rows: Sequence[str]) -> bool:
    """Returns whether the first row names columns, such as word,tag."""
    return bool(rows) and any(fields(rows[0], separator)[-1].lower() in TAG_NAMES for separator in SEPARATORS)


def fields(line: str, separator: str) -> list[str]:
    """Returns the columns of a line; " " is any run of spaces and tabs, and commas and semicolons have the quotes of CSV."""
    if separator == " ":
        return [field for field in line.replace("\t", " ").split(" ") if field] or [""]
    parts = line.split(separator) if separator == "\t" else next(csv.reader([line], delimiter=separator), [""])
    return [part.strip(" \t") for part in parts]


def is_json(lines: Sequence[str]) -> bool:
    """Returns whether the first line that is not empty is a JSON object."""
    return JSON_LINE.match(next((line for line in lines if line.strip()), "")) is not None


def read_json(line: str) -> str | list[str]:
    """Returns the text of a JSON line, or its words; raises ValueError for any other line."""
    found = json.loads(line)
    for name in ("tokens", "words", "text"):
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, str if name == "text" else list):
            return value
    raise ValueError('it has neither "text" nor "tokens"')
