"""Metadata of a data set of tagged sentences, and a batch of sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from arclight.errors import InputError, shown
from arclight.interfaces import DataInfo

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule
    from torch import Tensor

    from arclight.export.program import Program
    from arclight.text.inference.pipeline import TextPipeline

SHORT, LONG = 8, 16  # subwords in the two sentences whose FLOPs are measured


@dataclass(frozen=True, kw_only=True)
class TokenInfo(DataInfo):
    """Metadata of a tagged-text data set.

    `labels` are IOB2 tags, "O" first; `tokenizer` is the whole fast tokenizer as the JSON text of the tokenizers library, so
    that a checkpoint needs no other file; `max_length` counts subwords, special ones included.
    """

    labels: tuple[str, ...]
    tokenizer: str
    vocab_size: int
    pad_id: int
    max_length: int

    content: ClassVar[str] = "tagged text"

    def __post_init__(self) -> None:
        """Raises InputError for values that no data set has: those of a checkpoint may be anybody's."""
        if self.labels[:1] != ("O",) or not all(label[:2] in ("B-", "I-") for label in self.labels[1:]):
            message = f"data_info.labels={shown(self.labels)} must be IOB2 tags, O first"
            raise InputError(message, key="data_info.labels")
        if not 0 <= self.pad_id < self.vocab_size:
            message = f"data_info.pad_id={self.pad_id} must be one of the {self.vocab_size} ids of data_info.vocab_size"
            raise InputError(message, key="data_info.pad_id")
        if self.max_length < 1:
            raise InputError(f"data_info.max_length={self.max_length} must be 1 or more", key="data_info.max_length")

    @property
    def num_classes(self) -> int:
        """The number of labels, for nets that take it."""
        return len(self.labels)

    @classmethod
    def stand_in(cls) -> TokenInfo:
        return cls(labels=("O", "B-A", "I-A"), tokenizer="{}", vocab_size=8, pad_id=0, max_length=8)

    def input_pipeline(self) -> TextPipeline:
        """Returns what reads texts for a model built from this, and turns its logits into tags and entities."""
        from arclight.text.inference.pipeline import TextPipeline  # imports torch

        return TextPipeline(self)

    def export_program(self, module: LightningModule) -> Program:
        """Returns a module built from this as subwords and first subwords of words in, logits of words out."""
        from arclight.text.export.program import tag_program  # imports torch

        return tag_program(module, self)

    def describe(self) -> str:
        """Returns number of tags and maximum length for the run summary."""
        return f"{len(self.labels)} tags, up to {self.max_length} subwords"


class TokenBatch(NamedTuple):
    """The part of a batch that one process takes at once: B sentences of at most W words, in R rows of T subwords.

    Each sentence has a row of its own, R = B, unless `position_ids` are given: then several pieces of text share a row, and no
    subword may attend to another piece. A net that cannot keep them apart must refuse such a batch.
    """

    input_ids: Tensor  # int64 (R, T)
    attention_mask: Tensor  # int64 (R, T), which piece of the row a subword belongs to, counted from 1; 0 on padding
    labels: Tensor  # int64 (R, T), the word's label on its first subword, IGNORE_INDEX elsewhere
    word_starts: Tensor  # int64 (B, W), where in its row a word's first subword stands, -1 where it was cut off or no word is
    word_labels: Tensor  # int64 (B, W), gold label of every word, cut off or not; IGNORE_INDEX where no word is
    indices: Tensor  # int64 (B,), row in the split, -1 on rows that only pad the batch
    num_tokens: int  # subwords, padding left out
    num_labelled: float  # labelled subwords of the whole batch, all processes and micro-batches, divided by accumulation steps
    num_pairs: int = 0  # pairs of subwords that attend to one another, which is what attention costs
    position_ids: Tensor | None = None  # int64 (R, T), 0 where a piece begins; None where a row is one piece
    rows: Tensor | None = None  # int64 (B,), the row that holds each sentence; None where each has its own
    # int32 (N + 1,), where, in all rows laid end to end, each piece or padding begins; ends with R T
    boundaries: Tensor | None = None

    @property
    def num_samples(self) -> int:
        """Sentences."""
        return len(self.indices)

    @property
    def unit_counts(self) -> Mapping[str, int]:
        """Subwords, padding left out."""
        return {"tokens": self.num_tokens}

    @property
    def num_positions(self) -> int:
        """Subwords, padding included."""
        return self.input_ids.numel()

    @property
    def work_units(self) -> Mapping[str, int]:
        """FLOPs grow with subwords and with pairs of them."""
        return {"tokens": self.num_tokens, "pairs": self.num_pairs}

    def flops_per_unit(self, measure: Callable[[TokenBatch], float]) -> Mapping[str, float]:
        """Returns the FLOPs of a training step for each subword and each pair that attends to one another.

        A sentence of T subwords costs a T + b T^2, and two lengths give a and b.
        """
        short, long = (measure(one_sentence(length, self.input_ids.device)) for length in (SHORT, LONG))
        pair = (long / LONG - short / SHORT) / (LONG - SHORT)
        return {"tokens": short / SHORT - pair * SHORT, "pairs": pair}

    @property
    def example_inputs(self) -> tuple[Tensor | None, ...]:
        """What the module's `forward` takes."""
        return (self.input_ids, self.attention_mask, self.position_ids)


def one_sentence(length: int, device: torch.device) -> TokenBatch:
    """Returns a batch of one sentence of so many subwords, each of them a word."""
    import torch

    row = torch.zeros(1, length, dtype=torch.int64, device=device)
    return TokenBatch(row, row + 1, row, row, row, row[:, 0], length, float(length))
