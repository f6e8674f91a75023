"""Everything that a LightningModule, a LightningDataModule or a batch may offer the engine. All of it is optional."""

from __future__ import annotations

from dataclasses import dataclass

# The label of rows, words and subwords that count in no loss and in no metric (the default `ignore_index` of cross_entropy).
IGNORE_INDEX = -100


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a data module tells models about its data: a frozen dataclass of plain values, saved in every checkpoint."""
