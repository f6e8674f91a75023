"""Your own tagged text: column files or JSON lines with any labels, columns and separator."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from arclight.data.splits import split as split_rows
from arclight.errors import InputError, nearest
from arclight.text.columns import read_columns
from arclight.text.sentences import Sentence
from arclight.text.tag_schemes import in_iob2
from project.pinned_tokenizer import PinnedTokenizer

MAX_FILES = 10_000  # of a split


class ConllFiles(PinnedTokenizer):
    r"""Sentences from files of a training, a validation and a test split; the labels are those of training.

    Tags may be IOB1, IOB2, IOBES, BILOU or BMES, in several spellings, or bare types. Columns are counted from 0, or from the
    end with -1 and below. The other arguments are those of TokenDataModule.

    Args:
        root: directory of the files.
        train: name of the training file, a pattern such as `train/*.conll`, or a list of them. Each file begins a document.
        validation: the same of validation; None draws `holdout` of the training sentences.
        test: the same of test; None draws `holdout` of the training sentences.
        holdout: fraction of the training sentences that a split without files gets; with `context: document`, of the documents.
        split_seed: selects them, independent of `seed`.
        separator: between columns, such as "," (with the quotes of CSV) or "\t"; None is a tab where all lines have one, else
            any run of spaces and tabs.
        word_column: column of the word.
        tag_column: column of its tag.
        sentence_column: column of a sentence's number or name, for files without blank lines between sentences.
        id_column: column of a word's number; lines with a range such as 3-4 are left out (CoNLL-U).
        comment: how a line begins that is a comment, such as "#".
        encoding: of the files.
    """

    def __init__(
        self,
        root: str,
        *,
        train: str | list[str] = "train.txt",
        validation: str | list[str] | None = "valid.txt",
        test: str | list[str] | None = "test.txt",
        holdout: float = 0.1,
        split_seed: int = 0,
        separator: str | None = None,
        word_column: int = 0,
        tag_column: int = -1,
        sentence_column: int | None = None,
        id_column: int | None = None,
        comment: str | None = None,
        encoding: str = "utf-8",
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        for name, value in (("separator", separator), ("comment", comment)):
            if value == "":
                raise InputError(f"data.{name}='' is empty; set the characters, or null", key=f"data.{name}")
        if not 0 < holdout < 0.5:
            raise InputError(f"data.holdout={holdout} must be more than 0 and below 0.5", key="data.holdout")
        self.separator = separator and separator.replace("\\t", "\t")  # unquoted, YAML reads two characters
        self.word_column, self.tag_column = word_column, tag_column
        self.sentence_column, self.id_column, self.comment = sentence_column, id_column, comment
        self.encoding, self.holdout, self.split_seed = encoding, holdout, split_seed
        names = {"train": train, "validation": validation, "test": test}
        self.files = {key: [value] if isinstance(value, str) else value for key, value in names.items()}

    def prepare(self) -> None:
        assert self.root is not None
        if not self.root.is_dir():
            raise InputError(f"data.root={self.root}: no such directory", key="data.root")
        errors = [
            self._missing(key, name)
            for key, names in self._needed_files.items()
            for name in ([] if names is None else names or ["[]"])
            if not self._paths(name)
        ]
        if errors:
            raise InputError("\n".join(errors))
        super().prepare()

    @property
    def _needed_files(self) -> dict[str, list[str] | None]:
        """The files of each split that is used, and those that it is drawn from."""
        needed = {key for key in self.files if self.needs("val" if key == "validation" else key)}
        return {key: names for key, names in self.files.items() if key in needed or (key == "train" and self._is_drawn(needed))}

    def _is_drawn(self, keys: Iterable[str]) -> bool:
        return any(self.files[key] is None for key in keys)

    def _missing(self, key: str, name: str) -> str:
        """Returns the message about a file that is not there; files of other splits are not suggested."""
        assert self.root is not None
        used = {other for names in self.files.values() for other in names or ()}
        existing = sorted(path.name for path in self.root.iterdir() if path.is_file() and path.name not in used)
        draw = "" if key == "train" else f" data.{key}=null draws it from the training file."
        found = nearest(name, existing) if existing else "It holds no other file."
        return f"data.{key}={name}: no such file in {self.root}. {found}{draw}"

    def _paths(self, name: str) -> list[Path]:
        """Returns the files of a name or pattern."""
        assert self.root is not None
        if (self.root / name).is_file():
            return [self.root / name]
        if "*" not in name or Path(name).is_absolute():
            return []
        return sorted(path for path in self.root.glob(name) if path.is_file())[:MAX_FILES]

    @functools.cached_property
    def _training_files(self) -> list[Sentence]:
        """The sentences that splits are drawn from."""
        assert self.files["train"] is not None
        return self._read_files(self.files["train"])

    def read(self, split: str) -> list[Sentence]:
        names = self.files["validation" if split == "val" else split]
        drawn = [key for key in ("validation", "test") if self.files[key] is None]
        if names is not None and (split != "train" or not drawn):
            return self._read_files(names)
        whole = self._training_files
        if self.is_other_data:
            return whole
        rest = list(range(len(whole)))
        for key in drawn:  # in the same order for each split
            rest, held_out = self._draw(whole, rest, key)
            if key == ("validation" if split == "val" else split):
                return [whole[row] for row in held_out]
        return [whole[row] for row in rest]

    def _draw(self, sentences: Sequence[Sentence], rows: Sequence[int], key: str) -> tuple[list[int], list[int]]:
        """Returns those of the rows that stay in training, and those that are held out."""
        unit = {row: sentences[row].document if self.context == "document" else row for row in rows}
        units = sorted(set(unit.values()))
        _, held_out = split_rows(len(units), self.holdout, self.split_seed + (key == "test"), name="data.holdout")
        chosen = {units[number] for number in held_out.tolist()}
        return [row for row in rows if unit[row] not in chosen], [row for row in rows if unit[row] in chosen]

    def _read_files(self, names: Sequence[str]) -> list[Sentence]:
        found: list[Sentence] = []
        for path in [path for name in names for path in self._paths(name)]:
            sentences = in_iob2(
                read_columns(
                    path,
                    separator=self.separator,
                    word_column=self.word_column,
                    tag_column=self.tag_column,
                    encoding=self.encoding,
                    comment=self.comment,
                    sentence_column=self.sentence_column,
                    id_column=self.id_column,
                )
            )
            documents = found[-1].document + 1 if found else 0
            found += [sentence._replace(document=sentence.document + documents) for sentence in sentences]
        return found
