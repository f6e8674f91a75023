"""Words -> subwords -> batches on the device: what every data set of tagged text here shares."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from arclight.data.datamodule import DataModule
from arclight.data.samplers import BatchIndices, EvalSampler, TrainSampler
from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.text.columns import Sentence, check_labels, find_labels
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.packing import BucketSampler, EvenSampler, Shape, TextSampler, find_windows, lay_out
from arclight.text.previews import summarize_sentences
from arclight.text.tokenizer import load_tokenizer, train_wordpiece

SPLITS = ("train", "val", "test")

Packing = Literal["none", "buckets", "rows", "fixed"]
Context = Literal["sentence", "document"]

_log = logging.getLogger(__name__)


class Subwords:
    """One split as flat tensors, cut into subwords once; batches are gathered from them on the device.

    It consists of pieces, each of which the net sees at once: sentences, or windows of neighbouring ones from one document. A
    word's label stands on its first subword. A word without any stands beyond `spec.max_length` (`num_cut`, told in the log)
    or consists of what the tokenizer drops (`num_empty`); it keeps its label in `word_labels`, and -1 is its `word_starts`.

    Args:
        sentences: of the split, by row.
        data_info: labels, tokenizer, and the most subwords of a piece.
        in_windows: whether a piece is a window.
    """

    def __init__(self, sentences: Sequence[Sentence], data_info: TokenInfo, *, in_windows: bool = False) -> None:
        tokenizer = Tokenizer.from_str(data_info.tokenizer)
        sizes = np.array(find_windows(sentences, data_info) if in_windows else [1] * len(sentences))  # sentences in each piece
        first_sentences = np.cumsum(sizes) - sizes
        tokenizer.enable_truncation(data_info.max_length)  # keeps the special tokens at both ends
        pieces = [sentences[first : first + size] for first, size in zip(first_sentences, sizes, strict=True)]
        texts = [[word for sentence in piece for word in sentence.words] for piece in pieces]
        encodings = tokenizer.encode_batch(texts, is_pretokenized=True)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        num_words = np.array([len(text) for text in texts])
        offsets, word_offsets = np.cumsum(lengths) - lengths, np.cumsum(num_words) - num_words

        rows = np.repeat(np.arange(len(pieces)), lengths)  # of each subword
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

        # these stay on the host
        self.lengths, self._offsets = torch.from_numpy(lengths), torch.from_numpy(offsets + 1)
        self.num_labelled = torch.from_numpy(np.bincount(rows[first], minlength=len(pieces)))
        self.num_words = torch.tensor([len(sentence.words) for sentence in sentences])
        self._sentences = torch.from_numpy(np.stack([first_sentences, sizes], axis=1)) if in_windows else None
        # what stands for padding comes first, at index 0, so that padding is gathered like everything else
        flat = ((data_info.pad_id, ids), (IGNORE_INDEX, labels), (-1, word_starts), (IGNORE_INDEX, word_labels))
        self._flat = [torch.from_numpy(np.concatenate([[padding], values])) for padding, values in flat]
        self._places = torch.stack([self._offsets, self.lengths], dim=1)
        self._word_places = torch.stack([self.num_words.cumsum(0) - self.num_words + 1, self.num_words], dim=1)

        truncated = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
        self.num_cut = sum(int(num_words[r] - 1 - inner[offsets[r] : offsets[r] + lengths[r]].max()) for r in truncated)
        self.num_empty = int((word_starts < 0).sum()) - self.num_cut
        if self.num_cut:
            _log.warning(
                "%d words stand beyond data.max_length=%d and count as predicted O", self.num_cut, data_info.max_length
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> Subwords:
        """Itself, with all that batches are gathered from on this device."""
        self._flat = [values.to(device) for values in self._flat]
        self._places, self._word_places = self._places.to(device), self._word_places.to(device)
        return self

    def batch(self, rows: BatchIndices, tokens_per_row: int | None = None, shape: Shape | None = None) -> TokenBatch:
        """These pieces; nothing here waits for the device.

        Each has a row of its own, padded to the longest, or, with `tokens_per_row`, several share one of that width at most,
        or of this shape. A piece of index -1 is padding, yet attends to its first position, and num_labelled is never 0, lest
        there be NaN.
        """
        lengths = self.lengths[rows.indices.clamp(min=0)] * (rows.indices >= 0)
        num_labelled = int(self.num_labelled[rows.whole[rows.whole >= 0]].sum())
        sentences, pieces = self._sentences_of(rows.indices)
        ids, labels, *_ = self._flat
        device = ids.device
        row_of: Tensor | None = pieces if self._sentences is not None else None
        starts = position_ids = boundaries = None
        if tokens_per_row is None:
            at, mask = self._one_a_row(rows.indices.to(device, non_blocking=True), max(1, int(lengths.max())))
        else:
            layout = lay_out(lengths, self._offsets[rows.indices.clamp(min=0)], tokens_per_row, shape)
            at, mask, position_ids, boundaries = (table.to(device, non_blocking=True) for table in layout[2:])
            row_of, starts = layout.rows[pieces], layout.starts[pieces]
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
        """The sentences in these pieces, -1 for a piece that only fills the batch, and which of the pieces each stands in."""
        if self._sentences is None:
            return indices, torch.arange(len(indices))
        first, size = self._sentences[indices.clamp(min=0)].unbind(1)
        first, size = first.where(indices >= 0, -1), size.where(indices >= 0, 1)
        pieces = torch.arange(len(indices)).repeat_interleave(size)
        within = torch.arange(len(pieces)) - (size.cumsum(0) - size)[pieces]
        return first[pieces] + within, pieces

    def _one_a_row(self, indices: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Which flat subword stands at each place (B, width), and the mask of what is no padding."""
        offset, length = (self._places[indices.clamp(min=0)] * (indices >= 0)[:, None])[:, :, None].unbind(1)  # (B, 1) each
        position = torch.arange(width, device=indices.device)
        return torch.where(position < length, offset + position, 0), (position < length.clamp(min=1)).long()

    def _words_of(self, sentences: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where each word (B, W) stands in its row, and its label; `starts` (B,) is where a sentence's piece begins there."""
        real = sentences[sentences >= 0]
        most_words = int(self.num_words[real].max()) if len(real) else 1
        _, _, word_starts, word_labels = self._flat
        on_device = sentences.to(word_starts.device, non_blocking=True)
        places = self._word_places[on_device.clamp(min=0)] * (on_device >= 0)[:, None]
        offset, num_words = places[:, :, None].unbind(1)  # (B, 1) each
        word = torch.arange(most_words, device=on_device.device)
        at = torch.where(word < num_words, offset + word, 0)  # (B, W)
        found = word_starts[at]
        if starts is not None:
            found = torch.where(found >= 0, found + starts.to(found.device, non_blocking=True)[:, None], -1)
        return found, word_labels[at]


class TokenLoader:
    """Batches of one split in the order given; Lightning tells `sampler` the epoch and saves where it stands."""

    def __init__(
        self,
        subwords: Subwords,
        order: TrainSampler | EvalSampler,
        *,
        tokens_per_row: int | None = None,
        shape: Shape | None = None,
    ) -> None:
        self.subwords, self.sampler, self.tokens_per_row, self.shape = subwords, order, tokens_per_row, shape
        self.batch_sampler = None  # Lightning looks here, too

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TokenBatch]:
        return (self.subwords.batch(rows, self.tokens_per_row, self.shape) for rows in self.sampler)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict() if isinstance(self.sampler, TrainSampler) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if isinstance(self.sampler, TrainSampler):
            self.sampler.load_state_dict(state)


