"""Shell completion after `eval "$(python train.py -sc install=bash)"`: groups, options and keys."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from arclight.config.locations import CONF

TRAIN = CONF.parent / "train.py"


@pytest.mark.parametrize(
    ("typed", "offered"), [("model=c", {"model=cifarnet", "model=cnn"}), ("trainer.max_e", {"trainer.max_epochs="})]
)
def test_the_shell_completes_groups_options_and_keys(typed: str, offered: set[str]) -> None:
    line = f"python train.py {typed}"
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "2"}
    command = [sys.executable, str(TRAIN), "-sc", "query=bash"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(asked.stdout.split()) == offered
