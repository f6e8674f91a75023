"""Commits of the encoders that this project's recipes load from the Hugging Face hub, where files behind a name can change."""

from __future__ import annotations

from pathlib import Path

BERT_BASE_CASED = "cd5ef92a9fb2f889e972770a36d4ed042daf221e"
PINNED_REVISIONS = {"bert-base-cased": BERT_BASE_CASED, "google-bert/bert-base-cased": BERT_BASE_CASED}


def pinned_revision(name: str | None, revision: str | None) -> str | None:
    """Returns `revision`, or where that is None the commit pinned for this name; None for directories and other names."""
    if name is None or revision is not None or Path(name).expanduser().is_dir():
        return revision
    return PINNED_REVISIONS.get(name)
