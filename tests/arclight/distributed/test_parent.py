"""A process ends with the one that has started it, also when that is killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

END = "parent.end_with(int(os.environ['PARENT']))"
CHILD = (
    f"import os, time; from arclight.distributed import parent; {END}; print('in', flush=True); time.sleep(20); print('out')"
)
LAUNCHER = (
    f"import os, subprocess, sys; os.environ['PARENT'] = str(os.getpid()); subprocess.run([sys.executable, '-c', {CHILD!r}])"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children")
def test_a_process_ends_when_its_launcher_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "in\n"
        launcher.kill()
        assert launcher.stdout.read() == ""  # the child has ended, too: nobody holds the pipe


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children")
def test_a_process_whose_launcher_has_died_before_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD], env={**os.environ, "PARENT": "1"}, timeout=60, check=False)
    assert ended.returncode == 1
