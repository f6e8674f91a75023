from __future__ import annotations

import random
import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st

from arclight.text.entities import count_entities, scheme
from arclight.text.records import Segment, Span, segments, spans_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # seqeval is no longer maintained
    from seqeval.metrics.sequence_labeling import get_entities


def test_an_inside_that_continues_nothing_opens_an_entity() -> None:
    tags = ["I-PER", "I-PER", "B-PER", "I-LOC", "O", "B-LOC"]
    assert spans_of(tags) == [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(3, 4, "LOC"), Span(5, 6, "LOC")]
    assert spans_of([]) == []


def test_types_with_a_dash() -> None:
    assert spans_of(["B-a-b", "I-a-b"]) == [Span(0, 2, "a-b")]


def test_the_counts_are_those_of_the_scores() -> None:
    labels = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    draw = random.Random(0)
    known = scheme(labels)
    for _ in range(300):
        gold, predicted = ([draw.choice(labels) for _ in range(9)] for _ in range(2))
        numbers = [torch.tensor([[labels.index(tag) for tag in tags]]) for tags in (predicted, gold)]
        expected = count_entities(*numbers, scheme=known).lenient.sum(0).tolist()
        true, found = set(spans_of(gold)), set(spans_of(predicted))
        assert [len(true & found), len(found), len(true)] == expected


def test_a_sentence_in_segments() -> None:
    words = ["Anna", "Maria", "met", "Bonn"]
    cut = segments(words, ["B-PER", "I-PER", "O", "B-LOC"], {Span(0, 2, "PER")})
    assert cut == [Segment("Anna Maria", "PER", True), Segment("met", "", True), Segment("Bonn", "LOC", False)]
    assert segments(words, ["O"] * 4, set()) == [Segment("Anna Maria met Bonn", "", True)]


def slow_spans(tags: list[str]) -> set[Span]:
    """The definition: every run of one type, cut where a B- stands."""
    found = set()
    for start in range(len(tags)):
        kind = tags[start][2:]
        begins = kind and (tags[start][0] == "B" or start == 0 or tags[start - 1][2:] != kind)
        if begins:
            end = next((at for at in range(start + 1, len(tags)) if tags[at] != f"I-{kind}"), len(tags))
            found.add(Span(start, end, kind))
    return found


PAIRS = st.lists(st.tuples(*[st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-a-b", "I-a-b"])] * 2), max_size=14)


@given(PAIRS)
def test_spans_and_counts_are_those_of_a_slow_reference_and_of_seqeval(pairs: list[tuple[str, str]]) -> None:
    labels = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-a-b", "I-a-b")
    gold, predicted = [[tags[side] for tags in pairs] for side in (0, 1)]
    true, found = slow_spans(gold), slow_spans(predicted)
    for tags, expected in ((gold, true), (predicted, found)):
        assert set(spans_of(tags)) == expected
        assert {Span(start, end + 1, kind) for kind, start, end in get_entities(tags)} == expected
    if pairs:
        numbers = [torch.tensor([[labels.index(tag) for tag in tags]]) for tags in (predicted, gold)]
        counted = count_entities(*numbers, scheme=scheme(labels)).lenient.sum(0).tolist()
        assert counted == [len(true & found), len(found), len(true)]
