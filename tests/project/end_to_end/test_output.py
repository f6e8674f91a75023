"""A run whose output cannot be written trains to its end, with its usual exit status."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.config.locations import CONF
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full"),
]
RUN = [str(CONF.parent / "train.py"), *TINY_IMAGES, "trainer.max_epochs=1", "precision=fp32", "logger=[csv,wandb]"]


@pytest.mark.parametrize(
    ("redirection", "warning"),
    [
        ("> /dev/full", "stdout cannot be written (No space left on device): its output is dropped"),
        ("2>&1 | head -1", "stdout cannot be written (Broken pipe): its output is dropped"),
        ("<&- >&- 2>&-", "stdout is closed: its output is dropped"),
    ],
)
def test_a_run_without_output(redirection: str, warning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = f"set -o pipefail; {shlex.join([sys.executable, *RUN])} {redirection}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    (results,) = tmp_path.glob("outputs/*/*/results.json")
    assert json.loads(results.read_text())["status"] == "finished"
    assert results.with_name("train.log").read_text().count(warning) == 1
    assert "Traceback" not in ended.stderr


def test_a_config_error_without_output(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, *RUN, "optimizer.lr=fast"]) + " 2> /dev/full"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, timeout=240, check=False).returncode == 2
