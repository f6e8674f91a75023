"""Predictions of a test: collected batch by batch, gathered from all processes, checked and written to `predictions.jsonl`.

They are what a paired comparison of two models and the error analysis are computed from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from arclight.config.atomic_file import write_atomically
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.records import ClassPrediction, Prediction

MAX_LISTED_ROWS = 10  # in one message
CONFIDENCE_DIGITS = 6


class Flat(NamedTuple):
    """Predictions as flat tensors: N samples with M entries in total (one per label)."""

    indices: Tensor  # int64 (N,), row in the split
    counts: Tensor  # int64 (N,), entries of each sample
    labels: Tensor  # int64 (M,), true label of each entry
    predicted: Tensor  # int64 (M,)
    confidence: Tensor  # float32 (M,), nan where there is none


class PredictionCollector:
    """Collects what this process predicts without waiting for the device, then gathers what all processes predicted.

    `labels` names the label numbers; each sample's prediction becomes a `record_type`.
    """

    def __init__(self, labels: Sequence[str], record_type: type[Prediction] = ClassPrediction) -> None:
        self.labels = tuple(labels)
        self.record_type = record_type
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, indices: Tensor, labels: Tensor, predicted: Tensor, confidence: Tensor) -> None:
        """Stores one batch on its device. It is flattened later: only the device knows how many entries there are.

        Args:
            indices: int64 (B,), rows of the split, -1 on padding rows.
            labels: int64 (B,) or (B, W), IGNORE_INDEX where there is no entry.
            predicted: int64, shaped as the labels.
            confidence: float, shaped as the labels; nan where there is none.
        """
        self._batches.append((indices, labels.to(torch.int32), predicted.to(torch.int32), confidence.to(torch.float32)))

    def gather(self, num_samples: int | None) -> Predictions:
        """Returns the predictions of all processes in the order of the split. A collective call: every process must make it.

        Args:
            num_samples: of the split, each of which must have been predicted once; None when a limit cut the test short.

        Raises:
            RuntimeError: when a sample is missing or was predicted twice.
        """
        batches, self._batches = self._batches, []
        flat = Flat(*(torch.cat(all_gather(column)) for column in flatten(batches)))
        check_complete(flat.indices, num_samples)
        return Predictions(self.labels, sort_by_index(flat), self.record_type)


@dataclass(frozen=True)
class Predictions:
    """Every sample's prediction, in the order of the split; iterating gives one record per sample."""

    labels: tuple[str, ...]
    flat: Flat
    record_type: type[Prediction]

    def __len__(self) -> int:
        return len(self.flat.indices)

    def __iter__(self) -> Iterator[Prediction]:
        bounds = [0, *self.flat.counts.cumsum(0).tolist()]
        true, predicted = ([self.labels[number] for number in numbers.tolist()] for numbers in self.flat[2:4])
        values = self.flat.confidence.tolist()
        confidence = [round(value, CONFIDENCE_DIGITS) if math.isfinite(value) else None for value in values]
        for row, index in enumerate(self.flat.indices.tolist()):
            own = slice(bounds[row], bounds[row + 1])
            yield self.record_type.from_entries(index, true[own], predicted[own], confidence[own])

    def write(self, path: Path, fields: Sequence[Mapping[str, Any]] = ()) -> None:
        """Writes one JSON object per line, atomically; `fields`, plain values of each sample, stand beside its prediction."""
        given = fields or [{}] * len(self)
        pairs = ((asdict(prediction), beside) for prediction, beside in zip(self, given, strict=True))
        objects = (record | {**beside} | record for record, beside in pairs)
        write_atomically(path, "".join(json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in objects))


def flatten(batches: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Flat:
    """Returns batches as `PredictionCollector.add` takes them without padding rows and ignored entries, on the CPU."""
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
    """Returns the tensors (N,) of all processes by rank, on the CPU; N may differ. A collective call."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [values]
    # NCCL supports only tensors on the GPU, gloo all collectives only on the CPU; none an empty tensor
    padded = torch.nn.functional.pad(values, (0, 1)).to("cuda" if "nccl" in distributed.get_backend() else "cpu")
    return [other[:-1].cpu() for other in gather_all_tensors(padded)]


def check_complete(indices: Tensor, num_samples: int | None) -> None:
    """Checks that every row 0..num_samples-1 occurs exactly once or, for an unknown number, that none occurs twice.

    Raises:
        RuntimeError: naming the rows that are missing, repeated or outside the split. A bug, never the user's error.
    """
    rows, counts = indices.unique(return_counts=True)
    faults = {"predicted more than once": rows[counts > 1]}
    if num_samples is not None:
        expected = torch.arange(num_samples)
        faults["missing"] = expected[~torch.isin(expected, rows)]
        faults["outside the split"] = rows[rows >= num_samples]
    found = []
    for name, wrong in faults.items():
        if len(wrong):
            listed = ", ".join(map(str, wrong[:MAX_LISTED_ROWS].tolist()))
            found.append(f"{len(wrong)} {name} ({listed}{', ...' if len(wrong) > MAX_LISTED_ROWS else ''})")
    if found:
        raise RuntimeError(f"the test did not predict every sample exactly once: rows {', '.join(found)}")


def sort_by_index(flat: Flat) -> Flat:
    """Returns the same samples by rising index."""
    order = flat.indices.argsort(stable=True)
    counts = flat.counts[order]
    starts = (flat.counts.cumsum(0) - flat.counts)[order]  # of each sample among the entries
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    entries = starts.repeat_interleave(counts) + within
    return Flat(flat.indices[order], counts, *(values[entries] for values in flat[2:]))
