"""Checks before data and nets are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from arclight import hardware
from arclight.config.compose import RunConfig, compose
from arclight.config.overrides.errors import join
from arclight.errors import InputError
from arclight.preflight.config_checks import check_config
from arclight.preflight.environment_checks import check_environment
from arclight.preflight.top_level_checks import top_level_errors, unused_group_errors
from arclight.preflight.trainer_checks import null_errors

__all__ = ["check", "collect"]


def check(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> None:
    """Checks a whole config and what it needs of this machine.

    Raises:
        InputError: naming every error, where it was set, and the command that was probably meant if names alone are wrong.
    """
    if run_config.preflight != "none" and (errors := collect(run_config, hardware_info)):
        raise _join(run_config, errors, hardware_info)


def collect(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> list[InputError]:
    """Returns everything that is wrong."""
    errors = [*top_level_errors(run_config.settings), *unused_group_errors(run_config.settings, run_config.overrides)]
    errors += null_errors(run_config.overrides)
    return [*errors, *check_config(run_config.settings, hardware_info), *check_environment(run_config)]


def with_all_others(error: InputError, run_config: RunConfig) -> InputError:
    """Returns an error that was raised before preflight together with all others."""
    try:
        hardware_info = hardware.probe()
        others = collect(run_config, hardware_info)
    except InputError:  # the environment variables of the launcher that started this process are wrong
        return error
    known = {str(each) for each in error.errors}
    return _join(run_config, [*error.errors, *(other for other in others if str(other) not in known)], hardware_info)


def _join(run_config: RunConfig, errors: Sequence[InputError], hardware_info: hardware.HardwareInfo) -> InputError:
    """Returns one error for these; the command that was probably meant is offered only if it passes the same checks."""

    def remaining(overrides: Sequence[str]) -> Sequence[InputError]:
        try:
            return collect(replace(compose(overrides), folder=run_config.folder), hardware_info)
        except InputError as error:
            return error.errors

    resume = () if run_config.resume == "none" else (f"resume={run_config.resume}",)
    return join(errors, [*run_config.overrides, *resume], remaining)
