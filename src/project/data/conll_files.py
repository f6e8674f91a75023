"""Your own tagged text: three column files with any labels, columns and separator."""

from __future__ import annotations

from typing import Any

from arclight.errors import InputError, nearest
from arclight.text.columns import Sentence, in_iob2, read_columns
from project.pinned_tokenizer import PinnedTokenizer


class ConllFiles(PinnedTokenizer):
    r"""Sentences from three column files; the labels are those of the training file.

    Tags may be IOB1, IOB2, IOBES or BILOU. Columns are counted from 0, or from the end with -1 and below. The other arguments
    are those of TokenDataModule.

    Args:
        root: directory of the files.
        train: name of the training file.
        validation: name of the validation file.
        test: name of the test file.
        separator: between columns, such as "," or "\t"; None is any run of spaces and tabs.
        word_column: column of the word.
        tag_column: column of its tag.
        encoding: of the three files.
    """

    def __init__(
        self,
        root: str,
        *,
        train: str = "train.txt",
        validation: str = "valid.txt",
        test: str = "test.txt",
        separator: str | None = None,
        word_column: int = 0,
        tag_column: int = -1,
        encoding: str = "utf-8",
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        if separator == "":
            raise InputError(
                "data.separator='' is empty; set what is between columns, or null for spaces and tabs", key="data.separator"
            )
        self.separator = separator and separator.replace("\\t", "\t")  # unquoted, YAML reads two characters
        self.word_column = word_column
        self.tag_column = tag_column
        self.encoding = encoding
        self.files = {"train": train, "validation": validation, "test": test}

    def prepare(self) -> None:
        assert self.root is not None
        if not self.root.is_dir():
            raise InputError(f"data.root={self.root}: no such directory", key="data.root")
        existing = [path.name for path in self.root.iterdir() if path.is_file()]
        errors = [
            f"data.{key}={name}: no such file in {self.root}. {nearest(name, existing) if existing else 'It holds no file.'}"
            for key, name in self.files.items()
            if not (self.root / name).is_file()
        ]
        if errors:
            raise InputError("\n".join(errors))
        super().prepare()

    def read(self, split: str) -> list[Sentence]:
        assert self.root is not None
        path = self.root / self.files["validation" if split == "val" else split]
        columns = read_columns(
            path,
            separator=self.separator,
            word_column=self.word_column,
            tag_column=self.tag_column,
            encoding=self.encoding,
        )
        return in_iob2(columns)
