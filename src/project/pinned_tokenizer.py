"""Tagged text whose tokenizer is that of the commit which this project pins."""

from __future__ import annotations

from typing import Any

from arclight.text.datamodule import TokenDataModule
from project.pinned_revisions import pinned_revision


class PinnedTokenizer(TokenDataModule):
    """A TokenDataModule whose `tokenizer_revision`, where none is given, is the commit in `pinned_revisions`.

    The arguments are those of TokenDataModule.
    """

    def __init__(self, *, tokenizer: str | None = None, tokenizer_revision: str | None = None, **options: Any) -> None:
        revision = pinned_revision(tokenizer, tokenizer_revision)
        super().__init__(tokenizer=tokenizer, tokenizer_revision=revision, **options)
