"""Keys that decide how and where a run starts: they are checked before its directory is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from arclight.errors import InputError, closest, nearest

PREFLIGHTS = ("quick", "full", "none")
LONGEST_NAME = 200  # characters; file systems allow 255 bytes, and a number may be added
WORDS = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}  # of other tools


def start_errors(settings: Mapping[str, Any]) -> Iterator[InputError]:
    """Yields what is wrong with `preflight`, `resume_with_changes`, `resume` and `name`."""
    preflight, is_allowed, resume, name = (settings.get(key) for key in ("preflight", "resume_with_changes", "resume", "name"))
    if "preflight" in settings and preflight not in PREFLIGHTS:
        yield InputError(
            f"preflight={preflight} must be one of {', '.join(PREFLIGHTS)}. {nearest(str(preflight), PREFLIGHTS)}",
            key="preflight",
            suggestions=[f"preflight={near}" for near in closest(str(preflight), PREFLIGHTS)],
        )
    if "resume_with_changes" in settings and not isinstance(is_allowed, bool):
        yield InputError(
            f"resume_with_changes={is_allowed} must be true or false",
            key="resume_with_changes",
            suggestions=[f"resume_with_changes={WORDS[word]}" for word in (str(is_allowed).lower(),) if word in WORDS],
        )
    if resume is not None and (not isinstance(resume, str) or not resume):
        yield InputError(f"resume={resume} must be auto, none, latest, or a run directory", key="resume")
    if "name" not in settings:
        return
    if isinstance(name, str | int | float) and not isinstance(name, bool):
        parts = PurePath(str(name)).parts
        is_inside = not PurePath(str(name)).is_absolute() and ".." not in parts and "\0" not in str(name)
        if not parts or not is_inside or max(map(len, parts)) > LONGEST_NAME:
            yield InputError(
                f"name={name} must be a directory below outputs/, of at most {LONGEST_NAME} characters; "
                "hydra.run.dir=... sets another run directory",
                key="name",
            )
    else:
        yield InputError(f"name={name} must be text, the name of a directory below outputs/", key="name")
