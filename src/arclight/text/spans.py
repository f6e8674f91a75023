"""Entities of one tagged sentence in plain Python, by conlleval's lenient rule: for pages and for counts per sentence."""

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
    """The entities that IOB2 tags stand for, as `entities.spans` finds them: an I-X that continues nothing opens one."""
    found: list[Span] = []
    start, open_type = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        part, _, kind = tag.partition("-")
        if open_type and not (part == "I" and kind == open_type):
            found.append(Span(start, place, open_type))
            open_type = ""
        if kind and not open_type:
            start, open_type = place, kind
    return found


def segments(words: Sequence[str], tags: Sequence[str], others: Collection[Span]) -> list[Segment]:
    """A sentence cut into its entities and what lies between them; right are the entities that are among `others`, too."""
    cut: list[Segment] = []
    place = 0
    for span in spans_of(tags):
        if place < span.start:
            cut.append(Segment(" ".join(words[place : span.start]), "", True))
        cut.append(Segment(" ".join(words[span.start : span.end]), span.type, span in others))
        place = span.end
    if place < len(words):
        cut.append(Segment(" ".join(words[place:]), "", True))
    return cut
