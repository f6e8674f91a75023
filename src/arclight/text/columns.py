"""Column files: one word and its tag per line, a blank line after each sentence; and JSON lines of the same content."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arclight.errors import InputError
from arclight.text.sentences import Sentence, visible

MAX_LINE = 10_000  # characters; with a longer line it is another kind of file
MAX_JSON_LINE = 1_000_000
MAX_ONLY_SENTENCE = 300  # words of a file's only sentence
DOCUMENT_MARK = "-DOCSTART-"
WORD_NAMES = {"word", "words", "token", "tokens", "text", "form"}  # of a header, in lower case
TAG_NAMES = {"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "entity", "iob"}
JSON_LINE = re.compile(r'\{\s*"\w+"\s*:')
RANGE = re.compile(r"\d+[-.]\d+")  # the id of a CoNLL-U line that is no word: 3-4 is a range, 3.1 an empty node


class Row(NamedTuple):
    """A line that is not blank."""

    number: int  # counted from 1
    fields: list[str]
    place: str


def read_columns(
    path: Path,
    *,
    separator: str | None = None,
    word_column: int = 0,
    tag_column: int = -1,
    encoding: str = "utf-8",
    comment: str | None = None,
    sentence_column: int | None = None,
    id_column: int | None = None,
) -> list[Sentence]:
    """Returns the sentences of a column file, or of JSON lines, with their tags unchanged.

    A line that begins with -DOCSTART- (or has it in a column) ends the sentence and the document. Byte order mark, CRLF, a
    header such as `word,tag` and separators at the end of all lines are removed. JSON lines, as transformers' run_ner.py takes
    them, have the keys `tokens` (or `words`) and `ner_tags` (or `tags`, `labels`); the other arguments then do not count.

    Args:
        path: the file.
        separator: between columns, spaces around it stripped; quotes count as in CSV. None is a tab where all lines have one,
            else any run of spaces and tabs. Other white space, such as a no-break space, is part of a word.
        word_column: counted from 0, or from the end with -1 and below.
        tag_column: the same.
        encoding: as Python names it.
        comment: how a line begins that is a comment; inside a sentence, one with as many columns as the others is a word.
        sentence_column: column of a sentence's number or name, where blank lines do not separate sentences: a sentence begins
            where it is not empty and not the one above.
        id_column: column of a word's number; lines with a range such as 3-4, or 3.1, are left out.

    Raises:
        InputError: when the file is missing, is not text in this encoding, has a line without one of the columns, with an empty
            word or of more than 10,000 characters, has lines that differ in their number of columns while a column is counted
            from the end, or holds no sentence, or only one of more than 300 words.
    """
    text = _text(path, encoding)
    if JSON_LINE.match(text.lstrip()[:200]):
        return list(_json_sentences(text, path))
    rows = _rows(text.split("\n"), separator, comment, path)  # splitlines would also cut at U+2028 and the like
    columns = {"word": word_column, "tag": tag_column}
    first = next((row for row in rows if row.fields), None)
    if first and _is_header(first.fields, word_column, tag_column):
        rows[first.number - 1] = first._replace(fields=[])
    if id_column is not None:
        rows = [row for row in rows if not RANGE.fullmatch(_at(row.fields, id_column))]
    sentences = list(_sentences(rows, columns, sentence_column, path))
    if not sentences:
        raise InputError(
            f"{path}: holds no sentence; expected one word and its tag per line, and a blank line after each sentence"
        )
    if min(columns.values()) < 0:
        _check_widths([row for row in rows if row.fields and not _opens_document(row.fields)], separator, path)
    if len(sentences) == 1 and (num_words := len(sentences[0].words)) > MAX_ONLY_SENTENCE:
        raise InputError(
            f"{path}: holds one sentence of {num_words:,} words. Are the blank lines between sentences missing? If a column "
            "numbers the sentences, set data.sentence_column"
        )
    return sentences


def _sentences(rows: Sequence[Row], columns: dict[str, int], sentence_column: int | None, path: Path) -> Iterator[Sentence]:
    words: list[tuple[str, str, int]] = []
    document, num_sentences, name = 0, 0, ""
    for row in [*rows, Row(0, [], "")]:
        fields = row.fields
        opens_document = _opens_document(fields)
        found = "" if sentence_column is None or not fields else _at(fields, sentence_column)
        is_other = bool(found) and found != name
        name = found or name
        if words and (not fields or opens_document or is_other):
            yield _sentence(words, document, path)
            words, num_sentences = [], num_sentences + 1
        if fields and not opens_document:
            words.append((*_word_and_tag(row, columns["word"], columns["tag"]), row.number))
        if opens_document and num_sentences:
            document, num_sentences = document + 1, 0


def _opens_document(fields: Sequence[str]) -> bool:
    return bool(fields) and (fields[0].startswith(DOCUMENT_MARK) or DOCUMENT_MARK in fields)


def _sentence(words: Sequence[tuple[str, str, int]], document: int, path: Path) -> Sentence:
    numbers = [number for _, _, number in words]
    gaps = tuple((at, now - before - 1) for at, (before, now) in enumerate(itertools.pairwise(numbers), 1) if now - before > 1)
    return Sentence(
        tuple(word for word, _, _ in words), tuple(tag for _, tag, _ in words), document, str(path), numbers[0], gaps
    )


def _text(path: Path, encoding: str) -> str:
    """Returns the file as text whose lines end with a line feed."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        looks_like = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise InputError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not {encoding}; save the file as utf-8, or set data.encoding, "
            f"such as data.encoding={looks_like}",
            key="data.encoding",
        ) from None
    except (LookupError, ValueError):  # the latter from codecs that are not of text
        raise InputError(
            f"data.encoding={encoding} is unknown; common ones are utf-8 and latin-1", key="data.encoding"
        ) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _rows(lines: Sequence[str], separator: str | None, comment: str | None, path: Path) -> list[Row]:
    """Returns all lines; one without fields is blank or left out."""
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise InputError(f"{path}:{number}: has {len(line):,} characters, more than {MAX_LINE:,}: it is not a column file")
    comments = [bool(comment) and line.startswith(str(comment)) for line in lines]
    kept = [line for line, is_comment in zip(lines, comments, strict=True) if _is_word(line) and not is_comment]
    if separator is None and kept and all("\t" in line for line in kept):
        separator = "\t"
    width = Counter(len(_plain_fields(line, separator)) for line in kept if '"' not in line).most_common(1)
    fields = [_fields(line, separator, width[0][0] if width else 0) for line in lines]
    fields = [one if any(one) else [] for one in fields]
    if separator and all(len(one) > 1 and not one[-1] for one in fields if one):
        fields = [one[:-1] for one in fields]
    rows, is_inside = [], False
    for number, (one, is_comment) in enumerate(zip(fields, comments, strict=True), 1):
        if is_comment and not (is_inside and width and len(one) == width[0][0]):
            continue
        is_inside = bool(one)
        rows.append(Row(number, one, f"{path}:{number}"))
    return rows


