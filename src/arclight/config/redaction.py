"""Leaves keys, tokens and passwords out of whatever a run writes: files, log, pages, loggers, checkpoints.

Secrets are values under names such as `password`, text with the prefixes that well-known services use, user and password in an
address, and the values of environment variables with such names, wherever they occur.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from arclight.console.terminal import printable

ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

LEFT_OUT = "(left out)"
SHORTEST = 6  # characters of an environment variable that is searched for; shorter ones would hide common words
DIRECTORIES = ("PWD", "OLDPWD")  # variables with the name of a secret that hold none
# Every repetition is bounded or ends at a character that no other begins with, so that matching takes time linear in the text.
# Own patterns, because detect-secrets 1.5 takes minutes for 160 KB of "password", knows half of these services and finds no
# password with a slash in an address.
SECRET_NAME = (
    r"(?:pass(?:word|wd|phrase)|secret|credential|(?:api|access|account|private|signing)[-_]?key|authorization)[\w-]{0,40}"  # noqa: S105  # a pattern, no password
)
TOKEN_NAME = r"(?:token|auth|pwd)s?"  # noqa: S105  # a number under such a name is a count, not a secret
MARKER = re.compile(r"(?:cls|sep|pad|mask|unk|bos|eos)_token$", re.IGNORECASE)  # a tokenizer's
# user and password; a password may hold @ and /
IN_ADDRESS = r"(?<=://)(?:[^/\s'\":@]{0,100}:[^\s'\"]{0,200}|[^/\s'\"]{0,200})(?=@)"
IS = r"['\"]?\s*[=:]\s*"
QUOTED = r"\"[^\"]*\"|'[^']*'"
PREFIXES = (  # of tokens, by service
    *(
        "hf_",
        "gh[a-z]_",
        "github_pat_",
        "glpat-",
        "sk-",
        "[sr]k_(?:live|test)_",
        "whsec_",
        "xox[a-z]-",
        "xapp-",
        "AKIA",
        "ASIA",
    ),
    *(
        "AIza",
        r"ya29\.",
        "wandb_v1_",
        "eyJ",
        r"hv[sb]\.",
        "dckr_[a-z]{3}_",
        r"(?-i:SG)\.",
        "npm_(?=[a-z0-9]{20})",
        "pypi-(?=.{20})",
    ),
    *("nvapi-", "gsk_", "r8_", "dapi(?=[a-f0-9]{32})", "glsa_", "dop_v1_", "shpat_"),
)
WEBHOOKS = r"(?:hooks\.slack\.com/\w+|discord(?:app)?\.com/api/webhooks|webhook\.office\.com)/[^\s'\"]+"
LOGIN = rf"\blogin\((?:[^()\n]{{0,200}}?\bkey\s{{0,9}}=)?\s{{0,9}}(?:{QUOTED})"  # wandb.login(key="...")
LONG_KEY = rf"\bkey{IS}['\"]?(?=[a-z+/_-]{{0,99}}\d)[\w+/-]{{30,}}"  # of a word alone, such as "key"
ANYWHERE = (
    rf"{SECRET_NAME}{IS}(?:(?:bearer|basic|token)\s+)?(?:{QUOTED}|\S+)"
    rf"|\b(?:{'|'.join(PREFIXES)})[\w.-]{{12,}}"
    rf"|{WEBHOOKS}|{LOGIN}|{LONG_KEY}"
    r"|[?&](?:sig|signature|x-amz-signature)=[^&\s]+"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)"
    rf"|{IN_ADDRESS}"
)
SECRET_TEXT = re.compile(
    rf"{ANYWHERE}|{TOKEN_NAME}{IS}(?!(?:[\d.]+(?:e[-+]?\d+)?|null|true|false)(?!\w))(?:{QUOTED}|\S+)", re.IGNORECASE
)
# In source code `token = ...` is mostly no secret: a literal is, and a long word with digits
SECRET_CODE = re.compile(
    rf"{ANYWHERE}|{TOKEN_NAME}{IS}(?:\"[^\"\s]{{6,}}\"|'[^'\s]{{6,}}'|(?=[\w.+/-]*\d)[\w.+/-]{{16,}}(?![\w(\[]))", re.IGNORECASE
)


def without_secrets(value: Any) -> Any:
    """Returns a nested value without entries that are named like keys, tokens or passwords, and without secrets in its text."""
    if isinstance(value, Mapping):
        return {key: without_secrets(inner) for key, inner in value.items() if not is_secret(str(key), inner)}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return hide(value) if isinstance(value, str) else value


def is_secret(key: str, value: Any) -> bool:
    """Returns whether an entry is a secret by its name; metrics (with a slash) and a tokenizer's special tokens are not."""
    if "/" in key or MARKER.search(key):
        return False
    names = SECRET_NAME if isinstance(value, int | float | None) else f"{SECRET_NAME}|{TOKEN_NAME}"
    return re.search(f"(?:{names})$", key, re.IGNORECASE) is not None


def hide(text: str, *, is_code: bool = False) -> str:
    """Returns text without secrets; of source code, such as a diff or a traceback, only literal values are secrets."""
    for secret in known_secrets(frozenset(os.environ.items())):
        text = text.replace(secret, LEFT_OUT)
    return (SECRET_CODE if is_code else SECRET_TEXT).sub(LEFT_OUT, text)


def hide_in_override(override: str) -> str:
    """Returns an override, as `key=(left out)` where its value holds a secret."""
    key, equals, _ = override.partition("=")
    hidden = hide(override)
    return f"{hide(key)}={LEFT_OUT}" if equals and hidden != override else hidden


@functools.lru_cache(maxsize=4)
def known_secrets(environment: frozenset[tuple[str, str]]) -> list[str]:
    """Returns the values of variables named like secrets, and the passwords in addresses of all others; longest first."""
    found = {value.strip() for name, value in environment if is_secret(name, value) and name not in DIRECTORIES}
    for _, value in environment:
        if "://" in value and "@" in value:
            found |= {part.partition(":")[2] or part for part in re.findall(IN_ADDRESS, value)}
    return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)


@contextmanager
def hidden_arguments() -> Iterator[None]:
    """Context manager that hides secrets in sys.argv, which W&B reads."""
    given = sys.argv
    sys.argv = [hide_in_override(argument) for argument in given]
    try:
        yield
    finally:
        sys.argv = given


class WithoutSecrets(logging.Formatter):
    """Formats log lines without secrets and without escape sequences for terminals in message or traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's names
        return hide(printable(super().formatMessage(record)))

    def formatException(self, ei: ErrorInfo) -> str:  # noqa: N802
        return hide(printable(super().formatException(ei)), is_code=True)
