"""What a run would trip over, told before data and nets are loaded; all of a run tried on one batch (`preflight=full`)."""

from __future__ import annotations

from collections.abc import Sequence

from arclight import hardware
from arclight.config.compose import RunConfig
from arclight.config.provenance import Provenance
from arclight.errors import InputError
from arclight.preflight.config_checks import check_config
from arclight.preflight.environment_checks import check_environment

__all__ = ["check", "collect"]


def check(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> None:
    """Looks at a whole config and at what it needs of this machine.

    Raises:
        InputError: naming every mistake, where it was set, and the command that was probably meant if names alone are wrong.
    """
    if run_config.preflight != "none" and (errors := collect(run_config, hardware_info)):
        raise told(run_config, errors)


def collect(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> list[str]:
    """All mistakes, one message each."""
    return [*check_config(run_config.settings, hardware_info), *check_environment(run_config)]


def told(run_config: RunConfig, errors: Sequence[str]) -> InputError:
    """One error of all these messages."""
    resume = () if run_config.resume == "none" else (f"resume={run_config.resume}",)
    return InputError(Provenance([*run_config.overrides, *resume]).told(errors))


def with_all_others(error: InputError, run_config: RunConfig) -> InputError:
    """A mistake that was met before anything was looked at, together with all others."""
    first = str(error)
    try:
        others = [other for other in collect(run_config, hardware.probe()) if other not in first]
    except InputError:  # what the launcher of this process says makes no sense
        return error
    return told(run_config, [first, *others])
