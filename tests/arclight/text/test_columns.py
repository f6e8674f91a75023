from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.errors import InputError
from arclight.text.columns import read_columns
from arclight.text.sentences import Sentence, count_entities
from arclight.text.tag_schemes import in_iob2, standard_names, to_iob2

FIRST = "EU I-ORG\nrejects O\n\nPeter I-PER\n\n"
SECOND = "Bonn I-LOC\n\n"
MARK = "-DOCSTART- O\n\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "some.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def words_and_documents(sentences: list[Sentence]) -> list[tuple[tuple[str, ...], int]]:
    return [(sentence.words, sentence.document) for sentence in sentences]


def test_words_tags_and_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, FIRST + SECOND)
    first, second, third = read_columns(path)
    assert first == Sentence(("EU", "rejects"), ("I-ORG", "O"), 0, str(path), 1)
    assert second == Sentence(("Peter",), ("I-PER",), 0, str(path), 4)
    assert (third.words, third.line) == (("Bonn",), 6)
    assert first.place(1) == f"{path}:2"


@pytest.mark.parametrize(
    "content",
    [
        MARK + FIRST + MARK + SECOND,  # as published: the mark begins a document
        FIRST + MARK + SECOND + MARK,  # as in other copies: it ends one
        FIRST + MARK + SECOND + MARK.rstrip(),
        MARK + MARK + FIRST + MARK + MARK + SECOND,  # documents of nothing
        FIRST.rstrip() + "\n" + MARK + SECOND.rstrip(),  # no blank line before the mark
    ],
)
def test_documents_are_the_same_wherever_the_marks_stand(tmp_path: Path, content: str) -> None:
    assert words_and_documents(read_columns(write(tmp_path, content))) == [
        (("EU", "rejects"), 0),
        (("Peter",), 0),
        (("Bonn",), 1),
    ]


def test_a_mark_is_no_sentence_in_any_column_or_alone(tmp_path: Path) -> None:
    content = "-DOCSTART-\n\n1,EU,B-ORG\n\n0,-DOCSTART-,O\n\n1,Bonn,B-LOC\n"
    sentences = read_columns(write(tmp_path, content), separator=",", word_column=1)
    assert words_and_documents(sentences) == [(("EU",), 0), (("Bonn",), 1)]


def test_line_ends_byte_order_mark_and_blank_lines_of_white_space_change_nothing(tmp_path: Path) -> None:
    plain = read_columns(write(tmp_path, FIRST + SECOND))
    assert read_columns(write(tmp_path, (FIRST + SECOND).replace("\n", "\r\n"))) == plain
    assert read_columns(write(tmp_path, b"\xef\xbb\xbf" + (FIRST + SECOND).encode())) == plain
    assert read_columns(write(tmp_path, (FIRST + SECOND).replace("\n\n", "\n \t \n"))) == plain
    assert read_columns(write(tmp_path, (FIRST + SECOND).rstrip())) == plain
    assert read_columns(write(tmp_path, (FIRST + SECOND).replace(" ", " \t  "))) == plain


def test_unusual_white_space_is_part_of_a_word(tmp_path: Path) -> None:
    (sentence,) = read_columns(write(tmp_path, "10\u00a0000 O\na\u2028b O\n\u3000 O\n"))
    assert sentence.words == ("10\u00a0000", "a\u2028b", "\u3000")


def test_columns_are_counted_from_either_end(tmp_path: Path) -> None:
    path = write(tmp_path, "7\tB-LOC\tNew York\tNNP\n8\tO\t,\t,\n")
    (sentence,) = read_columns(path, separator="\t", word_column=-2, tag_column=1)
    assert (sentence.words, sentence.tags) == (("New York", ","), ("B-LOC", "O"))


