"""What a data set of tagged sentences tells models about itself, and a batch of sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from arclight.interfaces import DataInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenInfo(DataInfo):
    """Facts of a tagged-text data set.

    `labels` are IOB2 tags, "O" first; `tokenizer` is the whole fast tokenizer as the JSON text of the tokenizers library, so
    that a checkpoint needs no other file; `max_length` counts subwords, special ones included.
    """

    labels: tuple[str, ...]
    tokenizer: str
    vocab_size: int
    pad_id: int
    max_length: int


class TokenBatch(NamedTuple):
    """One process's part of a batch: B sentences of W words at most, in R rows of T subwords.

    As a rule each sentence has a row of its own, R = B. Where `position_ids` are given, several pieces of text share a row, and
    no subword may attend to another piece: a net that cannot keep them apart must refuse such a batch.
    """

    input_ids: Tensor  # int64 (R, T)
    attention_mask: Tensor  # int64 (R, T), which piece of the row a subword belongs to, counted from 1; 0 on padding
    labels: Tensor  # int64 (R, T), the word's label on its first subword, IGNORED elsewhere
    word_starts: Tensor  # int64 (B, W), where in its row a word's first subword stands, -1 where it was cut off or no word is
    word_labels: Tensor  # int64 (B, W), gold label of every word, cut off or not; IGNORED where no word is
    indices: Tensor  # int64 (B,), row in the split, -1 on rows that only fill the batch
    num_tokens: int  # subwords in this part, padding left out
    num_labelled: float  # labelled subwords of the whole batch, all processes and parts, divided by the number of parts
    num_pairs: int = 0  # pairs of subwords in this part that attend to one another, which is what attention costs
    position_ids: Tensor | None = None  # int64 (R, T), 0 where a piece begins; None where a row is one piece
    rows: Tensor | None = None  # int64 (B,), the row that holds each sentence; None where each has its own
    boundaries: Tensor | None = (
        None  # int32 (N + 1,), where, in all rows laid end to end, each piece or padding begins; ends with R T
    )
