"""Loads pretrained models of the Hugging Face hub at a revision, from the local cache first, and never runs their code."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arclight.errors import InputError, nearest

HUB_TIMEOUT_S = 10.0
# Files of a directory that transformers reads: one of each group is enough
ENCODER_FILES = (("config.json",), ("model.safetensors", "model.safetensors.index.json"))
TOKENIZER_FILES = (("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"),)
DOWNLOAD = "`hf download NAME --local-dir DIRECTORY`"
NO_SIBLINGS = "Give one that save_pretrained() wrote, or a name on the Hugging Face hub, such as bert-base-cased."
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
    """Returns what `load`, a `from_pretrained`, returns for a directory or a name on the hub.

    Args:
        load: takes a name and settings.
        name: a directory, or a name on the hub, which is contacted only for files that are not in the local cache.
        revision: commit, tag or branch on the hub; None is the newest.
        settings: further arguments of `load`.
        check: raises OSError for an incomplete result.

    Raises:
        InputError: for a revision of a directory, or a model that needs its own code.
    """
    from huggingface_hub import HfApi

    def checked(name: str, source: Mapping[str, Any]) -> Any:
        loaded = load(name, **{**settings, **source, "trust_remote_code": False})
        check(loaded)
        return loaded

    directory = Path(name).expanduser()
    try:
        if directory.is_dir():
            if revision is not None:
                raise InputError(f"{name} is a directory and has no revision '{revision}'; set the revision to null")
            return checked(str(directory), {})
        revision = revision or "main"
        try:
            return checked(name, {"revision": revision, "local_files_only": True})
        except OSError:  # not in the cache, or only in part
            # without a network, `load` would try for a minute
            HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
            return checked(name, {"revision": revision})
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise InputError(
            f"'{name}' needs its own code, which is never run; take a model that transformers includes, or copy the code to "
            "src/project/models once you have read it"
        ) from error


def cached_commit(name: str, revision: str | None) -> str | None:
    """Returns the commit of a model in the local cache of the hub; None for a directory."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).expanduser().is_dir():
        return None
    file = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    return Path(file).parent.name if isinstance(file, str) else None


def log_commit(name: str, revision: str | None, commit: str | None) -> None:
    """Logs which commit of the hub was loaded, and how to pin it where `revision` does not."""
    if commit is None:
        return
    if revision is not None and COMMIT.fullmatch(revision):
        log.info("%s: commit %s of the hub", name, commit)
    else:
        log.info(
            "%s: commit %s of the hub, not pinned: '%s' may change; model.revision=%s pins it",
            *(name, commit, revision or "main", commit),
        )


def check_directory(key: str, name: str, needed: Sequence[Sequence[str]]) -> Iterator[InputError]:
    """Yields an error for a directory of a pretrained model that does not exist or holds none of the files of a group.

    Names on the hub, which are no paths, are left to the hub.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        if missing := [group[0] for group in needed if not any((directory / file).is_file() for file in group)]:
            message = f"{' and '.join(missing)} missing; it needs the files that save_pretrained() or {DOWNLOAD} write"
            yield InputError(f"{key}={name}: {message}", key=key)
    elif is_path(name):
        siblings = [str(other) for other in directory.parent.iterdir() if other.is_dir()] if directory.parent.is_dir() else []
        hint = nearest(name, siblings) if siblings else NO_SIBLINGS
        yield InputError(f"{key}={name}: no such directory. {hint}", key=key)


def is_path(name: str) -> bool:
    """Returns whether this cannot be a name on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


@contextmanager
def loading_errors(key: str, name: str, content: str, without: str) -> Iterator[None]:
    """Context manager that turns errors of loading a pretrained model into InputError with a fix.

    Args:
        key: of the setting.
        name: its value, a directory or a name on the hub.
        content: what is loaded.
        without: what null does in place of the name.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except InputError as error:
        raise InputError(f"{key}={name}: {error}", key=key) from error
    except Exception as error:  # of many classes, from five libraries
        reason = textwrap.shorten(str(error).split(". ")[0].rstrip("."), 250) or type(error).__name__
        if isinstance(error, RepositoryNotFoundError):
            reason = "no public model of this name"
        if Path(name).expanduser().is_dir():
            problem = (
                f"no {content} can be loaded from this directory ({reason}); save_pretrained() or {DOWNLOAD} write its files"
            )
        elif is_path(name):
            problem = f"no such directory. {NO_SIBLINGS}"
        else:
            problem = (
                f"no such directory, and the Hugging Face hub did not provide it ({reason}). Check the name. Without a "
                f"network, download it elsewhere with {DOWNLOAD} and set {key}=DIRECTORY; {key}=null {without}"
            )
        raise InputError(f"{key}={name}: {problem}", key=key) from error
