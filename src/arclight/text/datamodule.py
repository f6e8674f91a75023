"""Data modules of tagged text: their options, data info and dataloaders."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from arclight.data.datamodule import DataModule, check_minimum
from arclight.data.fingerprint import hash_of
from arclight.data.samplers import EvalSampler, TrainSampler
from arclight.errors import InputError
from arclight.interfaces import PreflightContext
from arclight.text.inference.perturbations import PERTURBATIONS, perturb_sentences
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.packing import BucketSampler, EvenSampler, Shape, TextSampler
from arclight.text.pretrained import TOKENIZER_FILES, check_directory
from arclight.text.previews import summarize_sentences
from arclight.text.sentences import Sentence, check_labels, count_entities, find_labels, without_unknown
from arclight.text.subwords import Subwords
from arclight.text.tokenizer import load_tokenizer, train_wordpiece

SPLITS = ("train", "val", "test")
MAX_VOCAB_SIZE = 1_000_000  # tokenizers reserves memory for all of it

Packing = Literal["none", "buckets", "rows", "fixed"]
Context = Literal["sentence", "document"]
UnknownLabels = Literal["error", "drop", "add"]

log = logging.getLogger(__name__)


class TokenLoader:
    """Iterates over the batches of one split that a sampler selects; Lightning calls its `set_epoch`."""

    def __init__(
        self,
        subwords: Subwords,
        sampler: TrainSampler | EvalSampler,
        *,
        tokens_per_row: int | None = None,
        shape: Shape | None = None,
    ) -> None:
        self.subwords, self.sampler, self.tokens_per_row, self.shape = subwords, sampler, tokens_per_row, shape
        self.batch_sampler = None  # Lightning reads this, too

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TokenBatch]:
        return (self.subwords.batch(rows, self.tokens_per_row, self.shape) for rows in self.sampler)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)


class TokenDataModule(DataModule):
    """Base class of data sets of tagged sentences. A subclass implements `read`, and extends `prepare` to download.

    Labels are O and, for every entity type in the training split, B- and I-. Where `data_info` is set beforehand, as for a
    restored model, its labels and tokenizer are used.

    Args:
        root: directory of the data; None for synthetic data.
        tokenizer: name on the Hugging Face hub, or directory, of the encoder; None trains a vocabulary on the training words.
        tokenizer_revision: commit, tag or branch of that name; None is the newest.
        vocab_size: most subwords of a trained vocabulary.
        max_length: most subwords of a text, special ones included.
        batch_size: global batch size: sentences (or windows) per optimizer step.
        eval_batch_size: sentences per process and batch in validation and test.
        max_batch_per_device: largest micro-batch of one process; None is no limit.
        seed: of shuffling.
        packing: of training batches; validation and test always use "buckets". "none": padded as shuffled. "buckets": sentences
            of similar length. "rows": several sentences in each row of `tokens_per_row`, attending only to themselves. "fixed":
            such rows in one shape for all steps; each sentence is in every epoch, so that a batch may be incomplete.
        tokens_per_row: most subwords of such a row.
        context: "sentence", or "document": a text is a window of consecutive sentences that fit `max_length`, each scored once;
            batches then count windows.
        unknown_labels: what happens to entity types that only validation or test have. "error" lists them, "drop" counts them
            as O, "add" adds them to the labels.
    """

    info_type = TokenInfo

    @classmethod
    def has_fixed_shapes(cls, settings: Mapping[str, Any]) -> bool:
        """Returns whether batches are packed into rows of one shape."""
        return settings.get("packing") == "fixed"

    @classmethod
    def preflight(cls, settings: Mapping[str, Any], context: PreflightContext) -> Iterator[InputError]:
        """Yields an error for a tokenizer's directory that is missing or incomplete, unless the net reports the same one."""
        tokenizer = settings.get("tokenizer")
        if isinstance(tokenizer, str):
            is_reported = tokenizer == context.config["model"].get("checkpoint") and not Path(tokenizer).expanduser().is_dir()
            yield from () if is_reported else check_directory("data.tokenizer", tokenizer, TOKENIZER_FILES)

    def __init__(
        self,
        *,
        root: str | None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        vocab_size: int = 8000,
        max_length: int = 256,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        max_batch_per_device: int | None = None,
        seed: int = 0,
        packing: Packing = "buckets",
        tokens_per_row: int = 256,
        context: Context = "sentence",
        unknown_labels: UnknownLabels = "error",
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        check_minimum(1, {"vocab_size": vocab_size, "eval_batch_size": eval_batch_size})
        if vocab_size > MAX_VOCAB_SIZE:
            raise InputError(f"data.vocab_size={vocab_size} must be {MAX_VOCAB_SIZE} or less", key="data.vocab_size")
        check_minimum(3, {"max_length": max_length})
        for name, choice, known in (
            ("packing", packing, get_args(Packing)),
            ("context", context, get_args(Context)),
            ("unknown_labels", unknown_labels, get_args(UnknownLabels)),
        ):
            if choice not in known:
                raise InputError(f"data.{name}={choice} must be one of {', '.join(known)}", key=f"data.{name}")
        if packing in ("rows", "fixed") and tokens_per_row < max_length:
            raise InputError(
                f"data.tokens_per_row={tokens_per_row} is less than data.max_length={max_length}; set "
                f"data.tokens_per_row={max_length} or more, or a shorter data.max_length",
                key="data.tokens_per_row",
            )
        self.packing, self.tokens_per_row, self.context = packing, tokens_per_row, context
        self.unknown_labels: UnknownLabels = unknown_labels
        self.tokenizer, self.vocab_size, self.max_length = tokenizer, vocab_size, max_length
        self.tokenizer_revision = tokenizer_revision
        self.eval_batch_size = min(eval_batch_size, max_batch_per_device or eval_batch_size)
        self._sentences: dict[str, list[Sentence]] = {}
        self._subwords: dict[str, Subwords] = {}
        self._perturbation: tuple[str, float] | None = None

    @abstractmethod
    def read(self, split: str) -> list[Sentence]:
        """Returns the sentences of "train", "val" or "test", with tags in IOB2."""

    def sentences(self, split: str) -> list[Sentence]:
        """Returns the sentences of "train", "val" or "test" by row, read once."""
        if split not in self._sentences:
            self._sentences[split] = self.read(split)
        return self._sentences[split]

    @cached_property
    def _new_data_info(self) -> TokenInfo:
        train = self.sentences("train")
        find_labels(train)  # raises where there is no entity to learn from
        of_splits = SPLITS if self.unknown_labels == "add" else ("train",)
        labels = find_labels([sentence for split in of_splits for sentence in self.sentences(split)])
        if self.tokenizer is None:
            words = chain.from_iterable(sentence.words for sentence in train)
            tokenizer, pad_id = train_wordpiece(words, vocab_size=self.vocab_size), 0
        else:
            tokenizer, pad_id = load_tokenizer(self.tokenizer, max_length=self.max_length, revision=self.tokenizer_revision)
        text, size = tokenizer.to_str(), 1 + max(tokenizer.get_vocab().values())
        return TokenInfo(labels=labels, tokenizer=text, vocab_size=size, pad_id=pad_id, max_length=self.max_length)

    def _given_data_info(self, split: str) -> TokenInfo:
        """Returns the data info for this split, after checking that it has the split's labels."""
        data_info = self._new_data_info if self.data_info is None else self.data_info
        if not isinstance(data_info, TokenInfo):
            raise InputError(f"the model was not trained on tagged text, but {type(self).__name__} holds tagged text")
        if self.unknown_labels == "drop":
            known = without_unknown(self.sentences(split), data_info.labels)
            num_dropped = count_entities(self.sentences(split)) - count_entities(known)
            if num_dropped:
                log.warning("%d entities of types that do not occur in training count as O in %s", num_dropped, split)
            self._sentences[split] = known
        check_labels(self.sentences(split), data_info.labels)
        return data_info

    def prepare(self) -> None:
        for split in filter(self.needs, SPLITS):
            self._given_data_info(split)
            if not count_entities(self.sentences(split)):
                log.warning("the %s split holds no entity: an F1 of 0 there says nothing", split)

    def load(self, part: str) -> None:
        for split in filter(self.needs, ("train", "val") if part == "fit" else ("test",)):
            self.data_info = self._given_data_info(split)
            self._subwords[split] = Subwords(self.sentences(split), self.data_info, in_windows=self.context == "document")

    @property
    def num_train(self) -> int:
        """Texts in the training split: sentences, or windows once they are loaded."""
        loaded = self._subwords.get("train")
        return len(self.sentences("train")) if loaded is None else len(loaded)

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(subwords.num_words) for split, subwords in self._subwords.items()}

    def fingerprint(self) -> str:
        return hash_of((sentence.words, sentence.tags) for sentence in self.sentences("train"))

    def previews(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        sentences = self.sentences(split)
        return [{"words": list(sentences[row].words)} for row in rows]

    def sample_fields(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        return self.previews(split, rows)

    def dataset_summary(self) -> dict[str, Any]:
        pairs = {split: [(sentence.words, sentence.tags) for sentence in self.sentences(split)] for split in self._subwords}
        return summarize_sentences(pairs)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_train // self.batch_size) if self.packing == "fixed" else super().steps_per_epoch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # the loader yields batches that are on the device already

    def train_dataloader(self) -> TokenLoader:
        train = self._subwords["train"].to(self.device)
        make_sampler = {"buckets": BucketSampler, "fixed": EvenSampler}.get(self.packing, TextSampler)
        sampler = make_sampler(train.lengths, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        capacity = self.tokens_per_row if self.packing in ("rows", "fixed") else None
        shape = sampler.shape(self.tokens_per_row) if isinstance(sampler, EvenSampler) else None
        return TokenLoader(train, sampler, tokens_per_row=capacity, shape=shape)

    def val_dataloader(self) -> TokenLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> TokenLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> TokenLoader:
        subwords = self._subwords[split]
        if self._perturbation is not None:
            changed = perturb_sentences(self.sentences(split), *self._perturbation)
            subwords = Subwords(changed, self._given_data_info(split), in_windows=self.context == "document")
        subwords = subwords.to(self.device)
        by_length = torch.argsort(subwords.lengths, stable=True)
        return TokenLoader(subwords, EvalSampler(by_length, self.eval_batch_size, shard=self.eval_shard))

    perturbations = PERTURBATIONS

    def perturb(self, kind: str | None, strength: float = 0.0) -> None:
        """Damages the words that validation and test loaders yield from now on; None ends it."""
        self._perturbation = None if kind is None else (kind, strength)
