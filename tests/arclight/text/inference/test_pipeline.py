"""Raw text and column files are read, and what cannot be read is reported once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.inference.pipeline import BadItem, Item
from arclight.text.inference import files
from arclight.text.inference import pipeline as module
from arclight.text.inference.formats import FORMATS
from arclight.text.inference.pipeline import TextPipeline
from arclight.text.info import TokenInfo
from arclight.text.tokenizer import train_wordpiece

COLUMNS = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nis V O\n\nBonn N B-LOC\n"


@pytest.fixture(scope="module")
def pipeline() -> TextPipeline:
    tokenizer = train_wordpiece(["Bonn", "is", "nice", "."], vocab_size=100).to_str()
    return TextPipeline(TokenInfo(labels=("O", "B-LOC", "I-LOC"), tokenizer=tokenizer, vocab_size=100, pad_id=0, max_length=32))


def read(pipeline: TextPipeline, content: Any) -> list[str]:
    """Returns the words of each item, or its problem."""
    found = list(pipeline.read(content, "x"))
    return [str(one) if isinstance(one, BadItem) else " ".join(words_of(one)) for one in found]


def words_of(item: Item) -> list[str]:
    return [word.text for sentence in item.content.sentences for word in sentence]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Bonn is nice.", ["Bonn is nice ."]),
        (["Bonn", "is nice"], ["Bonn is nice"]),
        (b"\xef\xbb\xbfBonn.\r\n\nis nice", ["Bonn .", "is nice"]),
        (COLUMNS.encode(), ["EU is", "Bonn"]),
        (b"a b\tO\nis\tB-X\n", ["a b is"]),
        ("a\u00a0b X O\n".encode(), ["a\u00a0b"]),
        (b'word,tag\n",",O\nBonn,B-LOC\n\nis,O\n', [", Bonn", "is"]),
        (b'{"text": "Bonn."}\n{"tokens": ["is", "nice."]}\n', ["Bonn .", "is nice."]),
        (
            b'{"text": "Bonn."}\n{"a": 1}\n[]\n{',
            [
                "Bonn .",
                'x:2: is no JSON line such as {"text": "..."} or {"tokens": [...]}: it has neither "text" nor "tokens"',
                'x:3: is no JSON line such as {"text": "..."} or {"tokens": [...]}: it has neither "text" nor "tokens"',
                'x:4: is no JSON line such as {"text": "..."} or {"tokens": [...]}: Expecting property name enclosed in double '
                "quotes: line 1 column 2 (char 1)",
            ],
        ),
        ("", ["x: holds no word"]),
        (" \u200b\n", ["x: holds no word"]),
        ([], ["x: holds no word"]),
        (b"", ["x: holds no word"]),
        (b"\n \n", ["x: holds no word"]),
        ("Bonn\0is", ["x: NUL bytes: this is not text, or text in UTF-16; save it as UTF-8"]),
        ("Bonn \ud800", ["x: lone surrogates: this is not valid Unicode"]),
        (["Bonn", " "], ["x: ' ' is not a word"]),
        (3, ["x: int is not a text; give a str, a list of words or a path"]),
        (Path("none.txt"), ["x: no such file; a text itself is read from standard input: -"]),
        (Path(), ["x: not a file"]),
        (b"Bonn\n\xe4\nis", ["Bonn", "x:2: byte 0xe4 is not UTF-8; save the file as UTF-8 (the rest of the file is skipped)"]),
    ],
)
def test_reading(pipeline: TextPipeline, content: Any, expected: list[str]) -> None:
    assert read(pipeline, content) == expected


def test_text_that_is_too_long(pipeline: TextPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHARACTERS", 10)
    monkeypatch.setattr(files, "MAX_LINE", 20)
    assert read(pipeline, "Bonn is nice.") == ["x: has 13 characters, more than 10; give it in parts"]
    found = read(pipeline, b"Bonn\n" + b"a" * 50 + b"\nis\nBonn is nice.\n")
    too_long = "x:4: has 13 characters, more than 10; give it in parts"
    assert found == ["Bonn", "x:2: a line of more than 20 bytes; break it", "is", too_long]


def test_standard_input_is_read_as_it_comes(pipeline: TextPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Bonn is\nnice\n")))
    assert read(pipeline, Path("-")) == ["Bonn is", "nice"]


def outputs_for(pipeline: TextPipeline, item: Item, tags: list[int]) -> list[torch.Tensor]:
    """Returns logits by which the words of an item of one window per sentence get these tags."""
    rows = []
    for _, window in item.rows:
        logits = torch.zeros(len(window.ids), len(pipeline.labels))
        for word, position in zip(window.words, window.positions, strict=True):
            logits[position, tags[word]] = 9
        rows.append(logits)
    return rows


def test_column_files_keep_their_columns(pipeline: TextPipeline) -> None:
    item = next(iter(pipeline.read(COLUMNS.encode(), "x")))
    assert isinstance(item, Item)
    assert item.source == "x:3"
    record = pipeline.record(item, outputs_for(pipeline, item, [1, 0]))
    assert FORMATS["conll"].render(record) == "EU NNP B-ORG B-LOC\nis V O O\n\n"


def test_html_escapes_text_and_marks_entities(pipeline: TextPipeline) -> None:
    item = next(iter(pipeline.read("<b> Bonn", "<x>")))
    assert isinstance(item, Item)
    page = FORMATS["html"].render(pipeline.record(item, outputs_for(pipeline, item, [0, 0, 0, 1])))
    assert "&lt;b&gt; <mark" in page
    assert ">Bonn<small>LOC</small></mark>" in page
    assert "<x>" not in page


def test_a_word_that_the_tokenizer_drops_is_o(pipeline: TextPipeline) -> None:
    item = pipeline.words_item(["Bonn", "\ufffd", "nice"], "x")
    assert isinstance(item, Item)
    record = pipeline.record(item, outputs_for(pipeline, item, [1, 1, 1]))
    assert record["tags"] == ["B-LOC", "O", "B-LOC"]
    assert record["scores"][1] is None