class TokenDataModule(DataModule):
    """A data set of tagged sentences; a subclass says where they come from: `read`, and `prepare` where they must be fetched.

    Labels are O and, for every type in the training split, B- and I-. Where `data_info` is set beforehand, as for a restored
    model, its labels and its tokenizer are taken. Conll2003 tells what the arguments mean.
    """

    info_type = TokenInfo

    @classmethod
    def has_fixed_shapes(cls, settings: Mapping[str, Any]) -> bool:
        """Returns whether batches are packed into rows of one shape."""
        return settings.get("packing") == "fixed"

    def __init__(
        self,
        *,
        root: str | None,
        tokenizer: str | None,
        tokenizer_revision: str | None = None,
        vocab_size: int,
        max_length: int,
        batch_size: int,
        eval_batch_size: int,
        max_batch_per_device: int | None,
        seed: int,
        packing: Packing = "buckets",
        tokens_per_row: int = 256,
        context: Context = "sentence",
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        least = {"vocab_size": (vocab_size, 1), "max_length": (max_length, 3), "eval_batch_size": (eval_batch_size, 1)}
        for name, (value, minimum) in least.items():
            if value < minimum:
                raise InputError(f"data.{name}={value} must be {minimum} or more")
        for name, choice, known in (("packing", packing, get_args(Packing)), ("context", context, get_args(Context))):
            if choice not in known:
                raise InputError(f"data.{name}={choice} is none of {', '.join(known)}")
        if packing in ("rows", "fixed") and tokens_per_row < max_length:
            raise InputError(
                f"data.tokens_per_row={tokens_per_row} has no room for a text of data.max_length={max_length} subwords; set "
                f"data.tokens_per_row={max_length} or more, or a shorter data.max_length"
            )
        self.packing, self.tokens_per_row, self.context = packing, tokens_per_row, context
        self.tokenizer, self.vocab_size, self.max_length = tokenizer, vocab_size, max_length
        self.tokenizer_revision = tokenizer_revision
        self.eval_batch_size = min(eval_batch_size, max_batch_per_device or eval_batch_size)
        self._sentences: dict[str, list[Sentence]] = {}
        self._subwords: dict[str, Subwords] = {}

    @abstractmethod
    def read(self, split: str) -> list[Sentence]:
        """The sentences of "train", "val" or "test", with tags in IOB2."""

    def sentences(self, split: str) -> list[Sentence]:
        """The sentences of "train", "val" or "test" by row, read once."""
        if split not in self._sentences:
            self._sentences[split] = self.read(split)
        return self._sentences[split]

    @cached_property
    def _new_data_info(self) -> TokenInfo:
        train = self.sentences("train")
        labels = find_labels(train)
        if self.tokenizer is None:
            words = chain.from_iterable(sentence.words for sentence in train)
            tokenizer, pad_id = train_wordpiece(words, vocab_size=self.vocab_size), 0
        else:
            tokenizer, pad_id = load_tokenizer(self.tokenizer, max_length=self.max_length, revision=self.tokenizer_revision)
        text, size = tokenizer.to_str(), 1 + max(tokenizer.get_vocab().values())
        return TokenInfo(labels=labels, tokenizer=text, vocab_size=size, pad_id=pad_id, max_length=self.max_length)

    def _given_data_info(self, split: str) -> TokenInfo:
        """The spec that holds for this split, whose labels are all among the spec's."""
        data_info = self._new_data_info if self.data_info is None else self.data_info
        if not isinstance(data_info, TokenInfo):
            raise InputError("the model was built for images and this data set is text; take the data that it was trained on")
        check_labels(self.sentences(split), data_info.labels)
        return data_info

    def prepare(self) -> None:
        for split in SPLITS:
            self._given_data_info(split)

    def load(self, part: str) -> None:
        for split in ("train", "val") if part == "fit" else ("test",):
            self.data_info = self._given_data_info(split)
            self._subwords[split] = Subwords(self.sentences(split), self.data_info, in_windows=self.context == "document")

    @property
    def num_train(self) -> int:
        """What a batch is made of: sentences, or windows of them, which are known once they are loaded."""
        loaded = self._subwords.get("train")
        return len(self.sentences("train")) if loaded is None else len(loaded)

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(subwords.num_words) for split, subwords in self._subwords.items()}

    def examples(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        sentences = self.sentences(split)
        return [{"words": list(sentences[row].words)} for row in rows]

    def dataset_summary(self) -> dict[str, Any]:
        pairs = {split: [(sentence.words, sentence.tags) for sentence in self.sentences(split)] for split in self._subwords}
        return summarize_sentences(pairs)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_train // self.batch_size) if self.packing == "fixed" else super().steps_per_epoch

    def train_dataloader(self) -> TokenLoader:
        train = self._subwords["train"].to(self.device)
        make_order = {"buckets": BucketSampler, "fixed": EvenSampler}.get(self.packing, TextSampler)
        order = make_order(train.lengths, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        capacity = self.tokens_per_row if self.packing in ("rows", "fixed") else None
        shape = order.shape(self.tokens_per_row) if isinstance(order, EvenSampler) else None
        return TokenLoader(train, order, tokens_per_row=capacity, shape=shape)

    def val_dataloader(self) -> TokenLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> TokenLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> TokenLoader:
        subwords = self._subwords[split].to(self.device)
        by_length = torch.argsort(subwords.lengths, stable=True)
        return TokenLoader(subwords, EvalSampler(by_length, self.eval_batch_size, shard=self.eval_shard))
