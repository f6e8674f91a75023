"""CoNLL-2003, English: news with persons, organisations, locations and miscellaneous names; downloaded where missing.

Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task", https://aclanthology.org/W03-0419
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from arclight.data.download import fetch
from arclight.errors import InputError
from arclight.text.columns import read_columns
from arclight.text.sentences import Sentence, count_entities
from arclight.text.tag_schemes import in_iob2
from project.pinned_tokenizer import PinnedTokenizer

_log = logging.getLogger(__name__)

FILES = {"train": ("eng.train", "train.txt"), "val": ("eng.testa", "valid.txt"), "test": ("eng.testb", "test.txt")}
SOURCES = (
    "https://raw.githubusercontent.com/synalp/NER/master/corpus/CoNLL-2003",
    "https://raw.githubusercontent.com/ZhixiuYe/HSCRF-pytorch/master/data",
)


class Counts(NamedTuple):
    """Size of a split, by which the published files are recognized, as copies differ in tag scheme and white space."""

    sentences: int
    entities: int

    def __str__(self) -> str:
        return f"{self.sentences:,} sentences with {self.entities:,} entities"


PUBLISHED = {"train": Counts(14_041, 23_499), "val": Counts(3_250, 5_942), "test": Counts(3_453, 5_648)}


class Conll2003(PinnedTokenizer):
    """CoNLL-2003: eng.train to train, eng.testa to validate and eng.testb to test.

    The arguments not listed here are those of TokenDataModule.

    Args:
        root: directory with eng.train, eng.testa and eng.testb, or with train.txt, valid.txt and test.txt; missing files are
            downloaded there. Tags may be IOB1, as published, or IOB2.
        download: False never downloads the data.
    """

    def __init__(self, root: str, *, download: bool = True, **options: Any) -> None:
        super().__init__(root=root, **options)
        self.download = download

    def prepare(self) -> None:
        missing = [path for split, path in self._paths().items() if self.needs(split) and not path.exists()]
        if missing:
            self._check_root(missing)
            for split, path in self._paths().items():
                if not self.needs(split):
                    continue
                urls = [f"{source}/{FILES[split][0]}" for source in SOURCES]
                fetch(urls, path, check=partial(_check_published, split=split))
        super().prepare()
        for split, published in PUBLISHED.items():
            if not self.needs(split):
                continue
            sentences = self.sentences(split)
            counts = Counts(len(sentences), count_entities(sentences))
            if counts != published:
                _log.warning("%s: holds %s; CoNLL-2003 as published has %s", sentences[0].file, counts, published)

    def read(self, split: str) -> list[Sentence]:
        return in_iob2(read_columns(self._paths()[split]))

    def _paths(self) -> dict[str, Path]:
        """Returns the three files, under the names that most files at `root` have."""
        assert self.root is not None
        namings = [{split: self.root / names[number] for split, names in FILES.items()} for number in (0, 1)]
        return max(namings, key=lambda paths: sum(path.exists() for path in paths.values()))

    def _check_root(self, missing: list[Path]) -> None:
        """Raises InputError unless missing files may be downloaded to `root`: it must be new, empty or hold some of them."""
        assert self.root is not None
        if self.root.exists() and not self.root.is_dir():
            raise InputError(
                f"data.root={self.root} is a file; set the directory of {_file_names(0)}, or {_file_names(1)}", key="data.root"
            )
        existing = sorted(path.name for path in self.root.iterdir() if path.name[0] != ".") if self.root.is_dir() else []
        ours = [name for names in FILES.values() for name in names]
        if existing and not any(name.startswith(own) for name in existing for own in ours):
            others = ", ".join(existing[:8]) + (f" and {len(existing) - 8} more" if len(existing) > 8 else "")
            raise InputError(
                f"data.root={self.root} holds neither {_file_names(0)} nor {_file_names(1)}, but {others}; "
                f"set the directory that holds them, or a new one to download them to",
                key="data.root",
            )
        if not self.download:
            names = ", ".join(path.name for path in missing)
            raise InputError(
                f"data.root={self.root}: {names} missing; set the directory that holds all three, or data.download=true",
                key="data.root",
            )


def _file_names(naming: int) -> str:
    return ", ".join(names[naming] for names in FILES.values())


def _check_published(file: Path, split: str) -> None:
    """Raises InputError unless the file has what the published one has."""
    sentences = in_iob2(read_columns(file))
    counts = Counts(len(sentences), count_entities(sentences))
    if counts != PUBLISHED[split]:
        raise InputError(f"the download holds {counts} instead of {PUBLISHED[split]}")
