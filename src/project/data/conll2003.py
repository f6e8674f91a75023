"""CoNLL-2003, English: news with persons, organisations, locations and miscellaneous names; fetched where it is missing.

Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task", https://aclanthology.org/W03-0419
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

from arclight.data.download import fetch
from arclight.errors import InputError
from arclight.text.columns import Sentence, count_entities, in_iob2, read_columns
from arclight.text.datamodule import Context, Packing, TokenDataModule

_log = logging.getLogger(__name__)

FILES = {"train": ("eng.train", "train.txt"), "val": ("eng.testa", "valid.txt"), "test": ("eng.testb", "test.txt")}
SOURCES = (
    "https://raw.githubusercontent.com/synalp/NER/master/corpus/CoNLL-2003",
    "https://raw.githubusercontent.com/ZhixiuYe/HSCRF-pytorch/master/data",
)


class Counts(NamedTuple):
    """What a split holds; the published files are known by it, as copies differ in tag scheme and white space."""

    sentences: int
    entities: int

    def __str__(self) -> str:
        return f"{self.sentences:,} sentences with {self.entities:,} entities"


PUBLISHED = {"train": Counts(14_041, 23_499), "val": Counts(3_250, 5_942), "test": Counts(3_453, 5_648)}


class Conll2003(TokenDataModule):
    """CoNLL-2003's training sentences, testa to validate and testb to test.

    Args:
        root: folder with eng.train, eng.testa and eng.testb, or with train.txt, valid.txt and test.txt; what is missing is
            downloaded there. Tags may be IOB1, as published, or IOB2.
        tokenizer: name on the Hugging Face hub, or folder, of the encoder; None trains a vocabulary on the training words.
        tokenizer_revision: commit, tag or branch of that name; None is as of `model.revision`.
        vocab_size: most subwords of that vocabulary.
        max_length: most subwords of a sentence, special ones included.
        batch_size: sentences per optimizer step, over all processes and accumulated parts.
        eval_batch_size: sentences that one process takes at once in validation and test.
        max_batch_per_device: most sentences that one process takes at once; None is no limit.
        seed: of shuffling.
        packing: "buckets" puts sentences of like length into a batch, "none" pads them as the shuffle has them, "rows" lays
            them side by side in rows of `tokens_per_row`, where none sees another. "fixed" does so with as many rows, as wide,
            in each step: batches of about equally many subwords, and each sentence in every epoch, so that a batch may have
            fewer than `batch_size`. Validation and test have buckets always.
        tokens_per_row: most subwords in such a row.
        context: "document" gives the net neighbouring sentences of a document at once, as many as `max_length` has room for,
            and scores each of them once; batches are then counted in such windows.
        download: False never opens a connection for the data.
    """

    def __init__(
        self,
        root: str,
        *,
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
        download: bool = True,
    ) -> None:
        super().__init__(
            root=root,
            tokenizer=tokenizer,
            tokenizer_revision=tokenizer_revision,
            vocab_size=vocab_size,
            max_length=max_length,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            max_batch_per_device=max_batch_per_device,
            seed=seed,
            packing=packing,
            tokens_per_row=tokens_per_row,
            context=context,
        )
        self.download = download

    def prepare(self) -> None:
        missing = [path for path in self._paths().values() if not path.exists()]
        if missing:
            self._check_place(missing)
            for split, path in self._paths().items():
                urls = [f"{source}/{FILES[split][0]}" for source in SOURCES]
                fetch(urls, path, check=partial(_check_published, split=split))
        super().prepare()
        for split, published in PUBLISHED.items():
            sentences = self.sentences(split)
            counts = Counts(len(sentences), count_entities(sentences))
            if counts != published:
                _log.warning("%s: holds %s; CoNLL-2003 as published has %s", sentences[0].file, counts, published)

    def read(self, split: str) -> list[Sentence]:
        return in_iob2(read_columns(self._paths()[split]))

    def _paths(self) -> dict[str, Path]:
        """The three files, in the naming that most of those at `root` have."""
        assert self.root is not None
        namings = [{split: self.root / names[number] for split, names in FILES.items()} for number in (0, 1)]
        return max(namings, key=lambda paths: sum(path.exists() for path in paths.values()))

    def _check_place(self, missing: list[Path]) -> None:
        """Passes where the missing files may be downloaded to: an empty folder, a new one, one with some of them in it."""
        assert self.root is not None
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"data.root={self.root} is a file; name the folder that holds {_wanted(0)}, or {_wanted(1)}")
        there = sorted(path.name for path in self.root.iterdir() if path.name[0] != ".") if self.root.is_dir() else []
        ours = [name for names in FILES.values() for name in names]
        if there and not any(name.startswith(own) for name in there for own in ours):
            others = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
            raise InputError(
                f"data.root={self.root} holds neither {_wanted(0)} nor {_wanted(1)}, but {others}; "
                f"name the folder that holds them, or a new one to download them to"
            )
        if not self.download:
            names = ", ".join(path.name for path in missing)
            raise InputError(
                f"data.root={self.root} lacks {names}; name the folder that holds all three, or set data.download=true"
            )


def _wanted(naming: int) -> str:
    return ", ".join(names[naming] for names in FILES.values())


def _check_published(file: Path, split: str) -> None:
    """Raises InputError unless the file has what the published one has."""
    sentences = in_iob2(read_columns(file))
    counts = Counts(len(sentences), count_entities(sentences))
    if counts != PUBLISHED[split]:
        raise InputError(f"what came holds {counts} instead of {PUBLISHED[split]}")
