"""Your own tagged text: three column files with any labels, in the columns and with the separator that you name."""

from __future__ import annotations

from arclight.errors import InputError, nearest
from arclight.text.columns import Sentence, in_iob2, read_columns
from arclight.text.datamodule import Context, Packing, TokenDataModule


class ConllFiles(TokenDataModule):
    r"""Sentences from three column files; the labels are those of the training file.

    Tags may be IOB1, IOB2, IOBES or BILOU. Columns are counted from 0, or from the end with -1 and below.

    Args:
        root: folder that holds the files.
        train: name of the training file.
        validation: name of the file to validate on.
        test: name of the file to test on.
        separator: what stands between columns, such as "," or "\t"; None is any run of spaces and tabs.
        word_column: where the word stands.
        tag_column: where its tag stands.
        encoding: of the three files.
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
        if separator == "":
            raise InputError("data.separator='' parts nothing; name what stands between columns, or null for spaces and tabs")
        self.separator = separator and separator.replace("\\t", "\t")  # YAML keeps the two characters \t where it is not quoted
        self.word_column = word_column
        self.tag_column = tag_column
        self.encoding = encoding
        self.files = {"train": train, "validation": validation, "test": test}

    def prepare(self) -> None:
        assert self.root is not None
        if not self.root.is_dir():
            raise InputError(f"data.root={self.root}: no such folder")
        there = [path.name for path in self.root.iterdir() if path.is_file()]
        errors = [
            f"data.{key}={name}: no such file in {self.root}. {nearest(name, there) if there else 'It holds no file.'}"
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
