"""Writes the records of the drills, one JSON object per line, as Markdown tables."""

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
from tests.drills.random_settings import SWA
from tests.drills.runs import ROOT

SHOWN = (  # options that the table of random settings counts
    *(
        "model=",
        "optimizer=",
        "scheduler=",
        "callbacks=",
        f"+{SWA}._target_",
        "precision=",
        "strategy=",
        "monitor=",
        "data.packing=",
    ),
    *(
        "data.max_batch_per_device=",
        "trainer.max_",
        "trainer.limit_",
        "trainer.val_",
        "trainer.check_",
        "checkpoint.every_steps=",
    ),
)
PACKAGES = ("torch", "lightning", "wandb")


def environment() -> dict[str, Any]:
    """Returns machine, versions and commit."""
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
    """Returns the records; none if there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write(records: list[dict[str, Any]], page: Path) -> None:
    """Writes the tables of all records to `page`."""
    starts = [record for record in records if record["kind"] == "start"]
    dates = sorted(record["date"][:16].replace("T", " ") for record in starts)
    known = {key: sorted({record[key] for record in starts}) for key in ("machine", "system", "python", *PACKAGES, "commit")}
    seeds = sorted({int(found[1]) for record in starts if (found := re.search(r"--seed (\d+)", record["command"]))})
    versions = ", ".join(f"{name} {', '.join(known[name])}" for name in ("python", *PACKAGES))
    lines = [
        f"- When: {dates[0]} to {dates[-1]} UTC",
        f"- Machine: {'; '.join(known['machine'])}, {'; '.join(known['system'])}, no GPU",
        f"- Versions: {versions}",
        f"- Commits: {', '.join(known['commit'])}",
        f"- Run in pieces, with `--seed` {', '.join(map(str, seeds))}; each command was one of:",
        "",
        "```bash",
        *sorted({re.sub(r" --seed \d+", "", record["command"]) for record in starts}),
        "```",
        "",
    ]
    tables = [*stops(records), "", *others(records), "", *settings(records)]
    page.write_text("\n".join([*tables, "", *lines]))


def stops(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a table of stops by signal and moment, with the number of runs that ended equal."""
    ends = {record["run"]: record for record in records if record["kind"] == "end"}
    stopped = [record for record in records if record["kind"] == "stop" and record["run"] in ends]
    counts: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for record in stopped:
        count = counts[record["signal"], record["processes"], record["task"]]
        count.update((record["moment"], "stops"))
        count["equal"] += not ends[record["run"]]["different"]
        count["statuses"] += record["status_is_right"]
    kills = sum(record["signal"] == "SIGKILL" for record in stopped)
    runs = {record["run"] for record in stopped}
    equal = sum(not ends[run]["different"] for run in runs)
    yield f"**{len(stopped)} stops ({kills} SIGKILL) of {len(runs)} runs; {equal} of {len(runs)} runs ended equal.**"
    yield ""
    yield f"| signal | processes | task | {' | '.join(AIMS)} | correct exit status | run ended equal |"
    yield "|---" * (len(AIMS) + 5) + "|"
    for key, count in sorted(counts.items(), key=lambda item: (item[0][0] != "SIGKILL", *item[0])):
        moments = " | ".join(str(count[aim]) for aim in AIMS)
        ratios = " | ".join(f"{count[name]} of {count['stops']}" for name in ("statuses", "equal"))
        yield f"| {' | '.join(map(str, key))} | {moments} | {ratios} |"
    different = [f"- {run}: {', '.join(ends[run]['different'])}" for run in sorted(runs) if ends[run]["different"]]
    if different:
        yield from ["", "Different:", "", *different]


def settings(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a table of the runs of random settings: for each option, how many runs had it and ended equal."""
    drawn = [record for record in records if record["kind"] == "setting"]
    if not drawn:
        return
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in drawn:
        for option in options_of(record["overrides"].split()):
            counts[option].update({"runs": 1, "kills": len(record["kills"]), "equal": int(not record["different"])})
    kills, equal = sum(len(record["kills"]) for record in drawn), sum(not record["different"] for record in drawn)
    yield f"**{kills} SIGKILLs of {len(drawn)} runs, each of other settings; {equal} of {len(drawn)} runs ended equal.**"
    yield ""
    yield "| option | runs with it | kills | ended equal |"
    yield "|---|---|---|---|"
    for option, count in sorted(counts.items()):
        yield f"| `{option}` | {count['runs']} | {count['kills']} | {count['equal']} of {count['runs']} |"
    for record in drawn:
        if record["different"]:
            yield f"\nDifferent: `{record['overrides']}`: {', '.join(record['different'])}"


def options_of(overrides: list[str]) -> list[str]:
    """Returns the overrides that the table counts."""
    shown = [override for override in overrides if override.startswith(SHOWN)]
    return ["StochasticWeightAveraging" if SWA in override else override for override in shown]


def others(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a table of the other drills; of a repeated drill the last one counts."""
    last = {record["name"]: record for record in records if record["kind"] == "other"}
    if last:
        yield from ["| drill | what happened | as promised |", "|---|---|---|"]
        for name, record in last.items():
            yield f"| {name} | {record['outcome']} | {'yes' if record['as_promised'] else '**NO**'} |"
