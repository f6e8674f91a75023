"""What was predicted for each test sample: kept while the test runs, gathered from all processes, checked, written, read.

Scores say how good a model is; `predictions.jsonl` says on which samples. It is what a paired comparison of two models
(McNemar's test, a paired bootstrap) is made from, and where the analysis of errors begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor

from arclight.config.atomic_file import write_atomically
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.prediction_file import ImagePrediction, Prediction, SentencePrediction, read_predictions

__all__ = ["ImagePrediction", "Prediction", "PredictionCollector", "Predictions", "SentencePrediction", "read_predictions"]

TOLD_ROWS = 10  # that one message lists
DIGITS = 6  # of a confidence


class Flat(NamedTuple):
    """Predictions as flat tensors: N samples, of which each has some of the M entries (one per image, one per word)."""

    indices: Tensor  # int64 (N,), row in the split
    counts: Tensor  # int64 (N,), entries of each sample
    labels: Tensor  # int64 (M,), true label of each entry
    predicted: Tensor  # int64 (M,)
    confidence: Tensor  # float32 (M,), nan where there is none


class PredictionCollector:
    """Takes what this process predicts, batch by batch, and gives what all processes predicted; waits for no device before.

    Args:
        labels: names of the label numbers.
        is_per_word: whether a sample has a prediction for each of its words, not one.
    """

    def __init__(self, labels: Sequence[str], *, is_per_word: bool) -> None:
        self.labels = tuple(labels)
        self.is_per_word = is_per_word
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, indices: Tensor, labels: Tensor, predicted: Tensor, confidence: Tensor) -> None:
        """Keeps one batch on its device. It is flattened later: how many words there are only the device knows.

        Args:
            indices: int64 (B,), rows of the split, -1 on rows that only fill the batch.
            labels: int64 (B,), or (B, W) with IGNORED where no word is.
            predicted: int64, shaped as the labels.
            confidence: float, shaped as the labels; nan where there is none.
        """
        self._batches.append((indices, labels.to(torch.int32), predicted.to(torch.int32), confidence.to(torch.float32)))

    def gather(self, num_samples: int | None) -> Predictions:
        """The predictions of all processes in the order of the split; every process must ask, and each gets them.

        Args:
            num_samples: of the split, each of which must have been predicted once; None when a limit cut the test short.

        Raises:
            RuntimeError: when a sample is missing or was predicted twice.
        """
        batches, self._batches = self._batches, []
        flat = Flat(*(torch.cat(all_gather(column)) for column in flatten(batches)))
        check(flat.indices, num_samples)
        return Predictions(self.labels, in_order(flat), self.is_per_word)


@dataclass(frozen=True)
class Predictions:
    """Every sample's prediction, in the order of the split; iterating gives one dataclass per sample."""

    labels: tuple[str, ...]
    flat: Flat
    is_per_word: bool

    def __len__(self) -> int:
        return len(self.flat.indices)

    def __iter__(self) -> Iterator[Prediction]:
        places = [0, *self.flat.counts.cumsum(0).tolist()]
        true, predicted = ([self.labels[number] for number in numbers.tolist()] for numbers in self.flat[2:4])
        confidence = [round(value, DIGITS) if math.isfinite(value) else None for value in self.flat.confidence.tolist()]
        for row, index in enumerate(self.flat.indices.tolist()):
            start, end = places[row], places[row + 1]
            if self.is_per_word:
                parts = (tuple(true[start:end]), tuple(predicted[start:end]), tuple(confidence[start:end]))
                yield SentencePrediction(index, *parts)
            else:
                yield ImagePrediction(index, true[start], predicted[start], confidence[start])

    def write(self, path: Path) -> None:
        """Writes one JSON object per line, atomically."""
        lines = (json.dumps(asdict(prediction), ensure_ascii=False, allow_nan=False) + "\n" for prediction in self)
        write_atomically(path, "".join(lines))


def flatten(batches: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Flat:
    """Batches as `PredictionCollector.add` takes them, without rows that fill up and places where no word is; on the CPU."""
    integers, floats = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    parts = [Flat(integers, integers, integers, integers, floats)]
    for indices, labels, predicted, confidence in batches:
        rows = indices.cpu() >= 0
        table = [values.cpu()[rows].unsqueeze(-1).flatten(1) for values in (labels, predicted, confidence)]
        is_entry = table[0] != IGNORE_INDEX
        entries = [values[is_entry] for values in table]
        parts.append(Flat(indices.cpu()[rows], is_entry.sum(1), entries[0].long(), entries[1].long(), entries[2]))
    return Flat(*(torch.cat(column) for column in zip(*parts, strict=True)))


def all_gather(values: Tensor) -> list[Tensor]:
    """The tensors (N,) of all processes by rank, on the CPU; N may differ. Every process must ask."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [values]
    # NCCL knows tensors on the GPU only, gloo all collectives on the CPU only
    values = values.to("cuda" if "nccl" in distributed.get_backend() else "cpu")
    length = torch.tensor([len(values)], device=values.device)
    lengths = [torch.zeros_like(length) for _ in range(distributed.get_world_size())]
    distributed.all_gather(lengths, length)
    sizes = [int(other) for other in lengths]
    # collectives want equal shapes, and at least one number
    padded = torch.nn.functional.pad(values, (0, max(1, *sizes) - len(values)))
    gathered = [torch.zeros_like(padded) for _ in sizes]
    distributed.all_gather(gathered, padded)
    return [other[:size].cpu() for other, size in zip(gathered, sizes, strict=True)]


def check(indices: Tensor, num_samples: int | None) -> None:
    """Passes where every row 0..num_samples-1 stands exactly once; of an unknown number, where none stands twice.

    Raises:
        RuntimeError: naming the rows that are missing, doubled or not of the split. A bug, never the user's mistake.
    """
    rows, counts = indices.unique(return_counts=True)
    faults = {"predicted more than once": rows[counts > 1]}
    if num_samples is not None:
        expected = torch.arange(num_samples)
        faults["missing"] = expected[~torch.isin(expected, rows)]
        faults["not of the split"] = rows[rows >= num_samples]
    told = [f"{len(wrong)} {name} ({list_rows(wrong)})" for name, wrong in faults.items() if len(wrong)]
    if told:
        raise RuntimeError(f"the test did not predict every sample exactly once: rows {', '.join(told)}")


def list_rows(rows: Tensor) -> str:
    """The first few of them."""
    return ", ".join(map(str, rows[:TOLD_ROWS].tolist())) + (", ..." if len(rows) > TOLD_ROWS else "")


def in_order(flat: Flat) -> Flat:
    """The same samples by rising index."""
    order = flat.indices.argsort(stable=True)
    counts = flat.counts[order]
    starts = (flat.counts.cumsum(0) - flat.counts)[order]  # of each sample among the entries
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    entries = starts.repeat_interleave(counts) + within
    return Flat(flat.indices[order], counts, *(values[entries] for values in flat[2:]))
