from __future__ import annotations

import random

import torch

from arclight.evaluation.entities import count_entities, scheme
from arclight.evaluation.spans import Segment, Span, segments, spans_of


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
