"""A setting that was chosen or wished for, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AS_SAID = "as you said"


@dataclass(frozen=True)
class Decision:
    """One setting and why; `is_user_set` when the user set it and nothing was chosen."""

    value: Any
    reason: str
    is_user_set: bool = False


def requested_value(requested: Mapping[str, Any], name: str) -> Any:
    """What the user wants of `name`; None when it is left to the plan, by "auto", by null or by silence."""
    wish = requested.get(name)
    return None if wish == "auto" else wish


def granted(value: Any, remark: str = "") -> Decision:
    """A wish that is kept, with a remark if it costs something."""
    return Decision(value, f"{AS_SAID}, {remark}" if remark else AS_SAID, is_user_set=True)
