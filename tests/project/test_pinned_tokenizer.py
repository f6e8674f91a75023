"""The commit of the tokenizer: the pinned one unless the user names another."""

from __future__ import annotations

import pytest

from project.data.synthetic_text import SyntheticText
from project.pinned_revisions import BERT_BASE_CASED


@pytest.mark.parametrize(
    ("tokenizer", "revision", "loaded"),
    [
        ("bert-base-cased", None, BERT_BASE_CASED),
        ("bert-base-cased", "v1", "v1"),
        ("roberta-base", None, None),
        (None, None, None),
    ],
)
def test_which_commit_is_loaded(tokenizer: str | None, revision: str | None, loaded: str | None) -> None:
    assert SyntheticText(tokenizer=tokenizer, tokenizer_revision=revision).tokenizer_revision == loaded
