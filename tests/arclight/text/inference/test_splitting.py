"""Raw text is split into sentences and words, in any script, and every word keeps its place."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.text.inference.splitting import split_sentences, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Peter didn't visit Anna's ex-wife.", "Peter did n't visit Anna 's ex-wife ."),
        ("I can't; they’ll go, DON'T!", "I ca n't ; they ’ll go , DO N'T !"),
        ("The U.S. paid $1,000.50 (2-1).", "The U.S. paid $ 1,000.50 ( 2-1 ) ."),
        ("Mr. J. Smith of Inc. said: Wait...", "Mr. J. Smith of Inc. said : Wait ..."),
        ("see https://a.org/b?c=1. Or a.b@c.org", "see https://a.org/b?c=1 . Or a.b@c.org"),
        ("on 1996-08-30 at 10:30", "on 1996-08-30 at 10:30"),
        ("我在北京。", "我 在 北 京 。"),
        ("هل زرت القاهرة؟", "هل زرت القاهرة ؟"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया ।"),
        ("می‌خواهم", "می‌خواهم"),
        ("Hi 👩‍👩‍👧 there👍🏽", "Hi 👩‍👩‍👧 there 👍🏽"),
        ("\u00a0 \u200b\x07", ""),
        ("", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert [word.text for word in split_words(text)] == words.split(" ") * bool(words)


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("He left. She stayed! Why? No one knows.", 4),
        ("Mr. Smith met J. Doe in the U.S. Senate.", 1),
        ("It cost 3.5 dollars. 10 were left.", 2),
        ('She said "Go." Then left.', 2),
        ("first line\ngoes on here", 1),
        ("a title\n\nA text", 2),
        ("你好。世界！", 2),
        ("كيف حالك؟ بخير", 2),
        ("  \n ", 0),
    ],
)
def test_sentences(text: str, num: int) -> None:
    assert len(list(split_sentences(text))) == num


@given(st.text())
def test_places_are_those_of_the_text(text: str) -> None:
    found = [word for start, end in split_sentences(text) for word in split_words(text, start, end)]
    assert [text[word.start : word.end] for word in found] == [word.text for word in found]
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    letters = {place for place, letter in enumerate(text) if letter.isalnum()}
    assert letters <= {place for word in found for place in range(word.start, word.end)}
