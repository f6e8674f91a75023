"""A copy of conf/ to change, and the message of a command that does not compose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from arclight.config import locations
from arclight.config.compose import compose
from arclight.errors import InputError


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that a test may change."""
    copy = tmp_path / "conf"
    shutil.copytree(locations.CONF, copy)
    monkeypatch.setattr(locations, "CONF", copy)
    return copy


def message_of(overrides: list[str]) -> str:
    with pytest.raises(InputError) as raised:
        compose(overrides)
    return str(raised.value)
