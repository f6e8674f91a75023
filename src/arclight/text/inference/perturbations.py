"""Damage to the words of sentences by degrees, to measure how robust a tagger is: case and typing errors."""

from __future__ import annotations

import random
from collections.abc import Iterable

from arclight.text.sentences import Sentence

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)  # fraction of the words that are changed
PERTURBATIONS = dict.fromkeys(("lower case", "upper case", "misspelt"), STRENGTHS)
SHORTEST = 4  # letters of a word that is misspelt


def perturb_sentences(sentences: Iterable[Sentence], kind: str, strength: float, *, seed: int = 0) -> list[Sentence]:
    """Returns the sentences with a fraction of their words changed; the same seed changes the same words.

    The words changed at a strength are changed at every higher one, too. Tags and numbers of words stay.

    Args:
        sentences: of a split.
        kind: "lower case", "upper case" or "misspelt": two neighbouring letters swapped, or one left out, doubled or replaced
            by the next one, never the first.
        strength: fraction of the words, 0..1.
        seed: of the choice.
    """
    draw = random.Random(seed)  # noqa: S311  # not for secrets

    def change(word: str) -> str:
        chance, place, edit = draw.random(), draw.random(), draw.randrange(4)
        if chance >= strength:
            return word
        changed = {"lower case": str.lower, "upper case": str.upper, "misspelt": lambda word: misspell(word, place, edit)}
        return changed[kind](word) or word

    return [one._replace(words=tuple(map(change, one.words))) for one in sentences]


def misspell(word: str, place: float, edit: int) -> str:
    """Returns a word with one typing error; one that is short or has other characters than letters stays.

    Args:
        word: to misspell.
        place: where, 0..1 from the second to the last letter.
        edit: 0 swaps two letters, 1 leaves one out, 2 doubles one, 3 replaces one.
    """
    if len(word) < SHORTEST or not word.isalpha():
        return word
    at = 1 + int(place * (len(word) - 2))
    before, letter, after, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    return before + (after + letter, after, letter + letter + after, after + after)[edit] + rest
