"""Words -> subwords -> batches on the device: what every data set of tagged text here shares."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from arclight.data.columns import Sentence, check_labels, find_labels
from arclight.data.datamodule import DataModule
from arclight.data.examples import portrait_of_sentences
from arclight.data.order import EvalOrder, Rows, Shard, TrainOrder, generator
from arclight.data.vocabulary import load_tokenizer, train_wordpiece
from arclight.errors import InputError
from arclight.spec import IGNORED, TokenBatch, TokenSpec

SPLITS = ("train", "val", "test")
WINDOW = 50  # batches whose sentences are sorted by length together; more would pad less and shuffle less

_log = logging.getLogger(__name__)


class Subwords:
    """One split as flat tensors, cut into subwords once; batches are gathered from them on the device.

    A word's label stands on its first subword. A word without any stands beyond `spec.max_length` (`num_cut`, told in the log)
    or consists of what the tokenizer drops (`num_empty`); it keeps its label in `word_labels`, and -1 is its `word_starts`.
    """

    def __init__(self, sentences: Sequence[Sentence], spec: TokenSpec) -> None:
        tokenizer = Tokenizer.from_str(spec.tokenizer)
        tokenizer.enable_truncation(spec.max_length)  # keeps the special tokens at both ends
        encodings = tokenizer.encode_batch([list(sentence.words) for sentence in sentences], is_pretokenized=True)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        num_words = np.array([len(sentence.words) for sentence in sentences])
        offsets, word_offsets = np.cumsum(lengths) - lengths, np.cumsum(num_words) - num_words

        rows = np.repeat(np.arange(len(sentences)), lengths)  # of each subword
        inner = np.fromiter((-1 if w is None else w for encoding in encodings for w in encoding.word_ids), np.int64)
        word = np.where(inner >= 0, word_offsets[rows] + inner, -1)  # counted through the whole split
        first = (word >= 0) & (word != np.concatenate([[-1], word[:-1]]))
        word_starts = np.full(num_words.sum(), -1)
        word_starts[word[first]] = (np.arange(len(rows)) - offsets[rows])[first]
        number = {label: n for n, label in enumerate(spec.labels)}
        word_labels = np.array([number[tag] for sentence in sentences for tag in sentence.tags])
        labels = np.full(len(rows), IGNORED)
        labels[first] = word_labels[word[first]]
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)

        self.lengths, self.num_words = torch.from_numpy(lengths), torch.from_numpy(num_words)  # stay on the host
        self.num_labelled = torch.from_numpy(np.bincount(rows[first], minlength=len(sentences)))
        # what stands for padding comes first, at index 0, so that padding is gathered like everything else
        flat = ((spec.pad_id, ids), (IGNORED, labels), (-1, word_starts), (IGNORED, word_labels))
        self._flat = [torch.from_numpy(np.concatenate([[padding], values])) for padding, values in flat]
        self._places = torch.from_numpy(np.stack([offsets + 1, lengths, word_offsets + 1, num_words], axis=1))

        truncated = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
        self.num_cut = sum(int(num_words[r] - 1 - inner[offsets[r] : offsets[r] + lengths[r]].max()) for r in truncated)
        self.num_empty = int((word_starts < 0).sum()) - self.num_cut
        if self.num_cut:
            _log.warning("%d words stand beyond data.max_length=%d and count as predicted O", self.num_cut, spec.max_length)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> Subwords:
        """Itself, with all that batches are gathered from on this device."""
        self._flat, self._places = [values.to(device) for values in self._flat], self._places.to(device)
        return self

    def batch(self, rows: Rows) -> TokenBatch:
        """These rows, padded to the longest of them; nothing here waits for the device.

        A row of index -1 is padding, yet attends to its first position, and num_labelled is never 0, lest there be NaN.
        """
        real = rows.indices[rows.indices >= 0]
        num_labelled = int(self.num_labelled[rows.whole[rows.whole >= 0]].sum())
        longest, most_words = (int(counts[real].max()) if len(real) else 1 for counts in (self.lengths, self.num_words))
        indices = rows.indices.to(self._places.device, non_blocking=True)
        places = self._places[indices.clamp(min=0)] * (indices >= 0)[:, None]  # (B, 4)
        offset, length, word_offset, num_words = places[:, :, None].unbind(1)  # (B, 1) each
        position = torch.arange(max(1, longest), device=indices.device)
        word = torch.arange(most_words, device=indices.device)
        ids, labels, word_starts, word_labels = self._flat
        at = torch.where(position < length, offset + position, 0)  # (B, T)
        word_at = torch.where(word < num_words, word_offset + word, 0)  # (B, W)
        return TokenBatch(
            input_ids=ids[at],
            attention_mask=(position < length.clamp(min=1)).long(),
            labels=labels[at],
            word_starts=word_starts[word_at],
            word_labels=word_labels[word_at],
            indices=indices,
            num_tokens=int(self.lengths[real].sum()),
            num_labelled=max(1, num_labelled) * len(rows.indices) / len(rows.whole),
        )


class BucketOrder(TrainOrder):
    """Shuffled, sorted by length inside windows of 50 batches so that little is padding, cut, and the batches shuffled."""

    def __init__(
        self, lengths: Tensor, batch_size: int, *, seed: int, shard: Shard | None = None, is_fixed: bool = False
    ) -> None:
        super().__init__(len(lengths), batch_size, seed=seed, shard=shard, is_fixed=is_fixed)
        self.lengths = lengths

    def batches(self) -> Tensor:
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)[: self.num_steps * self.batch_size]
        windows = torch.arange(len(shuffled)) // (WINDOW * self.batch_size)
        by_length = torch.argsort(windows * (int(self.lengths.max()) + 1) + self.lengths[shuffled], stable=True)
        return shuffled[by_length].view(self.num_steps, self.batch_size)[torch.randperm(self.num_steps, generator=random)]


class TokenLoader:
    """Batches of one split in the order given; Lightning tells `sampler` the epoch and saves where it stands."""

    def __init__(self, subwords: Subwords, order: TrainOrder | EvalOrder) -> None:
        self.subwords, self.sampler = subwords, order
        self.batch_sampler = None  # Lightning looks here, too

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TokenBatch]:
        return map(self.subwords.batch, self.sampler)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict() if isinstance(self.sampler, TrainOrder) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if isinstance(self.sampler, TrainOrder):
            self.sampler.load_state_dict(state)


class TokenDataModule(DataModule):
    """A data set of tagged sentences; a subclass says where they come from: `read`, and `prepare` where they must be fetched.

    Labels are O and, for every type in the training split, B- and I-. Where `spec` is set beforehand, as for a restored model,
    its labels and its tokenizer are taken. Conll2003 tells what the arguments mean.
    """

    spec_type = TokenSpec

    def __init__(
        self,
        *,
        root: str | None,
        tokenizer: str | None,
        vocab_size: int,
        max_length: int,
        batch_size: int,
        eval_batch_size: int,
        max_batch_per_device: int | None,
        seed: int,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        least = {"vocab_size": (vocab_size, 1), "max_length": (max_length, 3), "eval_batch_size": (eval_batch_size, 1)}
        for name, (value, minimum) in least.items():
            if value < minimum:
                raise InputError(f"data.{name}={value} must be {minimum} or more")
        self.tokenizer, self.vocab_size, self.max_length = tokenizer, vocab_size, max_length
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
    def _own_spec(self) -> TokenSpec:
        train = self.sentences("train")
        labels = find_labels(train)
        if self.tokenizer is None:
            words = chain.from_iterable(sentence.words for sentence in train)
            tokenizer, pad_id = train_wordpiece(words, vocab_size=self.vocab_size), 0
        else:
            tokenizer, pad_id = load_tokenizer(self.tokenizer, max_length=self.max_length)
        text, size = tokenizer.to_str(), 1 + max(tokenizer.get_vocab().values())
        return TokenSpec(labels=labels, tokenizer=text, vocab_size=size, pad_id=pad_id, max_length=self.max_length)

    def _known_spec(self, split: str) -> TokenSpec:
        """The spec that holds for this split, whose labels are all among the spec's."""
        spec = self._own_spec if self.spec is None else self.spec
        if not isinstance(spec, TokenSpec):
            raise InputError("the model was built for images and this data set is text; take the data that it was trained on")
        check_labels(self.sentences(split), spec.labels)
        return spec

    def prepare(self) -> None:
        for split in SPLITS:
            self._known_spec(split)

    def load(self, part: str) -> None:
        for split in ("train", "val") if part == "fit" else ("test",):
            self.spec = self._known_spec(split)
            self._subwords[split] = Subwords(self.sentences(split), self.spec)

    @property
    def num_train(self) -> int:
        return len(self.sentences("train"))

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(subwords) for split, subwords in self._subwords.items()}

    def examples(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        sentences = self.sentences(split)
        return [{"words": list(sentences[row].words)} for row in rows]

    def portrait(self) -> dict[str, Any]:
        pairs = {split: [(sentence.words, sentence.tags) for sentence in self.sentences(split)] for split in self._subwords}
        return portrait_of_sentences(pairs)

    def train_dataloader(self) -> TokenLoader:
        train = self._subwords["train"].to(self.device)
        order = BucketOrder(train.lengths, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        return TokenLoader(train, order)

    def val_dataloader(self) -> TokenLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> TokenLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> TokenLoader:
        subwords = self._subwords[split].to(self.device)
        by_length = torch.argsort(subwords.lengths, stable=True)
        return TokenLoader(subwords, EvalOrder(by_length, self.eval_batch_size, shard=self.eval_shard))
