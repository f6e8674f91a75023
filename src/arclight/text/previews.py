"""Summary of a data set of tagged sentences for the report: entity counts, sentence lengths, a few sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_SENTENCES = 8


def summarize_sentences(splits: Mapping[str, Iterable[tuple[Sequence[str], Sequence[str]]]]) -> dict[str, Any]:
    """Returns entities per type and sentences per length by split, and a few training sentences with entities.

    Args:
        splits: words and IOB2 tags of each sentence, by split.
    """
    counts: dict[str, dict[str, int]] = {}
    lengths: dict[str, dict[str, int]] = {}
    samples: list[dict[str, Any]] = []
    for split, sentences in splits.items():
        entities: Counter[str] = Counter()
        sizes: Counter[int] = Counter()
        for words, tags in sentences:
            entities.update(tag[2:] for tag in tags if tag.startswith("B-"))
            sizes[len(words)] += 1
            if split == "train" and len(samples) < MAX_SENTENCES and any(tag != "O" for tag in tags):
                samples.append({"words": list(words), "labels": list(tags)})
        counts[split] = dict(sorted(entities.items()))
        lengths[split] = {str(size): sizes[size] for size in sorted(sizes)}
    titles = {"counts_title": "Entities", "lengths_title": "Sentence lengths", "length_unit": "words"}
    return {**titles, "counts": counts, "lengths": lengths, "samples": samples}