def _is_word(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(DOCUMENT_MARK)


def _plain_fields(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return [field for field in line.replace("\t", " ").split(" ") if field]
    return [field.strip(" \t") for field in line.split(separator)]


def _fields(line: str, separator: str | None, width: int) -> list[str]:
    """Returns the stripped columns of a line; none for a blank line. Quotes are those of CSV where that fits the `width`."""
    if not line or line.isspace():
        return []
    plain = _plain_fields(line, separator)
    if separator and len(separator) == 1 and separator != "\t" and '"' in line:
        try:
            quoted = [field.strip(" \t") for field in next(csv.reader([line], delimiter=separator))]
        except csv.Error:
            return plain
        return quoted if len(quoted) == width or (len(plain) != width and len(quoted) > 1) else plain
    return plain


def _is_header(fields: Sequence[str], word_column: int, tag_column: int) -> bool:
    return _at(fields, word_column).lower() in WORD_NAMES and _at(fields, tag_column).lower() in TAG_NAMES


def _at(fields: Sequence[str], column: int) -> str:
    """Returns the text in a column; empty where there is none."""
    return fields[column] if -len(fields) <= column < len(fields) else ""


def _check_widths(rows: Sequence[Row], separator: str | None, path: Path) -> None:
    """Raises InputError when the rows differ in their number of columns."""
    counts = Counter(len(row.fields) for row in rows)
    (usual, _), *others = counts.most_common()
    if others:
        odd = [row for row in rows if len(row.fields) != usual]
        shown = ", ".join(f"{len(row.fields)} in line {row.number}" for row in odd[:3])
        more = f" and {len(odd) - 3} more lines" if len(odd) > 3 else ""
        separators = "set data.separator if words hold spaces" if separator is None else "quote words that hold the separator"
        raise InputError(
            f"{path}: lines differ in their number of columns: {usual} in most, {shown}{more}: "
            f"'{visible(' '.join(odd[0].fields)[:60])}'; {_hint(odd[0].fields) or separators}"
        )


def _hint(fields: Sequence[str]) -> str:
    """Returns what to set when a line looks like a comment, or like one with another separator."""
    if fields[0].startswith("#"):
        return "if lines that begin with # are comments, set \"data.comment='#'\""
    found = next((mark for mark in ",;|" if len(fields) == 1 and mark in fields[0]), "")
    return f"if {found} separates the columns, set \"data.separator='{found}'\"" if found else ""


def _word_and_tag(row: Row, word_column: int, tag_column: int) -> tuple[str, str]:
    """Returns the word and the tag of a line."""
    fields, num_columns = row.fields, len(row.fields)
    at_word, at_tag = (column + num_columns if column < 0 else column for column in (word_column, tag_column))
    shown = f"'{visible(' '.join(fields)[:60])}'"
    if not (0 <= at_word < num_columns and 0 <= at_tag < num_columns and at_word != at_tag):
        has = "1 column" if num_columns == 1 else f"{num_columns} columns"
        hint = f"; {found}" if (found := _hint(fields)) else ""
        raise InputError(
            f"{row.place}: has {has}, needs column {word_column} (word) and column {tag_column} (tag): {shown}{hint}"
        )
    if not fields[at_word]:
        raise InputError(f"{row.place}: the word in column {word_column} is empty: {shown}")
    return fields[at_word], fields[at_tag]


def _json_sentences(text: str, path: Path) -> Iterator[Sentence]:
    """Yields the sentences of JSON lines."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            if len(line) > MAX_JSON_LINE:
                raise ValueError(f"it has {len(line):,} characters, more than {MAX_JSON_LINE:,}")
            found = json.loads(line)
            words, tags = (_list_of(found, names) for names in (("tokens", "words"), ("ner_tags", "tags", "labels")))
            if len(words) != len(tags) or not words:
                raise ValueError(f"it has {len(words)} words and {len(tags)} tags")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f'{place}: is no JSON line such as {{"tokens": ["Bonn"], "ner_tags": ["B-LOC"]}}: {error}'
            ) from None
        yield Sentence(words, tags, 0, str(path), number, tuple((word, -1) for word in range(1, len(words))))


def _list_of(found: Any, names: Sequence[str]) -> tuple[str, ...]:
    values = next((found[name] for name in names if isinstance(found, dict) and name in found), None)
    if not isinstance(values, list):
        raise ValueError(f"it has no list under {' or '.join(names)}")
    if not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"{names[0]} must be texts; write the names of tags, not their numbers")
    return tuple(values)
