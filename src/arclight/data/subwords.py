"""Words -> subwords -> batches on the device: what every data set of tagged text here shares."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from arclight.data.columns import Sentence, check_labels, find_labels
from arclight.data.datamodule import DataModule
from arclight.data.order import EvalOrder, Rows, Shard, TrainOrder, generator
from arclight.errors import InputError
from arclight.spec import IGNORED, TokenBatch, TokenSpec

SPLITS = ("train", "val", "test")
UNKNOWN = "[UNK]"
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]")  # the first ids of a vocabulary that is trained here
HUB_TIMEOUT_S = 10
WINDOW = 50  # batches whose sentences are sorted by length together; more would pad less and shuffle less

_log = logging.getLogger(__name__)


def load_tokenizer(name_or_folder: str, *, max_length: int) -> tuple[Tokenizer, int]:
    """A pretrained encoder's tokenizer and its padding id, from a folder, the local cache or the Hugging Face hub.

    It cuts and pads nothing, and takes each word as one that follows a space, which byte-level vocabularies such as RoBERTa's
    tell apart. No code that comes with a model is run.

    Raises:
        InputError: when there is no such encoder, the hub does not answer, the tokenizer is not one of the tokenizers
            library, or `max_length` is more than the encoder takes.
    """
    loaded = _from_transformers(name_or_folder)
    most = loaded.model_max_length  # a huge number where the encoder does not tell
    if max_length > most:
        raise InputError(
            f"data.max_length={max_length} is more than {name_or_folder} takes; take data.max_length={most} or less"
        )
    tokenizer: Tokenizer = loaded.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if '"add_prefix_space": false' in json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"]):
        space = normalizers.Prepend(" ")
        tokenizer.normalizer = normalizers.Sequence([space, tokenizer.normalizer]) if tokenizer.normalizer else space
    return tokenizer, loaded.pad_token_id or 0  # without one any id does, as nothing attends to padding


def train_wordpiece(words: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """A cased WordPiece vocabulary learned from these words, in BERT's form: [PAD] is 0, a sentence is [CLS] ... [SEP].

    Every letter gets an id at the start and inside of words, so only letters not seen here become [UNK]. The same words give
    the same ids in every process.

    Raises:
        InputError: when `vocab_size` is too small to hold the letters.
    """
    words = list(words)
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    letters = sorted(set(normalizer.normalize_str("".join(sorted(set(chain.from_iterable(words)))))) - {" "})
    # left to the trainer, the ids of inner letters would follow a hash map's order, another one in each process
    given = [*SPECIAL, *(f"##{letter}" for letter in letters)]
    least = len(given) + len(letters)
    if vocab_size < least:
        raise InputError(f"data.vocab_size={vocab_size} does not hold {len(letters)} letters of the text; take {least} or more")
    learner = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer: Any = trainers.WordPieceTrainer  # it carries no types
    options = {"vocab_size": vocab_size, "special_tokens": given, "initial_alphabet": letters, "show_progress": False}
    learner.train_from_iterator(words, trainer(**options))
    # a new one, because all that was given beforehand counts as a special token in the learner
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    ends = [(piece, SPECIAL.index(piece)) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _from_transformers(name_or_folder: str) -> Any:
    """A transformers tokenizer, looked for on this machine first: the hub is asked only for what is not here."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    what = f"data.tokenizer={name_or_folder}"
    folder = Path(name_or_folder).expanduser()
    is_folder = folder.is_dir()
    if not is_folder and (name_or_folder.startswith((".", "/", "~")) or name_or_folder.count("/") > 1):
        raise InputError(f"{what}: no such folder")
    try:
        return _auto_tokenizer(str(folder) if is_folder else name_or_folder, local_files_only=True)
    except Exception as error:  # of any class: transformers and tokenizers pass on whatever they meet
        if is_folder:
            raise InputError(f"{what}: no tokenizer can be read from this folder: {_first_line(error)}") from None
    try:
        # one request first, because from_pretrained tries for a minute where there is no network
        HfApi().model_info(name_or_folder, timeout=HUB_TIMEOUT_S)
        return _auto_tokenizer(name_or_folder, local_files_only=False)
    except RepositoryNotFoundError:
        raise InputError(f"{what}: no folder here and no public model on the Hugging Face hub has this name") from None
    except Exception as error:
        raise InputError(
            f"{what}: neither on this machine nor to be had from the Hugging Face hub: {_first_line(error)}. "
            f"Without network, give the folder of a copy; data.tokenizer=null trains a vocabulary on the spot"
        ) from None


