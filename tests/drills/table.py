"""The table of the drills: what was done, from the records that they leave, one JSON object a line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.drills.moments import AIMS
from tests.drills.runs import ROOT

PACKAGES = ("torch", "lightning", "wandb")
HEAD = """# Fault drills: what happens to runs that are stopped, and to disks that fill up

`python tests/drills/kill.py` starts real runs of `python train.py`, stops them, lets them go on with `resume=auto` and compares
what they end with to a run that nothing has stopped: weights and optimizer states of `best.ckpt` and `last.ckpt` bit for bit,
scores, every row of `metrics.csv`, every line of `predictions.jsonl`. Accumulation (4 parts), early stopping and weight
averaging are on; an epoch has 10 steps, and every second one is saved. Each run is stopped several times. "Moment" of a SIGKILL
is where the files of the run say that it was, of another signal where it was aimed.

With `--preload` a run is a fork of a process that has imported everything, which spares seconds a start; its ranks, where there
are two, are started anew all the same. Without it each start is the user's command from its first import on.

The records that this page is written from lie beside it, in `fault_drills.jsonl`.

A SIGKILL goes to all processes of a run at once, as when the machine fails; the other signals go to the process that the user
started, and must end it with 128 + the signal's number.

"""


def hardware_info() -> dict[str, Any]:
    """Of the machine and of what was run."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "src", "conf", "train.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}",
        "system": platform.system(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() + ("" if not changed.stdout else " with changes"),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def read(file: Path) -> list[dict[str, Any]]:
    """The records; none of a file that is not there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write(records: list[dict[str, Any]], page: Path) -> None:
    """The page of all records."""
    starts = [record for record in records if record["kind"] == "start"]
    dates = sorted(record["date"][:16].replace("T", " ") for record in starts)
    known = {key: sorted({record[key] for record in starts}) for key in ("machine", "system", "python", *PACKAGES, "commit")}
    seeds = sorted({int(found[1]) for record in starts if (found := re.search(r"--seed (\d+)", record["command"]))})
    lines = [
        f"{dates[0]} to {dates[-1]} UTC; {'; '.join(known['machine'])}, {'; '.join(known['system'])}; no GPU; Python "
        f"{', '.join(known['python'])}, " + ", ".join(f"{name} {', '.join(known[name])}" for name in PACKAGES),
        f"commit {', '.join(known['commit'])}. Run in pieces, with --seed {', '.join(map(str, seeds))}; each was one of:",
        "",
        "```bash",
        *sorted({re.sub(r" --seed \d+", "", record["command"]) for record in starts}),
        "```",
        "",
    ]
    page.write_text(HEAD + "\n".join([*lines, *stops(records), "", *others(records)]) + "\n")


def stops(records: list[dict[str, Any]]) -> Iterator[str]:
    """How often runs were stopped where, and how many of those runs ended equal."""
    ends = {record["run"]: record for record in records if record["kind"] == "end"}
    counted: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    stopped = [record for record in records if record["kind"] == "stop" and record["run"] in ends]
    for record in stopped:
        found = counted[record["signal"], record["processes"], record["module"], record["moment"]]
        found["stops"] += 1
        found["equal"] += not ends[record["run"]]["different"]
        found["statuses"] += record["status_is_right"]
    kills = sum(record["signal"] == "SIGKILL" for record in stopped)
    runs = {record["run"] for record in stopped}
    equal = sum(not ends[run]["different"] for run in runs)
    yield f"**{len(stopped)} stops, {kills} of them SIGKILL, of {len(runs)} runs; {equal} of the {len(runs)} ended equal.**"
    yield ""
    yield "| signal | processes | task | moment | stops | exit status right | run ended equal |"
    yield "|---|---|---|---|---|---|---|"
    order = {name: number for number, name in enumerate(AIMS)}
    for key, found in sorted(counted.items(), key=lambda item: (item[0][0] != "SIGKILL", *item[0][:3], order[item[0][3]])):
        yield f"| {' | '.join(map(str, key))} | {found['stops']} | {found['statuses']} | {found['equal']} |"
    different = [f"- {run}: {', '.join(ends[run]['different'])}" for run in sorted(runs) if ends[run]["different"]]
    if different:
        yield from ["", "Different:", "", *different]


def others(records: list[dict[str, Any]]) -> Iterator[str]:
    """The drills that are no kill; of one that was done again the last counts."""
    last = {record["name"]: record for record in records if record["kind"] == "other"}
    if last:
        yield from ["| drill | what happened | as promised |", "|---|---|---|"]
        for name, record in last.items():
            yield f"| {name} | {record['told']} | {'yes' if record['as_promised'] else '**NO**'} |"
