"""The tags of a file in any spelling; `to_iob2` itself: test_columns.py."""

from __future__ import annotations

import logging

import pytest

from arclight.errors import InputError
from arclight.text.sentences import Sentence
from arclight.text.tag_schemes import in_iob2, to_iob2

EXPECTED = "B-PER I-PER O B-LOC"


def read(*lines: str) -> list[str]:
    sentences = [Sentence(("word",) * len(line.split(" ")), tuple(line.split(" ")), 0, "t.txt", 1) for line in lines]
    return [" ".join(one.tags) for one in in_iob2(sentences)]


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ("B-PER I-PER O B-LOC", ""),
        ("B-PER E-PER O S-LOC", ""),
        ("B-PER L-PER O U-LOC", ""),
        ("B-PER M-PER O W-LOC", ""),
        ("I-PER I-PER O I-LOC", ""),
        ("B_PER I_PER O B_LOC", "tags are spelled as in B_PER, and read as in B-PER"),
        ("PER-B PER-I O LOC-B", "tags are spelled as in PER-B, and read as in B-PER"),
        ("PER_B PER_E O LOC_S", "tags are spelled as in PER_B, and read as in B-PER"),
        ("PER PER O LOC", "tags have no prefix (LOC, PER): each run of words of one type is read as one entity"),
        ("B-PER I-PER 0 B-LOC", "the tag 0 is read as O (1 words)"),
        ("B-PER I-PER - B-LOC", "the tag - is read as O (1 words)"),
        ("B-PER I-PER _ B-LOC", "the tag _ is read as O (1 words)"),
        ("B-PER I-PER I-O B-LOC", "the tag I-O is read as O (1 words)"),
        ("B-PER\u00a0 I-PER O\u200b B-LOC", "invisible characters are left out of the tags B-PER\\u00a0, O\\u200b"),
    ],
)
def test_spellings(tags: str, note: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "arclight"):
        assert read(tags) == [EXPECTED]
    assert [record.getMessage() for record in caplog.records] == ([f"t.txt: {note}"] if note else [])


def test_lower_case_keeps_the_case_of_types() -> None:
    assert read("b-per i-per o b-loc") == ["B-per I-per O B-loc"]


def test_names_are_compared_in_one_form_of_unicode() -> None:
    assert read("B-Z\u00fc B-Zu\u0308") == ["B-Z\u00fc B-Z\u00fc"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("B-PER O", "O PER"), "t.txt:2: invalid tag 'PER'; expected O, or one of B, I, E, S, L, U, M, W followed by - and"),
        (("O B-", "O O"), "t.txt:2: invalid tag 'B-'"),
        (("Bonn is", "a city"), "t.txt:1: invalid tag 'Bonn'.*most of this column are no tags: is data.tag_column right"),
        (("PER\u2028X PER", "B-LOC O"), r"invalid tag 'PER\\u2028X'"),
    ],
)
def test_what_fits_no_spelling_is_reported(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(*lines)


def test_many_bare_names_are_words_not_types() -> None:
    with pytest.raises(InputError, match="invalid tag"):
        read(*(f"word{number} O" for number in range(300)))


def test_letters_of_bmes() -> None:
    assert to_iob2(["B-X", "M-X", "E-X", "W-X"]) == ("B-X", "I-X", "I-X", "B-X")
