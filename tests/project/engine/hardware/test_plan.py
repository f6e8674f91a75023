"""The config group of the hardware."""

from __future__ import annotations

import yaml

from arclight.config.locations import CONF
from arclight.hardware import check_settings


def test_all_settings_in_conf_are_known() -> None:
    check_settings(yaml.safe_load((CONF / "hardware" / "auto.yaml").read_text()))