def test_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, "Zürich B-LOC\n".encode("latin-1"))
    assert read_columns(path, encoding="latin-1")[0].words == ("Zürich",)
    path = write(tmp_path, "Zürich B-LOC\n".encode("utf-16"))
    assert read_columns(path, encoding="utf-16")[0].words == ("Zürich",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("EU O\nrejects\n", r"some\.txt:2: has 1 column, needs column 0 \(word\) and column -1 \(tag\): 'rejects'"),
        ("", r"some\.txt: holds no sentence"),
        ("\n \n-DOCSTART- O\n\n", r"some\.txt: holds no sentence"),
        ("EU O\n" + "x" * 10_001 + " O\n", r"some\.txt:2: has 10,003 characters, more than 10,000"),
        ("EU O\nZürich O\n".encode("latin-1"), r"some\.txt:2: byte 0xfc is not utf-8; save the file as utf-8, or set data"),
    ],
)
def test_what_is_wrong_in_a_file_is_reported_with_its_place(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_columns(write(tmp_path, content))


@pytest.mark.parametrize(("word_column", "tag_column"), [(3, -1), (0, 3), (-4, 0), (2, -1)])
def test_columns_that_are_not_there_or_are_one_and_the_same(tmp_path: Path, word_column: int, tag_column: int) -> None:
    path = write(tmp_path, "EU NNP O\n")
    with pytest.raises(InputError, match=rf"3 columns, needs column {word_column} \(word\) and column {tag_column} \(tag\)"):
        read_columns(path, word_column=word_column, tag_column=tag_column)


def test_an_empty_word_a_missing_file_and_an_unknown_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "EU,O\n,O\n")
    with pytest.raises(InputError, match=r"some\.txt:2: the word in column 0 is empty: '  *O'"):
        read_columns(path, separator=",")
    with pytest.raises(InputError, match=r"other\.txt: no such file"):
        read_columns(tmp_path / "other.txt")
    for encoding in ("latin-99", "undefined", "hex", "rot13", "a\0b"):
        with pytest.raises(InputError, match=rf"encoding={encoding} is unknown; common ones are utf-8 and latin-1"):
            read_columns(path, encoding=encoding)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-PER I-PER O I-PER", "B-PER I-PER O B-PER"),
        ("I-PER B-PER I-PER", "B-PER B-PER I-PER"),  # IOB1 writes B- between neighbours of one type
        ("I-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("B-PER I-PER B-PER O B-LOC", "B-PER I-PER B-PER O B-LOC"),  # IOB2 stays
        ("O I-PER B-LOC I-PER", "O B-PER B-LOC B-PER"),
        ("S-PER S-PER B-LOC I-LOC E-LOC B-LOC E-LOC O", "B-PER B-PER B-LOC I-LOC I-LOC B-LOC I-LOC O"),
        ("U-PER U-PER B-LOC I-LOC L-LOC B-LOC L-LOC O", "B-PER B-PER B-LOC I-LOC I-LOC B-LOC I-LOC O"),
        ("I-geo-loc I-geo-loc I-geo", "B-geo-loc I-geo-loc B-geo"),
        ("O O", "O O"),
    ],
)
def test_all_schemes_become_iob2(tags: str, expected: str) -> None:
    assert to_iob2(tags.split()) == tuple(expected.split())


def render(spans: list[tuple[int, int, str]], length: int, scheme: str) -> list[str]:
    """Tags of these (first word, end, type) in a scheme, written from its definition."""
    tags = ["O"] * length
    for number, (first, end, kind) in enumerate(spans):
        follows_same = number > 0 and spans[number - 1][1:] == (first, kind)
        inside = {"iob1": "I", "iob2": "I", "iobes": "I", "bilou": "I"}[scheme]
        opening = {"iob1": "B" if follows_same else "I", "iob2": "B", "iobes": "B", "bilou": "B"}[scheme]
        letters = [opening, *inside * (end - first - 1)]
        if scheme in ("iobes", "bilou"):
            letters[-1] = ("ES" if scheme == "iobes" else "LU")[end - first == 1]
        tags[first:end] = [f"{letter}-{kind}" for letter in letters]
    return tags


