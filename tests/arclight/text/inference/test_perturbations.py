"""Damage to words keeps their number and tags, and grows with its strength."""

from __future__ import annotations

import itertools

import pytest

from arclight.text.inference.perturbations import PERTURBATIONS, STRENGTHS, misspell, perturb_sentences
from arclight.text.sentences import Sentence

WORDS = tuple(f"Word{'abcdefghij'[number % 10]}{'klmnop'[number % 6]}" for number in range(200))
SENTENCES = [Sentence(WORDS, ("O",) * len(WORDS))]


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_damage_grows(kind: str) -> None:
    changed = []
    for strength in STRENGTHS:
        (one,) = perturb_sentences(SENTENCES, kind, strength)
        assert (len(one.words), one.tags) == (len(WORDS), SENTENCES[0].tags)
        changed.append({number for number, word in enumerate(one.words) if word != WORDS[number]})
        assert abs(len(changed[-1]) / len(WORDS) - strength) < 0.1
    assert all(less <= more for less, more in itertools.pairwise(changed))


def test_case() -> None:
    assert perturb_sentences(SENTENCES, "lower case", 1.0)[0].words == tuple(map(str.lower, WORDS))
    assert perturb_sentences(SENTENCES, "upper case", 1.0)[0].words == tuple(map(str.upper, WORDS))


def test_misspelling() -> None:
    assert [misspell("Berlin", 0.0, edit) for edit in range(4)] == ["Brelin", "Brlin", "Beerlin", "Brrlin"]
    assert [misspell(word, 0.5, 1) for word in ("Ulm", "1996-08", "Bonn")] == ["Ulm", "1996-08", "Bon"]
