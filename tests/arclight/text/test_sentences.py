"""Labels of tagged sentences."""

from __future__ import annotations

import pytest

from arclight.errors import InputError
from arclight.text.sentences import Sentence, check_labels, find_labels, visible, without_unknown

TEST = [Sentence(("a", "b", "c"), ("B-EVT", "I-EVT", "B-PER"), 0, "t.txt", 3), Sentence(("d",), ("B-Z\u200b",), 0, "t.txt", 9)]


def test_labels_hold_both_prefixes_of_every_type() -> None:
    sentences = [Sentence(("a", "b"), ("B-PER", "O")), Sentence(("c",), ("B-LOC",))]
    assert find_labels(sentences) == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
    with pytest.raises(InputError, match=r"t\.txt: holds no entity, every tag is O; is data\.tag_column right\?"):
        find_labels([Sentence(("a",), ("O",), 0, "t.txt")])


def test_all_types_missing_in_training_are_listed_with_counts_and_places() -> None:
    check_labels([Sentence(("a", "b"), ("O", "B-PER"))], ("O", "B-PER"))
    with pytest.raises(InputError) as raised:
        check_labels(TEST, ("O", "B-PER", "I-PER"))
    assert str(raised.value) == (
        "t.txt:3: these entity types do not occur in training, which has PER: EVT (1, first at t.txt:3), "
        "Z\\u200b (1, first at t.txt:9). data.unknown_labels=drop counts them as O, data.unknown_labels=add adds them to the "
        "labels"
    )
    assert raised.value.key == "data.unknown_labels"


def test_unknown_types_may_count_as_no_entity() -> None:
    assert [one.tags for one in without_unknown(TEST, ("O", "B-PER"))] == [("O", "O", "B-PER"), ("O",)]


def test_a_place_counts_lines_left_out() -> None:
    sentence = Sentence(("a", "b", "c"), ("O", "O", "O"), 0, "t.txt", 5, ((1, 2), (2, 1)))
    assert [sentence.place(word) for word in range(3)] == ["t.txt:5", "t.txt:8", "t.txt:10"]


def test_invisible_characters_are_escaped() -> None:
    assert visible("a\u00a0\u200bé") == "a\\u00a0\\u200bé"
