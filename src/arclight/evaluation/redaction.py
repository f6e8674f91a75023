"""Keys, tokens and passwords are left out of whatever a run shows to others."""

from __future__ import annotations

import re
from typing import Any

SECRET_NAME = r"(?:pass(?:word|wd|phrase)|secret|credential|(?:api|access|private)[-_]?key|authorization)[\w-]*"  # noqa: S105  # a pattern, no password
TOKEN_NAME = r"(?:token|auth|pwd)s?"  # noqa: S105  # a number under such a name is a count, not a secret
SECRET_TEXT = re.compile(
    rf"{SECRET_NAME}['\"]?\s*[=:]\s*\S+"
    rf"|{TOKEN_NAME}['\"]?\s*[=:]\s*(?!(?:[\d.]+(?:e[-+]?\d+)?|null|true|false)(?!\w))\S+"
    r"|\b(?:hf_|gh[a-z]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA)[\w-]{12,}"  # as well-known services begin theirs
    r"|(?<=//)[^/\s@]+(?=@)",  # user and password inside an address
    re.IGNORECASE,
)


def without_secrets(value: Any) -> Any:
    """The same nested value without the entries that are named like keys, tokens or passwords."""
    if isinstance(value, dict):
        return {key: without_secrets(inner) for key, inner in value.items() if not is_secret(str(key), inner)}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return SECRET_TEXT.sub("(left out)", value) if isinstance(value, str) else value


def is_secret(key: str, value: Any) -> bool:
    names = SECRET_NAME if isinstance(value, int | float | None) else f"{SECRET_NAME}|{TOKEN_NAME}"
    return re.search(f"(?:{names})$", key, re.IGNORECASE) is not None
