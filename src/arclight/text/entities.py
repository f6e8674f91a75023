"""Entity F1: IOB2 tags -> spans -> counts of correct, predicted and true entities.

A predicted entity is correct when its type, first word and last word are those of a true one. Two conventions differ in an I-X
that continues nothing (at the start, after O, or after another type), which a tagger may predict:

- lenient: it begins an entity. The rule of conlleval, by which CoNLL-2003 results are published; seqeval's default.
- strict: it begins none, nor do the I-X after it. seqeval's mode="strict", scheme=IOB2.

| tags                 | lenient              | strict         |
|----------------------|----------------------|----------------|
| B-PER I-PER O        | PER 0-1              | PER 0-1        |
| B-PER B-PER          | PER 0-0, PER 1-1     | the same       |
| O I-PER I-PER        | PER 1-2              | none           |
| B-PER I-LOC I-LOC    | PER 0-0, LOC 1-2     | PER 0-0        |
| B-PER O I-PER        | PER 0-0, PER 2-2     | PER 0-0        |

So strict entities are the lenient ones that begin with B, and one pass finds both.

Source: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 shared task", 2003, and its script conlleval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.tables import Table, tabulate

OUTSIDE, BEGIN, INSIDE = range(3)


class Scheme(NamedTuple):
    """Prefix and entity type of each label."""

    names: tuple[str, ...]  # of the entity types, sorted
    parts: Tensor  # int64 (labels,), OUTSIDE, BEGIN or INSIDE
    types: Tensor  # int64 (labels,), index into names; 0 for "O", unused


class Spans(NamedTuple):
    """The entities of tagged sentences, each at its first word."""

    opens: Tensor  # bool (B, W), a lenient entity begins here
    opens_strictly: Tensor  # bool (B, W), a strict entity begins here
    ends: Tensor  # int64 (B, W), the word after the last of an entity that begins here
    types: Tensor  # int64 (B, W), the type of an entity that begins here


class EntityTotals(NamedTuple):
    """Correct, predicted and true entities of each type, int64 (types, 3), by both conventions."""

    lenient: Tensor
    strict: Tensor


class EntityCounts(Metric):
    """Metric that counts correct, predicted and true entities; `entity_table` turns its EntityTotals into F1.

    Counts are exact for any number of batches and processes. `update` does not synchronize the device.

    Args:
        labels: IOB2 tags, in the order of the label numbers.

    Raises:
        InputError: when a label is neither "O" nor begins with "B-" or "I-", or all are "O".
    """

    full_state_update = False
    is_differentiable = False
    lenient: Tensor
    strict: Tensor
    parts: Tensor
    types_of_labels: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.types, parts, types = scheme(labels)
        self.register_buffer("parts", parts, persistent=False)
        self.register_buffer("types_of_labels", types, persistent=False)
        self.add_state("lenient", torch.zeros(len(self.types), 3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strict", torch.zeros(len(self.types), 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, gold: Tensor) -> None:
        """Counts the entities of sentences.

        Args:
            predicted: int64 (B, W), label of each word.
            gold: int64 (B, W), true label of each word; IGNORE_INDEX where there is no word. There both sides count as "O",
                whatever was predicted.
        """
        totals = count_entities(predicted, gold, scheme=Scheme(self.types, self.parts, self.types_of_labels))
        self.lenient += totals.lenient
        self.strict += totals.strict

    def compute(self) -> EntityTotals:
        return EntityTotals(self.lenient, self.strict)


def scheme(labels: Sequence[str]) -> Scheme:
    """Returns prefix and entity type of each IOB2 label; raises InputError for other labels, or when all are "O"."""
    for label in labels:
        if label != "O" and not (label.startswith(("B-", "I-")) and len(label) > 2):
            raise InputError(f"label '{label}' is not an IOB2 tag: entity F1 needs 'O', 'B-TYPE' and 'I-TYPE'")
    names = tuple(sorted({label[2:] for label in labels if label != "O"}))
    if not names:
        raise InputError(f"labels {list(labels)} have no entity type: entity F1 needs 'O', 'B-TYPE' and 'I-TYPE'")
    parts = [{"O": OUTSIDE, "B": BEGIN, "I": INSIDE}[label[0]] for label in labels]
    types = [0 if label == "O" else names.index(label[2:]) for label in labels]
    return Scheme(names, torch.tensor(parts), torch.tensor(types))


def spans(tags: Tensor, *, scheme: Scheme) -> Spans:
    """Returns the entities of tags (B, W) by both conventions; IGNORE_INDEX counts as "O"."""
    known = tags.clamp(min=0)
    parts = scheme.parts[known].masked_fill(tags == IGNORE_INDEX, OUTSIDE)  # (B, W)
    types = scheme.types[known]
    continues = torch.zeros_like(tags, dtype=torch.bool)
    continues[:, 1:] = (parts[:, 1:] == INSIDE) & (parts[:, :-1] != OUTSIDE) & (types[:, 1:] == types[:, :-1])
    num_words = tags.shape[1]
    positions = torch.arange(num_words, device=tags.device).expand_as(tags)
    # the next position, from each one on, that continues nothing; an entity that begins at w ends at the next one after w
    breaks = torch.where(continues, num_words, positions).flip(1).cummin(1).values.flip(1)
    ends = torch.full_like(tags, num_words)
    ends[:, :-1] = breaks[:, 1:]
    return Spans((parts != OUTSIDE) & ~continues, parts == BEGIN, ends, types)


def count_entities(predicted: Tensor, gold: Tensor, *, scheme: Scheme) -> EntityTotals:
    """Returns correct, predicted and true entities of predicted and gold labels (B, W); IGNORE_INDEX in gold is no word."""
    found = spans(predicted.masked_fill(gold == IGNORE_INDEX, IGNORE_INDEX), scheme=scheme)
    true = spans(gold, scheme=scheme)
    same = (found.types == true.types) & (found.ends == true.ends)

    def totals(found_opens: Tensor, true_opens: Tensor) -> Tensor:
        counted = ((found_opens & true_opens & same, true.types), (found_opens, found.types), (true_opens, true.types))
        return torch.stack([_count(where, types, len(scheme.names)) for where, types in counted], dim=1)

    return EntityTotals(totals(found.opens, true.opens), totals(found.opens_strictly, true.opens_strictly))


def _count(where: Tensor, types: Tensor, num_types: int) -> Tensor:
    """Returns how often each type occurs where `where` (B, W) is true, int64 (num_types,)."""
    # bincount would synchronize the device to learn the length of its result
    counts = torch.zeros(num_types, dtype=torch.int64, device=types.device)
    return counts.scatter_add_(0, types.flatten(), where.flatten().long())


def entity_table(counts: Tensor, types: Sequence[str], *, title: str) -> Table:
    """Returns precision, recall and F1 per type, sorted by name, and their averages, as seqeval's classification_report.

    A type without true or predicted entities has no row and counts in no average.

    Args:
        counts: int64 (types, 3), one convention of EntityTotals.
        types: names of the entity types, in the order of the counts.
        title: of the table.
    """
    present = counts.any(dim=1).tolist()
    kept = sorted((i for i in range(len(types)) if present[i]), key=lambda i: types[i])
    return tabulate(counts[kept], [types[i] for i in kept], title=title)


def words(predicted: Tensor, word_starts: Tensor, *, outside: int) -> Tensor:
    """Returns the predicted label of each word (B, W): that of its first subword, `outside` for a truncated word.

    Args:
        predicted: int64 (B, T), label of each subword.
        word_starts: int64 (B, W), position of each word's first subword, -1 where it is truncated or there is no word.
        outside: number of the label "O".
    """
    return predicted.gather(1, word_starts.clamp(min=0)).where(word_starts >= 0, outside)
