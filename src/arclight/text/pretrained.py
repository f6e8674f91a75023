"""Models of the Hugging Face hub: which commit of one is meant, from this machine's copy where it has one, without its code."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arclight.errors import InputError

HUB_TIMEOUT_S = 10.0
BERT_BASE_CASED = "cd5ef92a9fb2f889e972770a36d4ed042daf221e"
# Who owns a name on the hub can put other files behind it; the commits of these are known here
PINNED = {"bert-base-cased": BERT_BASE_CASED, "google-bert/bert-base-cased": BERT_BASE_CASED}
COMMIT = re.compile(r"[0-9a-f]{40}")

log = logging.getLogger(__name__)


def load_pretrained(
    load: Callable[..., Any],
    name: str,
    revision: str | None,
    settings: Mapping[str, Any],
    *,
    check: Callable[[Any], None] = lambda loaded: None,
) -> Any:
    """What `load`, a `from_pretrained`, makes of a folder or of a name on the hub. Code that comes with a model is never run.

    Args:
        load: takes a name and settings.
        name: a folder, or a name on the hub, whose files are asked for only where this machine has no copy.
        revision: commit, tag or branch there; None is the commit that is known here, else the newest.
        settings: further arguments of `load`.
        check: raises OSError for what is not whole.

    Raises:
        InputError: for a revision of a folder, or a model that needs code of its own.
    """
    from huggingface_hub import HfApi

    safe = {**settings, "trust_remote_code": False}
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            if revision is not None:
                raise InputError(f"{name} is a folder, and has no revision '{revision}' as names on the hub have; leave it out")
            return checked(load(str(folder), **safe), check)
        wanted = revision or PINNED.get(name, "main")
        try:
            return checked(load(name, revision=wanted, local_files_only=True, **safe), check)
        except OSError:  # not here, or only in part
            # without a network, `load` would try for a minute
            HfApi().model_info(name, revision=wanted, timeout=HUB_TIMEOUT_S)
            return checked(load(name, revision=wanted, **safe), check)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise InputError(
            f"'{name}' needs code that comes with it, and such code is never run here; take a model that transformers knows, "
            "or put its code into src/arclight/models once you have read it"
        ) from error


def checked(loaded: Any, check: Callable[[Any], None]) -> Any:
    """What was loaded, which has passed."""
    check(loaded)
    return loaded


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of what was loaded from the hub, by this machine's copy of it; None of a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).expanduser().is_dir():
        return None
    file = try_to_load_from_cache(name, "config.json", revision=revision or PINNED.get(name, "main"))
    return Path(file).parent.name if isinstance(file, str) else None


def tell_commit(name: str, revision: str | None, commit: str | None) -> None:
    """Says in the log which commit of the hub was taken, and how to keep it where nothing does; of a folder nothing."""
    if commit is None:
        return
    wanted = revision or PINNED.get(name, "main")
    if COMMIT.fullmatch(wanted):
        log.info("%s: commit %s of the hub", name, commit)
    else:
        log.info(
            "%s: commit %s of the hub, not pinned: '%s' may be another one tomorrow; model.revision=%s keeps it",
            *(name, commit, wanted, commit),
        )
