"""Tagged sentences: words, IOB2 tags, and the labels that a net learns from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from arclight.errors import InputError


class Sentence(NamedTuple):
    """Words and their tags, equally many, at least one."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int = 0
    file: str = ""
    line: int = 1  # of the first word
    gaps: tuple[tuple[int, int], ...] = ()  # (word, lines left out before it), where a word does not follow the one before

    def place(self, word: int) -> str:
        """Returns the place of this word as file:line."""
        return f"{self.file}:{self.line + word + sum(lines for first, lines in self.gaps if first <= word)}"


def count_entities(sentences: Iterable[Sentence]) -> int:
    """Returns the number of entities in sentences with IOB2 tags."""
    return sum(tag[:2] == "B-" for sentence in sentences for tag in sentence.tags)


def find_labels(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """Returns O, then B-X and I-X for every entity type X in these sentences; raises InputError when there is none."""
    kinds = {tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"}
    if not kinds:
        raise InputError(f"{sentences[0].file}: holds no entity, every tag is O; is data.tag_column right?")
    return ("O", *sorted(f"{prefix}-{kind}" for prefix in "BI" for kind in kinds))


def check_labels(sentences: Iterable[Sentence], labels: Sequence[str]) -> None:
    """Raises InputError with all entity types that are not among the labels of training, with their counts and first places."""
    counts: Counter[str] = Counter()
    places: dict[str, str] = {}
    for sentence in sentences:
        for word, tag in enumerate(sentence.tags):
            if tag not in labels:
                counts[tag[2:]] += tag[:2] == "B-"
                places.setdefault(tag[2:], sentence.place(word))
    if counts:
        listed = ", ".join(f"{visible(kind)} ({count}, first at {places[kind]})" for kind, count in counts.most_common(20))
        known = ", ".join(sorted({label[2:] for label in labels if label != "O"}))
        raise InputError(
            f"{next(iter(places.values()))}: these entity types do not occur in training, which has {known}: {listed}. "
            "data.unknown_labels=drop counts them as O, data.unknown_labels=add adds them to the labels",
            key="data.unknown_labels",
        )


def without_unknown(sentences: Sequence[Sentence], labels: Sequence[str]) -> list[Sentence]:
    """Returns the sentences with O in the place of tags that are not among the labels."""
    return [one._replace(tags=tuple(tag if tag in labels else "O" for tag in one.tags)) for one in sentences]


def visible(text: str) -> str:
    """Returns the text with escapes for invisible characters."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
