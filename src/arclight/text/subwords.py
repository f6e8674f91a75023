"""Words -> subwords -> batches: one split tokenized once, from which batches are gathered on the device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from arclight.data.samplers import BatchIndices
from arclight.interfaces import IGNORE_INDEX
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.packing import Shape, find_windows, lay_out
from arclight.text.sentences import Sentence

MANY_UNKNOWN = 0.05  # fraction of a split's subwords

_log = logging.getLogger(__name__)


class Subwords:
    """One split as flat tensors of subwords, tokenized once; batches are gathered from them on the device.

    It consists of texts that the net sees one at a time: sentences, or windows of consecutive sentences of a document. A word's
    label is on its first subword. A word without subwords is beyond `data_info.max_length` (`num_truncated`, logged) or has
    only characters that the tokenizer drops (`num_empty`); it keeps its label in `word_labels`, and its `word_starts` is -1.

    Args:
        sentences: of the split, by row.
        data_info: labels, tokenizer, and the most subwords of a text.
        in_windows: whether a text is a window.
    """

    def __init__(self, sentences: Sequence[Sentence], data_info: TokenInfo, *, in_windows: bool = False) -> None:
        tokenizer = Tokenizer.from_str(data_info.tokenizer)
        sizes = np.array(find_windows(sentences, data_info) if in_windows else [1] * len(sentences))  # sentences in each text
        first_sentences = np.cumsum(sizes) - sizes
        tokenizer.enable_truncation(data_info.max_length)  # keeps the special tokens at both ends
        windows = [sentences[first : first + size] for first, size in zip(first_sentences, sizes, strict=True)]
        texts = [[word for sentence in window for word in sentence.words] for window in windows]
        encodings = tokenizer.encode_batch(texts, is_pretokenized=True)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        num_words = np.array([len(text) for text in texts])
        offsets, word_offsets = np.cumsum(lengths) - lengths, np.cumsum(num_words) - num_words

        rows = np.repeat(np.arange(len(texts)), lengths)  # of each subword
        inner = np.fromiter((-1 if w is None else w for encoding in encodings for w in encoding.word_ids), np.int64)
        word = np.where(inner >= 0, word_offsets[rows] + inner, -1)  # counted through the whole split
        first = (word >= 0) & (word != np.concatenate([[-1], word[:-1]]))
        word_starts = np.full(num_words.sum(), -1)
        word_starts[word[first]] = (np.arange(len(rows)) - offsets[rows])[first]
        number = {label: n for n, label in enumerate(data_info.labels)}
        word_labels = np.array([number[tag] for sentence in sentences for tag in sentence.tags])
        labels = np.full(len(rows), IGNORE_INDEX)
        labels[first] = word_labels[word[first]]
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)

        # on the host
        self.lengths, self._offsets = torch.from_numpy(lengths), torch.from_numpy(offsets + 1)
        self.num_labelled = torch.from_numpy(np.bincount(rows[first], minlength=len(texts)))
        self.num_words = torch.tensor([len(sentence.words) for sentence in sentences])
        self._sentences = torch.from_numpy(np.stack([first_sentences, sizes], axis=1)) if in_windows else None
        # padding is at index 0, so that it is gathered like everything else
        flat = ((data_info.pad_id, ids), (IGNORE_INDEX, labels), (-1, word_starts), (IGNORE_INDEX, word_labels))
        self._flat = [torch.from_numpy(np.concatenate([[padding], values])) for padding, values in flat]
        self._spans = torch.stack([self._offsets, self.lengths], dim=1)
        self._word_spans = torch.stack([self.num_words.cumsum(0) - self.num_words + 1, self.num_words], dim=1)

        truncated = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
        self.num_truncated = sum(int(num_words[r] - 1 - inner[offsets[r] : offsets[r] + lengths[r]].max()) for r in truncated)
        self.num_empty = int((word_starts < 0).sum()) - self.num_truncated
        unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "[UNK]")
        num_unknown = 0 if unknown is None else int((ids[inner >= 0] == unknown).sum())
        file = sentences[0].file or "this data"
        if num_unknown > MANY_UNKNOWN * len(ids):
            share = 100 * num_unknown / len(ids)
            _log.warning("%.0f %% of the subwords of %s are unknown to the tokenizer: is it for this language?", share, file)
        if self.num_empty:
            _log.warning(
                "%d words of %s have only characters that the tokenizer drops, and count as predicted O", self.num_empty, file
            )
        if self.num_truncated:
            place = (self.num_truncated, file, data_info.max_length)
            _log.warning("%d words of %s are beyond data.max_length=%d and count as predicted O", *place)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> Subwords:
        """Moves what batches are gathered from to this device, and returns itself."""
        self._flat = [values.to(device) for values in self._flat]
        self._spans, self._word_spans = self._spans.to(device), self._word_spans.to(device)
        return self

    def batch(self, rows: BatchIndices, tokens_per_row: int | None = None, shape: Shape | None = None) -> TokenBatch:
        """Returns the batch of these texts without synchronizing the device.

        Each text has its own row, padded to the longest; with `tokens_per_row`, several share a row of at most that width, or
        rows of this shape. Index -1 is padding, which attends to its first position; num_labelled is never 0: both avoid NaN.
        """
        lengths = self.lengths[rows.indices.clamp(min=0)] * (rows.indices >= 0)
        num_labelled = int(self.num_labelled[rows.whole[rows.whole >= 0]].sum())
        sentences, texts = self._sentences_of(rows.indices)
        ids, labels, *_ = self._flat
        device = ids.device
        row_of: Tensor | None = texts if self._sentences is not None else None
        starts = position_ids = boundaries = None
        if tokens_per_row is None:
            at, mask = self._one_a_row(rows.indices.to(device, non_blocking=True), max(1, int(lengths.max())))
        else:
            layout = lay_out(lengths, self._offsets[rows.indices.clamp(min=0)], tokens_per_row, shape)
            at, mask, position_ids, boundaries = (table.to(device, non_blocking=True) for table in layout[2:])
            row_of, starts = layout.rows[texts], layout.starts[texts]
        word_starts, word_labels = self._words_of(sentences, starts)
        return TokenBatch(
            input_ids=ids[at],
            attention_mask=mask,
            labels=labels[at],
            word_starts=word_starts,
            word_labels=word_labels,
            indices=sentences.to(device, non_blocking=True),
            num_tokens=int(lengths.sum()),
            num_labelled=max(1, num_labelled) * len(rows.indices) / len(rows.whole),
            num_pairs=int((lengths**2).sum()),
            position_ids=position_ids,
            rows=None if row_of is None else row_of.to(device, non_blocking=True),
            boundaries=boundaries,
        )

    def _sentences_of(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sentences in these texts, -1 for padding, and the text of each sentence."""
        if self._sentences is None:
            return indices, torch.arange(len(indices))
        first, size = self._sentences[indices.clamp(min=0)].unbind(1)
        first, size = first.where(indices >= 0, -1), size.where(indices >= 0, 1)
        texts = torch.arange(len(indices)).repeat_interleave(size)
        within = torch.arange(len(texts)) - (size.cumsum(0) - size)[texts]
        return first[texts] + within, texts

    def _one_a_row(self, indices: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Returns the flat subword at each position (B, width), and the mask, 0 on padding."""
        offset, length = (self._spans[indices.clamp(min=0)] * (indices >= 0)[:, None])[:, :, None].unbind(1)  # (B, 1) each
        position = torch.arange(width, device=indices.device)
        return torch.where(position < length, offset + position, 0), (position < length.clamp(min=1)).long()

    def _words_of(self, sentences: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns position in its row and label of each word (B, W); `starts` (B,) is where a sentence's text begins."""
        real = sentences[sentences >= 0]
        most_words = int(self.num_words[real].max()) if len(real) else 1
        _, _, word_starts, word_labels = self._flat
        on_device = sentences.to(word_starts.device, non_blocking=True)
        spans = self._word_spans[on_device.clamp(min=0)] * (on_device >= 0)[:, None]
        offset, num_words = spans[:, :, None].unbind(1)  # (B, 1) each
        word = torch.arange(most_words, device=on_device.device)
        at = torch.where(word < num_words, offset + word, 0)  # (B, W)
        found = word_starts[at]
        if starts is not None:
            found = torch.where(found >= 0, found + starts.to(found.device, non_blocking=True)[:, None], -1)
        return found, word_labels[at]