def test_random_spans_come_out_alike_from_every_scheme() -> None:
    stream = random.Random(0)
    for _ in range(300):
        spans, position = [], 0
        while (position := position + stream.choice((0, 0, 1, 2))) < 12:
            end = position + stream.randint(1, 3)
            spans.append((position, end, stream.choice(("PER", "LOC"))))
            position = end
        expected = tuple(render(spans, 16, "iob2"))
        for scheme in ("iob1", "iob2", "iobes", "bilou"):
            tags = to_iob2(render(spans, 16, scheme))
            assert tags == expected
            assert count_entities([Sentence(("word",) * 16, tags)]) == len(spans)


@pytest.mark.parametrize("tag", ["PER", "B-", "X-PER", "b-per", "", "B_PER", "BI-PER", "-PER"])
def test_a_tag_of_another_form_is_reported_with_its_place(tmp_path: Path, tag: str) -> None:
    with pytest.raises(InputError, match=rf"tag 2: invalid tag '{tag}'; expected O, or one of B, I, E, S, L, U"):
        to_iob2(["O", tag])
    if tag:
        path = write(tmp_path, f"EU B-ORG\n\nmet O\nAda {tag}\n")
        with pytest.raises(InputError, match=rf"some\.txt:4: invalid tag '{tag}'"):
            in_iob2(read_columns(path))


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("Old Town\tB-LOC\nis\tO\n", {}, [("Old Town", "is")]),  # all lines have tabs
        ('",",O\nBonn,B-LOC\n', {"separator": ","}, [(",", "Bonn")]),  # as CSV writers quote a comma
        ('",O\nBonn,B-LOC\n', {"separator": ","}, [('"', "Bonn")]),  # a quote that nobody quoted
        ('""""' + ";O\nBonn;B-LOC\n", {"separator": ";"}, [('"', "Bonn")]),
        ("word,tag\nBonn,B-LOC\n", {"separator": ","}, [("Bonn",)]),  # a header
        ("Token Label\nBonn B-LOC\n", {}, [("Bonn",)]),
        ("Bonn,B-LOC,\nis,O,\n", {"separator": ","}, [("Bonn", "is")]),  # separators at the end
        ("# text = vitamin O\nvitamin B-X\n# O\n", {"comment": "#"}, [("vitamin", "#")]),
        (
            "# id\n1\tzum\tO\n2-3\tim\t_\n2\tin\tO\n2.1\t_\t_\n",
            {"comment": "#", "word_column": 1, "id_column": 0},
            [("zum", "in")],
        ),
        (
            "Sentence #,Word,POS,Tag\nSentence: 1,Bonn,NNP,B-geo\n,is,VB,O\nSentence: 2,So,RB,O\n",
            {"separator": ",", "word_column": 1, "sentence_column": 0},
            [("Bonn", "is"), ("So",)],
        ),
        ("1 Bonn B-X\n1 is O\n2 So O\n", {"word_column": 1, "sentence_column": 0}, [("Bonn", "is"), ("So",)]),
        ("Bonn B-LOC\ris O\r\rSo O\r", {}, [("Bonn", "is"), ("So",)]),  # lines of old Macs
        (
            '{"tokens": ["Bonn", "is"], "ner_tags": ["B-LOC", "O"]}\n{"words": ["So"], "labels": ["O"]}\n',
            {},
            [("Bonn", "is"), ("So",)],
        ),
    ],
)
def test_files_of_other_forms(tmp_path: Path, content: str, settings: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    assert [sentence.words for sentence in read_columns(write(tmp_path, content), **settings)] == expected


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            "Bonn B-LOC\nNew York B-LOC\n",
            {},
            r"differ in their number of columns: 2 in most, 3 in line 2: 'New York B-LOC'; set",
        ),
        ("a,O\nb,c,O\n", {"separator": ","}, r"2 in most, 3 in line 2: 'b c O'; quote words that hold the separator"),
        ("# text = a O\na O\nb O\n", {}, r"if lines that begin with # are comments, set \"data\.comment='#'\""),
        ("a,O\nb,O\n", {}, r"has 1 column, .*; if , separates the columns, set \"data\.separator=','\""),
        (
            "a O\n" * 301,
            {},
            r"holds one sentence of 301 words\. Are the blank lines between sentences missing\?.*sentence_",
        ),
        (
            '{"tokens": ["a"], "ner_tags": [3]}\n',
            {},
            r"some\.txt:1: is no JSON line such as .*write the names of tags, not",
        ),
        ('{"tokens": ["a", "b"], "ner_tags": ["O"]}\n', {}, r"it has 2 words and 1 tags"),
        ('{"tokens": ["a"]\n', {}, r"some\.txt:1: is no JSON line"),
        ('{"tokens": ["a"]}\n', {}, r"it has no list under ner_tags or tags or labels"),
        ("Zürich O\n".encode("utf-16"), {}, r"byte 0xff is not utf-8; .* such as data\.encoding=utf-16"),
    ],
)
def test_files_that_cannot_be_read_say_what_to_set(
    tmp_path: Path, content: str | bytes, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_columns(write(tmp_path, content), **settings)


PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r \t")
WORD = st.text(PLAIN, min_size=1, max_size=12).filter(
    lambda word: not word.isspace() and not word.startswith(("-DOC", "\ufeff"))
)
TYPE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r \t,|;"), min_size=1, max_size=6).filter(
    lambda kind: standard_names({f"B-{kind}": 1}) == ({f"B-{kind}": f"B-{kind}"}, []) and "-DOC" not in kind
)
ENTITIES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), TYPE), max_size=4)  # gap, words, type


