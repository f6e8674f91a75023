"""Measures cases in interleaved rounds and stores the values, one JSON file for each benchmark.

Its keys: `benchmark`, `command` (repeats it), `date` (its end, UTC), `num_rounds`, `device`, `hardware` (hardware info),
`machine` (measured peaks), `plan` (what `auto` chooses here, with reasons), `python`, `system`, `packages`, `git`, `settings`
(of the benchmark) and `cases`: a list, each with `name`, `settings`, and `figures` by name with `unit`, `values` (one per
round), `median`, `low`, `high`; a case that could not be measured has no figures and a reason under `missing`.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.table import Table
from rich.text import Text

from arclight import hardware
from arclight.benchmark.command_line import Log
from arclight.config.locations import CONF, alternatives
from arclight.hardware.peak_measurement import MeasuredPeaks, largest
from arclight.runs.run_directory import collect_environment, run_git

RESULTS = CONF.parent / "benchmarks" / "results"
# how figures are shown in tables
BUSY_S, MAX_BUSY = 0.5, 0.25  # other programs use of all cores, over this time
FRACTIONS = ("data_wait", "mfu")
WITHOUT_RANGE = ("step", "flops", "first_step")

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One measured quantity: a value per round, in `unit`."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.values)

    def to_text(self, digits: int = 3) -> str:
        """Returns the median and, of several values, their range, with at least so many significant digits."""
        low, middle, high = (significant(value, digits) for value in (min(self.values), self.median, max(self.values)))
        return f"{middle} ({low} to {high})" if len(self.values) > 1 else middle


@dataclass(frozen=True)
class Case:
    """One of the things compared: its settings and figures, or why it was not measured."""

    name: str
    settings: dict[str, Any]
    figures: dict[str, Figure] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True)
class Result:
    """What a benchmark measured; `metadata` is everything in the file but the name and the cases."""

    benchmark: str
    metadata: dict[str, Any]
    cases: tuple[Case, ...]

    def to_plain(self) -> dict[str, Any]:
        """Returns the content of the result file."""
        cases = [asdict(case) for case in self.cases]
        for case in cases:
            if case["missing"] is None:
                del case["missing"]
            for figure in case["figures"].values():
                values = figure["values"]
                figure |= {"median": statistics.median(values), "low": min(values), "high": max(values)}
        return {"benchmark": self.benchmark, **self.metadata, "cases": cases}


def significant(value: float, digits: int) -> str:
    """Returns the value with so many significant digits; digits before the point are never dropped."""
    decimals = max(0, digits - len(str(int(abs(value)))) + (1 if abs(value) < 1 else 0))
    return f"{value:,.{decimals}f}"


def interleave(cases: Mapping[str, Callable[[], T]], num_rounds: int, log: Log = lambda line: None) -> dict[str, list[T]]:
    """Calls each case once in each round, so that a machine that slows down slows all alike, and returns its values.

    Each round begins with another case.
    """
    names = list(cases)
    measured: dict[str, list[T]] = {name: [] for name in names}
    for number in range(num_rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            log(name)
            measured[name].append(cases[name]())
    return measured


def interleave_with_peaks(
    cases: Mapping[str, Callable[[], T]], num_rounds: int, peaks: Callable[[], MeasuredPeaks], log: Log = lambda line: None
) -> tuple[dict[str, list[T]], MeasuredPeaks]:
    """As `interleave`, with the largest peaks of all rounds: one measurement beside other programs would be too small."""
    found: list[MeasuredPeaks] = []
    calls: dict[str, Callable[[], Any]] = {"peaks of the device": lambda: found.append(peaks()), **cases}
    measured = interleave(calls, num_rounds, log)
    return {name: measured[name] for name in cases}, largest(found)


def warn_if_busy(log: Log) -> None:
    """Logs a warning where other programs use the cores of this machine."""
    if (share := psutil.cpu_percent(interval=BUSY_S) / 100) > MAX_BUSY:
        log(f"warning: other programs use {share:.0%} of this machine's cores: all speeds will be too low")


def ratio(over: Figure, under: Figure, *, factor: float = 1.0) -> Figure:
    """Returns `factor` * over / under round by round, which cancels drift between rounds."""
    return Figure(tuple(factor * a / b for a, b in zip(over.values, under.values, strict=True)), "")


def command_of(arguments: Sequence[str]) -> str:
    """Returns the command that repeats a measurement in the checkout, without the option `--output`."""
    program, programs = Path(arguments[0]).resolve(), CONF.parent / "benchmarks"
    module = f"benchmarks.{program.stem}" if program.is_relative_to(programs) else "arclight"
    repeated = [
        argument
        for before, argument in itertools.pairwise(arguments)
        if before != "--output" and argument != "--output" and not argument.startswith("--output=")
    ]
    return shlex.join(["python", "-m", module, *repeated])


def make_result(
    name: str, cases: Sequence[Case], machine: MeasuredPeaks, plan: Mapping[str, Any], settings: Any, *, num_rounds: int
) -> Result:
    """Returns the cases with where, when and with what they were measured, as plain values; `settings` are the benchmark's."""
    known = collect_environment(hardware.probe())
    metadata = {
        "command": command_of(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_rounds": num_rounds,
        "device": machine.name,
        "hardware": known["hardware"],
        "machine": asdict(machine),
        "plan": {name: asdict(choice) if is_dataclass(choice) else choice for name, choice in plan.items()},  # type: ignore[arg-type]
        "python": known["python"],
        "system": known["system"],
        "packages": known["packages"],
        "git": {"commit": known["git"]["commit"], "is_clean": not run_git(["status", "--porcelain"])},
        "settings": dict(settings),
    }
    # plain values, equal to those that are read back from the file
    return Result(name, json.loads(json.dumps(metadata, default=str)), tuple(cases))


def write_result(result: Result, output: Path | None) -> Path:
    """Writes the result to `output`, or to a new file `<benchmark>-<device>-<date>.json` in RESULTS, and returns its path."""
    if output is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        described = f"{result.benchmark}-{result.metadata['device']}".lower()
        name = f"{re.sub('[^a-z0-9]+', '-', described).strip('-')}-{result.metadata['date'][:10]}"
        files = (Path(f"{path}.json") for path in alternatives(RESULTS / name))
        output = next(file for file in files if not file.exists())
    output.write_text(json.dumps(result.to_plain(), indent=2, default=str) + "\n", encoding="utf-8")
    return output


def to_table(result: Result, headings: Mapping[str, str], *, settings: Sequence[str] = (), notes: Sequence[str] = ()) -> Table:
    """Returns a row for each measured case: `settings` of the case, then the figures of `headings` that any case has."""
    metadata = result.metadata
    missing = [f"{case.name}: {case.missing}" for case in result.cases if case.missing is not None]
    table = Table(title_justify="left", caption_justify="left")
    table.title = Text(f"{result.benchmark} on {metadata['device']}, n = {metadata['num_rounds']}")
    flops = ", ".join(f"{name} {significant(value / 1e9, 3)}" for name, value in metadata["machine"]["flops"].items())
    copied = significant(metadata["machine"]["copy_bytes_per_s"] / 1e9, 3)
    table.caption = Text("\n".join([*notes, f"measured peaks, GFLOP/s: {flops}; copy {copied} GB/s", *missing]))
    shown = {name: text for name, text in headings.items() if any(name in case.figures for case in result.cases)}
    for heading in ("", *settings, *shown.values()):
        table.add_column(heading, justify="right" if heading in shown.values() else "left")
    for case in result.cases:
        if case.missing is None:
            known = [str(case.settings.get(name, "")) for name in settings]
            table.add_row(Text(case.name), *known, *(cell(case.figures.get(name), name) for name in shown))
    return table


def cell(figure: Figure | None, name: str) -> str:
    """Returns the text of a figure by its name: a percentage of fractions of a whole, a median, or a median with its range."""
    if figure is None:
        return ""
    if name in FRACTIONS or name.endswith("_share"):
        return f"{figure.median:.0%}"
    return significant(figure.median, 3) if name in WITHOUT_RANGE else figure.to_text()
