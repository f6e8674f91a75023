"""Compares the configs of two runs: do they give the same results?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight.config.compose import flatten
from arclight.config.redaction import without_secrets

# Settings that change where and how fast a run trains, not its results: a run may resume with other values
WITHOUT_EFFECT = (
    *(
        "hardware.",
        "logger.",
        "checkpoint.",
        "name",
        "tags",
        "test",
        "seed_is_drawn",
        "data.root",
        "data_root",
        "data.max_batch_per_device",
    ),
    *("data.storage", "data.cache", "data.memory_share", "data.num_workers"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar"),
)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that change results and differ, by dotted key, with both values (None where unset).

    A seed of now that is not drawn yet (`seed=null`) is equal to one that was drawn, and not to one that was set.
    """
    if before.get("seed_is_drawn") and "seed" in now and now["seed"] is None:
        now = {**now, "seed": before.get("seed")}
    flat = [dict(flatten(without_secrets(settings))) for settings in (before, now)]  # run directories hold no secrets
    keys = sorted({*flat[0], *flat[1]})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key) and not key.startswith(WITHOUT_EFFECT)
    }
