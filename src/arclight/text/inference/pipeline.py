"""Raw text and column files as inputs of a trained tagger -> words with tags, entities with their places in the text."""

from __future__ import annotations

import io
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from arclight.inference.pipeline import STDIN, BadItem, Format, InputSpec, Item, Record
from arclight.text.columns import DOCUMENT_MARK
from arclight.text.inference.files import NUL, fields, is_header, is_json, numbered_lines, read_json, separator_of
from arclight.text.inference.formats import FORMATS
from arclight.text.inference.splitting import Word, split_sentences, split_words
from arclight.text.inference.windows import WindowMaker
from arclight.text.info import TokenInfo
from arclight.text.records import spans_of

MAX_CHARACTERS = 1_000_000  # of one text; longer ones are given in parts, so that memory stays bounded
SURROGATES = "lone surrogates: this is not valid Unicode"
OUTSIDE = "O"
SURROGATE = re.compile("[\ud800-\udfff]")
LINES_EXAMINED = 50  # of a file, to see what it holds


@dataclass(frozen=True)
class Content:
    """The words of a text, by sentence."""

    text: str
    sentences: list[list[Word]]
    columns: list[str] | None = None  # the lines of a column file that the words are from


class TextPipeline:
    """The `InputPipeline` of a tagger, as its data info describes tags and tokenizer.

    A text in memory is one item. A file is read line by line, each line a text, or a JSON object with "text" or "tokens".
    Column files are recognized by the tags in their last column or by -DOCSTART-; each sentence of them is an item.

    Records: {"source", "text", "words", "offsets", "tags", "scores", "sentences", "entities"}. `offsets` are [start, end] of
    each word in the text, `scores` the probabilities of the tags (None for a word that the tokenizer drops, whose tag is O),
    `sentences` [first word, word after the last]. An entity has "type", "text", "start", "end" (characters), "score" (mean of
    its words), "first_word" and "last_word".
    """

    kind = "text"
    suffixes = (".bio", ".conll", ".csv", ".iob", ".iob2", ".jsonl", ".text", ".tsv", ".txt")
    formats: Mapping[str, Format] = FORMATS

    def __init__(self, info: TokenInfo) -> None:
        self.labels = info.labels
        self.pad_id = info.pad_id
        self.inputs = tuple(InputSpec(name, torch.int64, ("batch", "length")) for name in ("input_ids", "attention_mask"))
        self._maker = WindowMaker(info.tokenizer, info.max_length)

    def read(self, source: Any, name: str) -> Iterator[Item | BadItem]:
        """Yields a text (str), the texts of a file (a path or bytes), or one sentence that is split already (list of words)."""
        if isinstance(source, str):
            yield self.text_item(source, name)
        elif isinstance(source, list | tuple):
            yield self.words_item(source, name)
        elif isinstance(source, bytes):
            yield from self._read_lines(io.BytesIO(source), name)
        elif not isinstance(source, Path):
            yield BadItem(name, f"{type(source).__name__} is not a text; give a str, a list of words or a path")
        elif str(source) == STDIN:
            yield from self._read_lines(sys.stdin.buffer, name)
        elif not source.is_file():
            problem = "not a file" if source.exists() else "no such file; a text itself is read from standard input: -"
            yield BadItem(name, problem)
        else:
            try:
                with source.open("rb") as file:
                    yield from self._read_lines(file, name)
            except OSError as error:
                yield BadItem(name, str(error.strerror))

    def text_item(self, text: str, name: str) -> Item | BadItem:
        """Returns a text, split into sentences and words."""
        if len(text) > MAX_CHARACTERS:
            return BadItem(name, f"has {len(text):,} characters, more than {MAX_CHARACTERS:,}; give it in parts")
        if "\0" in text:
            return BadItem(name, NUL)
        if SURROGATE.search(text):
            return BadItem(name, SURROGATES)
        split = (split_words(text, start, end) for start, end in split_sentences(text))
        return self._item(name, Content(text, [words for words in split if words]))

    def words_item(self, words: Sequence[str], name: str, columns: list[str] | None = None) -> Item | BadItem:
        """Returns a sentence that is split into words already; its text is the words with spaces between them."""
        if wrong := [word for word in words if not isinstance(word, str) or not word.strip() or SURROGATE.search(word)]:
            return BadItem(name, f"{wrong[0]!r} is not a word")
        ends = list(itertools.accumulate(len(word) + 1 for word in words))
        sentence = [Word(word, end - len(word) - 1, end - 1) for word, end in zip(words, ends, strict=True)]
        return self._item(name, Content(" ".join(words), [sentence] if sentence else [], columns))

    def _item(self, name: str, content: Content) -> Item | BadItem:
        made = self._maker.windows([[word.text for word in sentence] for sentence in content.sentences])
        rows = [(number, window) for number, windows in enumerate(made) for window in windows]
        if not rows:
            return BadItem(name, "holds no word")
        return Item(name, rows, content)

    def _read_lines(self, file: BinaryIO, name: str) -> Iterator[Item | BadItem]:
        lines = numbered_lines(file)
        examined = list(itertools.islice(lines, LINES_EXAMINED))
        lines = itertools.chain(examined, lines)
        first = [line for _, line in examined if isinstance(line, str)]
        if (separator := separator_of(first)) is not None:
            yield from self._read_columns(lines, name, separator, has_header=is_header(first))
            return
        read_line = self._json_item if is_json(first) else self.text_item
        is_empty = True
        for number, line in lines:
            if isinstance(line, BadItem):
                yield BadItem(f"{name}:{number}", line.problem)
            elif line.strip():
                yield read_line(line, f"{name}:{number}")
            else:
                continue
            is_empty = False
        if is_empty:
            yield BadItem(name, "holds no word")

    def _json_item(self, line: str, name: str) -> Item | BadItem:
        try:
            found = read_json(line)
        except (ValueError, RecursionError) as error:
            return BadItem(name, f'is no JSON line such as {{"text": "..."}} or {{"tokens": [...]}}: {error}')
        return self.text_item(found, name) if isinstance(found, str) else self.words_item(found, name)

    def _read_columns(
        self, lines: Iterator[tuple[int, str | BadItem]], name: str, separator: str, *, has_header: bool
    ) -> Iterator[Item | BadItem]:
        waiting: list[str] = []
        first = 1
        for number, line in itertools.chain(itertools.islice(lines, int(has_header), None), [(0, "")]):
            if isinstance(line, BadItem):
                yield BadItem(f"{name}:{number}", line.problem)
            elif line.strip() and DOCUMENT_MARK not in line:
                first = first if waiting else number
                waiting.append(line)
            elif waiting:
                yield self.words_item([fields(line, separator)[0] for line in waiting], f"{name}:{first}", waiting)
                waiting = []

    def length(self, row: Any) -> int:
        return len(row[1].ids)

    def collate(self, rows: Sequence[Any]) -> tuple[Tensor, ...]:
        width = max(len(window.ids) for _, window in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for number, (_, window) in enumerate(rows):
            ids[number, : len(window.ids)] = torch.tensor(window.ids)
            mask[number, : len(window.ids)] = 1
        return ids, mask

    def record(self, item: Item, outputs: Sequence[Tensor], *, top_k: int | None = None) -> Record:
        content: Content = item.content
        words = [word for sentence in content.sentences for word in sentence]
        ends = list(itertools.accumulate(len(sentence) for sentence in content.sentences))
        starts = [end - len(sentence) for end, sentence in zip(ends, content.sentences, strict=True)]
        tags, scores = [OUTSIDE] * len(words), [None] * len(words)
        top: list[list[Record]] = [[] for _ in words]
        for (number, window), logits in zip(item.rows, outputs, strict=True):
            best = logits[window.positions].softmax(dim=-1).topk(min(top_k or 1, len(self.labels)))
            for word, values, found in zip(window.words, best.values.tolist(), best.indices.tolist(), strict=True):
                place = starts[number] + word
                tags[place], scores[place] = self.labels[found[0]], round(values[0], 6)
                top[place] = [
                    {"label": self.labels[label], "probability": round(value, 6)}
                    for value, label in zip(values, found, strict=True)
                ]
        record = {
            "source": item.source,
            "text": content.text,
            "words": [word.text for word in words],
            "offsets": [[word.start, word.end] for word in words],
            "tags": tags,
            "scores": scores,
            "sentences": [[start, end] for start, end in zip(starts, ends, strict=True)],
            "entities": [
                entity(content.text, words, scores, start + span.start, start + span.end, span.type)
                for start, end in zip(starts, ends, strict=True)
                for span in spans_of(tags[start:end])
            ],
        }
        if top_k and top_k > 1:
            record["top"] = top
        if content.columns is not None:
            record["columns"] = content.columns
        return record

    def table_rows(self, record: Record) -> list[Record]:
        keys = ("type", "text", "start", "end", "score")
        return [{"source": record["source"], **{key: found[key] for key in keys}} for found in record["entities"]]


def entity(text: str, words: Sequence[Word], scores: Sequence[float | None], first: int, end: int, kind: str) -> Record:
    """Returns the entity from the word `first` to the word before `end`."""
    start, stop = words[first].start, words[end - 1].end
    known = [score for score in scores[first:end] if score is not None]
    score = round(sum(known) / len(known), 6) if known else None
    return {
        **{"type": kind, "text": text[start:stop], "start": start, "end": stop, "score": score},
        **{"first_word": first, "last_word": end - 1},
    }
