"""Plans the hardware settings of a run from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight import hardware
from arclight.config.instantiate import find_target
from arclight.errors import InputError


def plan_hardware(
    settings: Mapping[str, Any],
    hardware_info: hardware.HardwareInfo,
    num_parameters: int | None = None,
    *,
    steps_per_epoch: int | None = None,
    accumulation_steps: int = 1,
) -> dict[str, hardware.Decision]:
    """Returns `hardware.plan` for a config. `num_parameters` is known once the net is built, the rest once the data is."""
    try:
        has_fixed_shapes = getattr(find_target(str(settings["data"].get("_target_", "")), "data"), "has_fixed_shapes", None)
    except InputError:  # reported when the data is checked or built
        has_fixed_shapes = None
    return hardware.plan(
        hardware_info,
        hardware.requested_settings(settings),
        num_parameters,
        has_fixed_shapes=has_fixed_shapes is not None and has_fixed_shapes(settings["data"]),
        steps_per_epoch=steps_per_epoch,
        accumulation_steps=accumulation_steps,
    )
