"""Synthetic sentences without a download: most names occur once, so that only the context reveals their type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from arclight.errors import InputError
from arclight.text.datamodule import SPLITS
from arclight.text.sentences import Sentence
from project.pinned_tokenizer import PinnedTokenizer

T = TypeVar("T")

ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "r", "s", "t", "v")
VOWELS = ("a", "e", "i", "o", "u")
ENDS = ("", "", "l", "n", "r", "s")
GIVEN_NAMES = ("Ada", "Bruno", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Irma", "Jonas", "Leon", "May", "Rose")
TRADES = ("Bank", "Foods", "Group", "Motors", "Steel")
NUM_FAMILIAR = 60  # names that recur, as every type and as none
FAMILIAR_FRACTION = 0.25

# A slot in capitals is an entity of this type, others are not: `name` looks like one, but is a dog, a ship or a word.
CLAUSES = (
    "{MISC} farmers met {PER} of {ORG} in {LOC}",  # first, so that one sentence has every label
    "{PER} said on {day} that talks had failed",
    "{PER} told reporters that he would resign",
    "{PER} , {number} , was born in {LOC}",
    "coach {PER} praised the players",
    "minister {PER} will visit {LOC} on {day}",
    "a goal by {PER} gave {ORG} a win over {ORG}",
    "police in {LOC} arrested {PER} and {PER}",
    "{ORG} hired {PER} as chief economist",
    "the {MISC} {PER} won in {number} minutes",
    "{PER} lost to the {MISC} champion",
    "rain fell in {LOC} and in {LOC}",
    "the road from {LOC} to {LOC} was closed",
    "{LOC} is a town near {LOC}",
    "{LOC} has {number} inhabitants",
    "troops left {LOC} after {number} days",
    "flights to {LOC} were late",
    "judges : {FULL} {FULL} {FULL}",
    "result : {PLACE} {PLACE} {number} - {number}",
    "table : {PLACE} {PLACE} {PLACE}",
    "shares of {ORG} rose {number} percent",
    "{ORG} said its profit fell {number} percent",
    "{ORG} hired {number} workers",
    "{ORG} sold its plant in {LOC} to {ORG}",
    "analysts at {ORG} expect a loss",
    "a spokesman for {ORG} declined to comment",
    "{ORG} shares closed at {number}",
    "{LOC} 's airport was bought by {ORG}",
    "the {MISC} government raised taxes",
    "{PER} won the {CUP} {number} times",
    "the {CUP} begins in {LOC} on {day}",
    "a dog called {name} slept",
    "the ship {name} sank near {LOC}",
    "the word {name} means rain",
    "the {name} method is cheap",
    "{PER} sold the horse {name} to {PER}",
    "prices rose {number} percent on {day}",
    "the meeting was put off until {day}",
)
JOINTS = (", and", ", while", ", but", ";")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class SyntheticText(PinnedTokenizer):
    """Synthetic news with persons, locations, organisations and miscellaneous names, for a first run without a download.

    Names consist of syllables, the same for all types, so that a tagger that memorizes words fails on the names of the test
    split; the words around them reveal the type. The arguments not listed here are those of TokenDataModule.

    Args:
        num_train: sentences to train on.
        num_val: sentences to validate on.
        num_test: sentences to test on.
        data_seed: of the sentences, which do not depend on `seed`.
        vocab_size: most subwords of a trained vocabulary.
        max_length: most subwords of a sentence, special ones included.
    """

    def __init__(
        self,
        *,
        num_train: int = 3000,
        num_val: int = 300,
        num_test: int = 500,
        data_seed: int = 0,
        vocab_size: int = 1000,
        max_length: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(root=None, vocab_size=vocab_size, max_length=max_length, **options)
        self.num_made = {"train": num_train, "val": num_val, "test": num_test}
        for split, number in self.num_made.items():
            if number < 1:
                raise InputError(f"data.num_{split}={number} must be 1 or more", key=f"data.num_{split}")
        if data_seed < 0:
            raise InputError(f"data.data_seed={data_seed} must be 0 or more", key="data.data_seed")
        self.data_seed = data_seed

    def read(self, split: str) -> list[Sentence]:
        namer = _Writer((self.data_seed,))
        familiar = [namer.new_word() for _ in range(NUM_FAMILIAR)]
        writer = _Writer((self.data_seed, 1 + SPLITS.index(split)), familiar)
        return [writer.sentence(line) for line in range(1, self.num_made[split] + 1)]


class _Writer:
    """Generates sentences from a seed; some names are drawn from the familiar ones."""

    def __init__(self, seed: tuple[int, ...], familiar: Sequence[str] = ()) -> None:
        self.random = np.random.default_rng(seed)
        self.familiar = familiar

    def sentence(self, line: int) -> Sentence:
        """Returns one or two clauses and a full stop, with IOB2 tags; the first clauses take turns."""
        text = CLAUSES[(line - 1) % len(CLAUSES)]
        if self.random.random() < 0.4:
            text += f" {self._pick(JOINTS)} {self._pick(CLAUSES)}"
        words: list[str] = []
        tags: list[str] = []
        for piece in f"{text} .".split():
            kind, filling = self._fill(piece)
            words += filling
            tags += ["O"] * len(filling) if kind == "O" else [f"B-{kind}", *[f"I-{kind}"] * (len(filling) - 1)]
        words[0] = words[0][0].upper() + words[0][1:]
        return Sentence(tuple(words), tuple(tags), file="synthetic_text", line=line)

    def _fill(self, piece: str) -> tuple[str, list[str]]:
        """Returns the entity type and the words of a piece of a clause."""
        match piece:
            case "{PER}":
                return "PER", self._one_of(("*", f"{self._pick(GIVEN_NAMES)} *"))
            case "{FULL}":
                return "PER", [self._pick(GIVEN_NAMES), self._name()]
            case "{LOC}":
                return "LOC", self._one_of(("*", "*", "*", "New *", "* Bay"))
            case "{PLACE}":
                return "LOC", [self._name()]
            case "{ORG}":
                return "ORG", self._one_of(("*", "*", f"* {self._pick(TRADES)}", "* and *", "Bank of *"))
            case "{MISC}":
                return "MISC", [self._name() + self._pick(("ian", "ese"))]
            case "{CUP}":
                return "MISC", self._one_of(("* Cup", "* Open", "New * Cup"))
            case "{name}":
                return "O", [self._name()]
            case "{day}":
                return "O", [self._pick(DAYS)]
            case "{number}":
                return "O", [str(self.random.integers(2, 100))]
        return "O", [piece]

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self.random.integers(len(options)))]

    def _one_of(self, forms: Sequence[str]) -> list[str]:
        """Returns the words of one of the forms, with a name for each star."""
        return [self._name() if word == "*" else word for word in self._pick(forms).split()]

    def _name(self) -> str:
        if self.familiar and self.random.random() < FAMILIAR_FRACTION:
            return self._pick(self.familiar)
        return self.new_word()

    def new_word(self) -> str:
        """Returns two or three syllables, capitalized."""
        syllables = (*(ONSETS, VOWELS) * self._pick((2, 3, 3)), ENDS)
        return "".join(self._pick(letters) for letters in syllables).capitalize()
