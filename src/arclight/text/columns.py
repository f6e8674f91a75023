"""Column files: one word and its tag per line, a blank line after each sentence; tags are converted to IOB2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from arclight.errors import InputError

MAX_LINE = 10_000  # characters; with a longer line it is another kind of file
DOCUMENT_MARK = "-DOCSTART-"


class Sentence(NamedTuple):
    """Words and their tags, equally many, at least one."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int = 0
    file: str = ""
    line: int = 1  # of the first word; the others follow it without a gap

    def place(self, word: int) -> str:
        """Returns the place of this word as file:line."""
        return f"{self.file}:{self.line + word}"


def read_columns(
    path: Path, *, separator: str | None = None, word_column: int = 0, tag_column: int = -1, encoding: str = "utf-8"
) -> list[Sentence]:
    """Returns the sentences of a column file with their tags unchanged.

    A line that begins with -DOCSTART- (or has it in a column) ends the sentence and the document. Byte order mark and CRLF are
    removed.

    Args:
        path: the file.
        separator: between columns, spaces around it stripped; None is any run of spaces and tabs. Other white space, such as a
            no-break space, is part of a word.
        word_column: counted from 0, or from the end with -1 and below.
        tag_column: the same.
        encoding: as Python names it.

    Raises:
        InputError: when the file is missing, is not text in this encoding, has a line without one of the columns, with an empty
            word or of more than 10,000 characters, or holds no sentence.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    document = 0
    lines = _text(path, encoding).split("\n")  # splitlines would also cut at U+2028 and the like
    for number, line in enumerate([*lines, ""], start=1):
        fields = _fields(line, separator, f"{path}:{number}")
        opens_document = bool(fields) and (fields[0].startswith(DOCUMENT_MARK) or DOCUMENT_MARK in fields)
        if fields and not opens_document:
            word, tag = _word_and_tag(fields, word_column, tag_column, f"{path}:{number}")
            words.append(word)
            tags.append(tag)
            continue
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), document, str(path), number - len(words)))
            words, tags = [], []
        if opens_document and sentences:
            document = sentences[-1].document + 1
    if not sentences:
        raise InputError(
            f"{path}: holds no sentence; expected one word and its tag per line, and a blank line after each sentence"
        )
    return sentences


def to_iob2(tags: Sequence[str], *, place: Callable[[int], str] | None = None) -> tuple[str, ...]:
    """Returns the tags of one sentence in IOB2: B-X on each entity's first word, I-X on its others, O elsewhere.

    The tags may be IOB1, IOB2, IOBES or BILOU. I-X begins an entity after O or another type, and continues one otherwise; B-X
    always begins one. S-X and U-X are entities of one word, E-X and L-X end theirs.

    Args:
        tags: of one sentence, in order.
        place: returns the place of a tag, such as file:line, for the message.

    Raises:
        InputError: when a tag is neither O nor one of B, I, E, S, L, U followed by - and a type.
    """
    result = []
    inside = ""  # the type of the entity that the next word may belong to
    for number, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if tag == "O":
            inside = ""
        elif kind and prefix in ("B", "I", "E", "S", "L", "U"):
            begins = prefix in "BSU" or kind != inside
            inside = "" if prefix in "ESLU" else kind
            tag = f"B-{kind}" if begins else f"I-{kind}"
        else:
            raise InputError(
                f"{place(number) if place else f'tag {number + 1}'}: invalid tag '{tag[:40]}'; expected O, or one of B, I, E, "
                f"S, L, U followed by - and a type, such as B-PER"
            )
        result.append(tag)
    return tuple(result)


def in_iob2(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Returns the sentences with their tags in IOB2; raises as `to_iob2`, with file and line."""
    return [sentence._replace(tags=to_iob2(sentence.tags, place=sentence.place)) for sentence in sentences]


def count_entities(sentences: Iterable[Sentence]) -> int:
    """Returns the number of entities in sentences with IOB2 tags."""
    return sum(tag[:2] == "B-" for sentence in sentences for tag in sentence.tags)


def find_labels(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """Returns O, then B-X and I-X for every entity type X in these sentences; raises InputError when there is none."""
    kinds = {tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"}
    if not kinds:
        raise InputError(f"{sentences[0].file}: holds no entity, every tag is O; is data.tag_column right?")
    return ("O", *sorted(f"{prefix}-{kind}" for prefix in "BI" for kind in kinds))


def check_labels(sentences: Iterable[Sentence], labels: Sequence[str]) -> None:
    """Raises InputError with the place of the first tag that is not among the labels of training."""
    for sentence in sentences:
        for word, tag in enumerate(sentence.tags):
            if tag not in labels:
                known = ", ".join(labels)
                raise InputError(f"{sentence.place(word)}: label '{tag}' does not occur in training, which has {known}")


def _text(path: Path, encoding: str) -> str:
    """Returns the file as text whose lines end with a line feed."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not {encoding}; save the file as utf-8 or set data.encoding"
        ) from None
    except (LookupError, ValueError):  # the latter from codecs that are not of text
        raise InputError(
            f"data.encoding={encoding} is unknown; common ones are utf-8 and latin-1", key="data.encoding"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _fields(line: str, separator: str | None, place: str) -> list[str]:
    """Returns the stripped columns of a line; none for a blank line."""
    if len(line) > MAX_LINE:
        raise InputError(f"{place}: has {len(line):,} characters, more than {MAX_LINE:,}: it is not a column file")
    if not line or line.isspace():
        return []
    if separator is None:
        return [field for field in line.replace("\t", " ").split(" ") if field]
    fields = [field.strip(" \t") for field in line.split(separator)]
    return fields if any(fields) else []


def _word_and_tag(fields: list[str], word_column: int, tag_column: int, place: str) -> tuple[str, str]:
    """Returns the word and the tag of a line."""
    num_columns = len(fields)
    at_word, at_tag = (column + num_columns if column < 0 else column for column in (word_column, tag_column))
    shown = f"'{' '.join(fields)[:60]}'"
    if not (0 <= at_word < num_columns and 0 <= at_tag < num_columns and at_word != at_tag):
        has = "1 column" if num_columns == 1 else f"{num_columns} columns"
        raise InputError(f"{place}: has {has}, needs column {word_column} (word) and column {tag_column} (tag): {shown}")
    if not fields[at_word]:
        raise InputError(f"{place}: the word in column {word_column} is empty: {shown}")
    return fields[at_word], fields[at_tag]
