"""What a run would trip over, told before data and nets are loaded; all of a run tried on one batch (`preflight=full`)."""

from __future__ import annotations

from collections.abc import Sequence

from arclight import hardware
from arclight.config.compose import Composed
from arclight.config.provenance import Provenance
from arclight.errors import InputError
from arclight.preflight.config_checks import find_mistakes_in
from arclight.preflight.environment_checks import find_mistakes_around

__all__ = ["check", "collect"]


def check(composed: Composed, facts: hardware.Facts) -> None:
    """Looks at a whole config and at what it needs of this machine.

    Raises:
        InputError: naming every mistake, where it was set, and the command that was probably meant if names alone are wrong.
    """
    if composed.preflight != "none" and (mistakes := collect(composed, facts)):
        raise told(composed, mistakes)


def collect(composed: Composed, facts: hardware.Facts) -> list[str]:
    """All mistakes, one message each."""
    return [*find_mistakes_in(composed.settings, facts), *find_mistakes_around(composed)]


def told(composed: Composed, mistakes: Sequence[str]) -> InputError:
    """One error of all these messages."""
    resume = () if composed.resume == "none" else (f"resume={composed.resume}",)
    return InputError(Provenance([*composed.overrides, *resume]).told(mistakes))


def with_all_others(mistake: InputError, composed: Composed) -> InputError:
    """A mistake that was met before anything was looked at, together with all others."""
    first = str(mistake)
    try:
        others = [other for other in collect(composed, hardware.probe()) if other not in first]
    except InputError:  # what the launcher of this process says makes no sense
        return mistake
    return told(composed, [first, *others])
