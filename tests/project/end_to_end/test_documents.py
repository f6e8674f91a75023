"""Commands of README.md and docs/ compose as they are typed in a shell, quotes, brackets and tildes included."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.config.locations import CONF

ROOT = CONF.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_MACHINES = re.compile(r"torchrun|srun|sbatch|hydra/launcher|hydra/sweeper|[$]|resume=|NAME")


def is_there(command: str) -> bool:
    """Returns whether conf/ has the options that a command chooses: pages show how to add some."""
    chosen = re.findall(r" (data|model)=(\w+)", command)
    return all((CONF / group / f"{option}.yaml").is_file() for group, option in chosen)


def commands() -> list[str]:
    """Returns the commands that train, which need no other machine and no run."""
    blocks = [block for file in DOCUMENTS for block in re.findall(r"^```bash\n(.*?)^```", file.read_text(), re.M | re.S)]
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return sorted(
        {line for line in lines if line.startswith("python train.py") and not OF_MACHINES.search(line) and is_there(line)}
    )


@pytest.mark.processes
@pytest.mark.parametrize("command", commands())
def test_a_command_composes_as_typed(command: str, tmp_path: Path) -> None:
    typed = command.replace("python train.py", f"{sys.executable} {ROOT / 'train.py'}", 1).replace(" -m ", " ")
    typed = re.sub(r"=([^ \[,]+),[^ \]]+(?= |$)", r"=\1", typed)  # the first run of a multirun
    typed = typed if "--" in typed else f"{typed} --cfg job --resolve"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "error" not in ended.stderr