def iob2(entities: list[tuple[int, int, str]]) -> list[str]:
    tags = []
    for gap, size, kind in entities:
        tags += ["O"] * gap + [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
    return [*tags, "O"]


@given(
    st.lists(st.tuples(ENTITIES, st.integers(0, 1), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([None, " ", "\t", ",", ", ", "|", "\t;"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.data(),
)
def test_whatever_is_written_is_read_again(
    sentences: list[tuple[list[tuple[int, int, str]], int, bool]],
    separator: str | None,
    tag_first: bool,
    end: str,
    encoding: str,
    data: st.DataObject,
) -> None:
    barred = set(separator or "").union(" ") - {" "}
    words_of = st.lists(WORD.filter(lambda word: not barred & set(word)), min_size=1, max_size=30)
    lines, expected, document = [], [], 0
    for entities, blank, marked in sentences:
        tags = iob2(entities)
        pool = data.draw(words_of)
        words = [pool[place % len(pool)] for place in range(len(tags))]
        if marked:
            lines += ["-DOCSTART- -X-", ""]
            document += bool(expected)
        for word, tag in zip(words, tags, strict=True):
            lines.append((separator or " \t ").join([tag, word] if tag_first else [word, tag]))
        lines += [""] * (1 + blank)
        expected.append((tuple(words), tuple(tags), document))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes(end.join(lines).encode(encoding))
        columns = (1, 0) if tag_first else (0, -1)
        found = read_columns(path, separator=separator, word_column=columns[0], tag_column=columns[1], encoding=encoding)
        assert [sentence[:3] for sentence in in_iob2(found)] == expected
        text = path.read_bytes().decode(encoding).split("\n")
        for sentence in found:
            for number, word in enumerate(sentence.words):
                assert word in text[int(sentence.place(number).rpartition(":")[2]) - 1]


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "L-b", "U-b"]), max_size=12))
def test_iob2_stays_as_it_is(tags: list[str]) -> None:
    once = to_iob2(tags)
    assert to_iob2(once) == once
    assert [tag == "O" for tag in once] == [tag == "O" for tag in tags]


@given(st.binary(max_size=300), st.sampled_from([None, ",", " "]))
def test_any_bytes_are_read_or_reported(content: bytes, separator: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), content)
        with contextlib.suppress(InputError):
            assert all(len(sentence.words) == len(sentence.tags) > 0 for sentence in read_columns(path, separator=separator))
