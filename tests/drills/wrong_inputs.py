"""Starts each wrong input of the table as a program, and reports tracebacks, wrong exit statuses and those that take long.

`python tests/drills/wrong_inputs.py --every 10` starts every tenth. Time is that of the processor, which other programs do not
change; `--limit` sets how many seconds are too many.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
TIMEOUT_S = 300  # a hang


def main() -> int:
    """Returns the exit status: 1 if anything is reported."""
    from tests.project.end_to_end.wrong_inputs import rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit", type=float, default=5.0)
    arguments = parser.parse_args()
    table = rows()[arguments.first :: arguments.every]
    longest, problems = 0.0, 0
    for row in table:
        overrides = [*row.base, *row.overrides]
        with tempfile.TemporaryDirectory() as folder:
            seconds, wall_s, found = start(overrides, Path(folder))
        longest = max(longest, seconds)
        if seconds > arguments.limit:
            found.append("slow")
        if found:
            problems += 1
            sys.stdout.write(f"{', '.join(found)}: {seconds:.1f} s (wall {wall_s:.0f} s): {shlex.join(overrides)}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(table)} programs, {problems} problems, at most {longest:.1f} s of processor time\n")
    return int(problems > 0)


def start(overrides: list[str], folder: Path) -> tuple[float, float, list[str]]:
    """Returns the seconds of processor and wall time of `train.py`, and what is wrong with how it ended."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        return TIMEOUT_S, TIMEOUT_S, ["hang"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    checks = {
        "traceback": "Traceback" in ended.stderr,
        f"exit status {ended.returncode}": ended.returncode != 2,
        "no message": "error: " not in ended.stderr,
        "files left": any(folder.rglob("*.yaml")),
    }
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, time.monotonic() - begun, [name for name, is_wrong in checks.items() if is_wrong]


if __name__ == "__main__":
    sys.exit(main())
