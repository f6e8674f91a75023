"""Entities of one tagged sentence in plain Python, by conlleval's lenient rule: for reports and counts per sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from arclight.metrics.records import Segment


class Span(NamedTuple):
    """An entity from word `start` to the word before `end`."""

    start: int
    end: int
    type: str


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Returns the entities of IOB2 tags, as `entities.spans` does: an I-X that continues nothing begins one."""
    found: list[Span] = []
    start, open_type = 0, ""
    for position, tag in enumerate([*tags, "O"]):
        part, _, kind = tag.partition("-")
        if open_type and not (part == "I" and kind == open_type):
            found.append(Span(start, position, open_type))
            open_type = ""
        if kind and not open_type:
            start, open_type = position, kind
    return found


def segments(words: Sequence[str], tags: Sequence[str], others: Collection[Span]) -> list[Segment]:
    """Returns a sentence cut into its entities and the words between them; entities also in `others` are correct."""
    cut: list[Segment] = []
    end = 0
    for span in spans_of(tags):
        if end < span.start:
            cut.append(Segment(" ".join(words[end : span.start]), "", True))
        cut.append(Segment(" ".join(words[span.start : span.end]), span.type, span in others))
        end = span.end
    if end < len(words):
        cut.append(Segment(" ".join(words[end:]), "", True))
    return cut
