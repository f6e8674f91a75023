"""Column files: one word a line with its tag, a blank line after each sentence; their tags brought to IOB2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from arclight.errors import InputError

LONGEST_LINE = 10_000  # characters; a longer line is no word with its tags but a file of another kind
DOCUMENT_MARK = "-DOCSTART-"


class Sentence(NamedTuple):
    """Words and their tags, equally many and at least one; `document` counts from 0."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int = 0
    file: str = ""
    line: int = 1  # of the first word; the others follow it without a gap

    def place(self, word: int) -> str:
        """Where this word stands, as file:line."""
        return f"{self.file}:{self.line + word}"


def read_columns(
    path: Path, *, separator: str | None = None, word_column: int = 0, tag_column: int = -1, encoding: str = "utf-8"
) -> list[Sentence]:
    """The sentences of a column file, with the tags as they stand there.

    A line that begins with -DOCSTART- (or has it in a column) ends sentence and document and is no sentence itself; whether
    such lines open a document, as in the original CoNLL-2003, or close it, the documents are the same. Byte order mark and
    CRLF are left out.

    Args:
        path: the file.
        separator: what stands between columns, spaces around it left out; None is any run of spaces and tabs. Other white
            space, such as a no-break space, is part of a word.
        word_column: counted from 0, or from the end with -1 and below.
        tag_column: the same.
        encoding: any that Python knows.

    Raises:
        InputError: when the file is not there, is not text in this encoding, has a line without one of the columns, with an
            empty word or of more than 10,000 characters, or holds no sentence.
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
            f"{path}: holds no sentence; wanted is one word a line with its tag, and a blank line after each sentence"
        )
    return sentences


def to_iob2(tags: Sequence[str], *, place: Callable[[int], str] | None = None) -> tuple[str, ...]:
    """The tags of one sentence in IOB2: B-X on each entity's first word, I-X on its others, O elsewhere.

    Takes IOB1, IOB2, IOBES and BILOU without being told which. One rule serves the first two: I-X begins an entity where the
    word before it is O or of another type, and goes on with it elsewhere; B-X always begins one. So IOB1, which writes B-X
    only between neighbours of one type, gets its B-X everywhere, and IOB2 comes out as it went in. S-X and U-X are entities of
    one word, E-X and L-X end theirs. Where entities begin and end never changes.

    Args:
        tags: of one sentence, in order.
        place: gives the place of a tag, such as file:line, for the message.

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
                f"{place(number) if place else f'tag {number + 1}'}: '{tag[:40]}' is no tag; wanted is O or a letter of "
                f"B, I, E, S, L, U with - and a type, such as B-PER"
            )
        result.append(tag)
    return tuple(result)


def in_iob2(sentences: Iterable[Sentence]) -> list[Sentence]:
    """The same sentences with their tags in IOB2; raises as `to_iob2` does, with file and line."""
    return [sentence._replace(tags=to_iob2(sentence.tags, place=sentence.place)) for sentence in sentences]


def count_entities(sentences: Iterable[Sentence]) -> int:
    """Entities in sentences whose tags are IOB2."""
    return sum(tag[:2] == "B-" for sentence in sentences for tag in sentence.tags)


def find_labels(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """All IOB2 labels that a tagger of these sentences needs: O first, then B-X and I-X for every type X seen.

    Raises:
        InputError: when there is no entity.
    """
    kinds = {tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"}
    if not kinds:
        raise InputError(f"{sentences[0].file}: holds no entity to learn from, every tag is O; is it the right column?")
    return ("O", *sorted(f"{prefix}-{kind}" for prefix in "BI" for kind in kinds))


def check_labels(sentences: Iterable[Sentence], labels: Sequence[str]) -> None:
    """Passes where every tag is one of these labels, which training knows.

    Raises:
        InputError: with the place of the first tag that is not.
    """
    for sentence in sentences:
        for word, tag in enumerate(sentence.tags):
            if tag not in labels:
                known = ", ".join(labels)
                raise InputError(f"{sentence.place(word)}: label '{tag}' does not occur in training, which has {known}")


def _text(path: Path, encoding: str) -> str:
    """The file as text, its lines parted by a line feed alone."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not {encoding}; save the file as utf-8 or set its encoding"
        ) from None
    except (LookupError, ValueError):  # the latter from codecs that decode no text
        raise InputError(f"encoding={encoding} is not known; utf-8 and latin-1 are the usual ones") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _fields(line: str, separator: str | None, place: str) -> list[str]:
    """The columns of a line, with no space around them; none where the line is blank."""
    if len(line) > LONGEST_LINE:
        raise InputError(f"{place}: has {len(line):,} characters, more than {LONGEST_LINE:,}: this is no file of columns")
    if not line or line.isspace():
        return []
    if separator is None:
        return [field for field in line.replace("\t", " ").split(" ") if field]
    fields = [field.strip(" \t") for field in line.split(separator)]
    return fields if any(fields) else []


def _word_and_tag(fields: list[str], word_column: int, tag_column: int, place: str) -> tuple[str, str]:
    """The two columns that are wanted, told apart from each other."""
    num_columns = len(fields)
    at_word, at_tag = (column + num_columns if column < 0 else column for column in (word_column, tag_column))
    shown = f"'{' '.join(fields)[:60]}'"
    if not (0 <= at_word < num_columns and 0 <= at_tag < num_columns and at_word != at_tag):
        has = "1 column" if num_columns == 1 else f"{num_columns} columns"
        raise InputError(f"{place}: has {has}, column {word_column} (word) and column {tag_column} (tag) wanted: {shown}")
    if not fields[at_word]:
        raise InputError(f"{place}: the word in column {word_column} is empty: {shown}")
    return fields[at_word], fields[at_tag]