def _auto_tokenizer(name: str, *, local_files_only: bool) -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only, trust_remote_code=False)
    # without vocabulary files transformers 5 makes a tokenizer of nothing but special tokens
    if not getattr(found, "is_fast", False) or len(found) <= len(found.all_special_tokens):
        raise ValueError("it has no tokenizer.json, and none can be made of its files")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


class Subwords:
    """One split as flat tensors, cut into subwords once; batches are gathered from them on the device.

    A word's label stands on its first subword. A word may have no subword: it stands beyond `spec.max_length` (`num_cut`, told
    in the log) or consists of characters that the tokenizer drops (`num_empty`). It keeps its gold label in `word_labels` and
    has -1 in `word_starts`.
    """

    def __init__(self, sentences: Sequence[Sentence], spec: TokenSpec) -> None:
        tokenizer = Tokenizer.from_str(spec.tokenizer)
        tokenizer.enable_truncation(spec.max_length)  # keeps the special tokens at both ends
        encodings = tokenizer.encode_batch([list(sentence.words) for sentence in sentences], is_pretokenized=True)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        num_words = np.array([len(sentence.words) for sentence in sentences])
        offsets, word_offsets = np.cumsum(lengths) - lengths, np.cumsum(num_words) - num_words

        row = np.repeat(np.arange(len(sentences)), lengths)  # of each subword
        inner = np.fromiter((-1 if w is None else w for encoding in encodings for w in encoding.word_ids), np.int64)
        word = np.where(inner >= 0, word_offsets[row] + inner, -1)  # counted through the whole split
        first = (word >= 0) & (word != np.concatenate([[-1], word[:-1]]))
        word_starts = np.full(num_words.sum(), -1)
        word_starts[word[first]] = (np.arange(len(row)) - offsets[row])[first]
        number = {label: n for n, label in enumerate(spec.labels)}
        word_labels = np.array([number[tag] for sentence in sentences for tag in sentence.tags])
        labels = np.full(len(row), IGNORED)
        labels[first] = word_labels[word[first]]
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)

        self.lengths = torch.from_numpy(lengths)  # on the host, where the shape of a batch is worked out
        self.num_words = torch.from_numpy(num_words)
        self.num_labelled = torch.from_numpy(np.bincount(row[first], minlength=len(sentences)))
        self._ids, self._labels = _after(spec.pad_id, ids), _after(IGNORED, labels)
        self._word_starts, self._word_labels = _after(-1, word_starts), _after(IGNORED, word_labels)
        self._places = torch.from_numpy(np.stack([offsets + 1, lengths, word_offsets + 1, num_words], axis=1))
        self.num_cut = sum(_num_cut(encoding, num) for encoding, num in zip(encodings, num_words.tolist(), strict=True))
        self.num_empty = int((word_starts < 0).sum()) - self.num_cut
        if self.num_cut:
            counts = (self.num_cut, len(word_starts), spec.max_length)
            _log.warning("%d of %d words stand beyond data.max_length=%d subwords and count as predicted O", *counts)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> Subwords:
        """Itself, with all that batches are gathered from on this device."""
        for name in ("_ids", "_labels", "_word_starts", "_word_labels", "_places"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def batch(self, rows: Rows) -> TokenBatch:
        """These rows, padded to the longest of them; nothing here waits for the device.

        A row that only fills the batch (index -1) is all padding, but attends to its first position: one that attends to
        nothing would come out of the softmax as NaN.
        """
        real = rows.indices[rows.indices >= 0]
        whole = rows.whole[rows.whole >= 0]
        num_parts = len(rows.whole) / len(rows.indices)
        longest, most_words = (int(counts[real].max()) if len(real) else 1 for counts in (self.lengths, self.num_words))
        indices = rows.indices.to(self._places.device, non_blocking=True)
        places = self._places[indices.clamp(min=0)] * (indices >= 0)[:, None]  # (B, 4)
        offset, length, word_offset, num_words = places[:, :, None].unbind(1)  # (B, 1) each
        position = torch.arange(max(1, longest), device=indices.device)
        word = torch.arange(most_words, device=indices.device)
        at = torch.where(position < length, offset + position, 0)  # (B, T)
        word_at = torch.where(word < num_words, word_offset + word, 0)  # (B, W)
        return TokenBatch(
            input_ids=self._ids[at],
            attention_mask=(position < length.clamp(min=1)).long(),
            labels=self._labels[at],
            word_starts=self._word_starts[word_at],
            word_labels=self._word_labels[word_at],
            indices=indices,
            num_tokens=int(self.lengths[real].sum()),
            num_labelled=int(self.num_labelled[whole].sum()) / num_parts,
        )


def _after(padding: int, values: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """The values with what stands for padding at index 0, so that padding is gathered like everything else."""
    return torch.from_numpy(np.concatenate([[padding], values]))


def _num_cut(encoding: Any, num_words: int) -> int:
    """Words after the last one that truncation left a piece of."""
    if not encoding.overflowing:
        return 0
    return num_words - 1 - max((word for word in encoding.word_ids if word is not None), default=-1)


class BucketOrder(TrainOrder):
    """Shuffled anew each epoch, with sentences of like length in each batch so that little is padding.

    The shuffled sentences are taken in windows of 50 batches, sorted by length inside each, cut, and the batches shuffled.
    """

    def __init__(self, lengths: Tensor, batch_size: int, *, seed: int, shard: Shard | None = None) -> None:
        super().__init__(len(lengths), batch_size, seed=seed, shard=shard)
        self.lengths = lengths

    def batches(self) -> Tensor:
        """The global batches of this epoch, int64 (num_steps, batch_size)."""
        random = generator(self.seed, self.epoch)
        shuffled = torch.randperm(self.num_samples, generator=random)[: self.num_steps * self.batch_size]
        windows = torch.arange(len(shuffled)) // (WINDOW * self.batch_size)
        by_length = torch.argsort(windows * (int(self.lengths.max()) + 1) + self.lengths[shuffled], stable=True)
        return shuffled[by_length].view(self.num_steps, self.batch_size)[torch.randperm(self.num_steps, generator=random)]


class TokenLoader:
    """Batches of one split in the order given; Lightning tells `sampler` the epoch and saves where it stands."""

    def __init__(self, subwords: Subwords, order: TrainOrder | EvalOrder) -> None:
        self.subwords = subwords
        self.sampler = order
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
    its labels and its tokenizer are taken.

    Args:
        root: as in DataModule.
        tokenizer: name on the Hugging Face hub, or folder, of the encoder whose subwords are wanted; None trains a WordPiece
            vocabulary of `vocab_size` on the words of the training split.
        vocab_size: most subwords of that vocabulary; not used with a `tokenizer`.
        max_length: most subwords of a sentence, special ones included; words beyond count as predicted O.
        batch_size: as in DataModule.
        eval_batch_size: sentences that one process takes at once in validation and test.
        max_batch_per_device: as in DataModule.
        seed: as in DataModule.
    """

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
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.max_length = max_length
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
        if labels == ("O",):
            raise InputError(f"{train[0].file}: holds no entity to learn from, every tag is O; is it the right column?")
        if self.tokenizer is None:
            words = chain.from_iterable(sentence.words for sentence in train)
            tokenizer, pad_id = train_wordpiece(words, vocab_size=self.vocab_size), 0
        else:
            tokenizer, pad_id = load_tokenizer(self.tokenizer, max_length=self.max_length)
        vocab_size = 1 + max(tokenizer.get_vocab().values())
        json_text = tokenizer.to_str()
        return TokenSpec(labels=labels, tokenizer=json_text, vocab_size=vocab_size, pad_id=pad_id, max_length=self.max_length)

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

    def train_dataloader(self) -> TokenLoader:
        train = self._subwords["train"].to(self.device)
        return TokenLoader(train, BucketOrder(train.lengths, self.batch_size, seed=self.seed, shard=self.shard))

    def val_dataloader(self) -> TokenLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> TokenLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> TokenLoader:
        subwords = self._subwords[split].to(self.device)
        by_length = torch.argsort(subwords.lengths, stable=True)
        return TokenLoader(subwords, EvalOrder(by_length, self.eval_batch_size, shard=self.eval_shard))
