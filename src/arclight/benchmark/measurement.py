"""What is measured and how it is kept: interleaved rounds, medians with their spread, one JSON file per benchmark.

A result file holds, under these keys:

    benchmark     its name, such as "scaling"
    command       what to type to get it again
    date          when it ended, UTC, ISO 8601
    num_rounds    how often each case was measured (n)
    device        name of the processor or GPU
    hardware      facts of the machine, as hardware.probe gives them
    machine       what it can do at most, measured in the same call: threads, FLOP/s of its products by precision, bytes/s
    plan          what `auto` takes on this machine: by setting, value and reason
    python, system, packages, git       versions; commit, and whether files differed from it
    settings      of the benchmark: overrides, sizes, FLOPs
    cases         a list; each with a name, its settings, and figures by name: unit, values (one per round), median, low, high;
                  a case that could not be measured has no figures and says why under `missing`
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

from arclight import hardware
from arclight.benchmark.options import check_counts
from arclight.config.locations import CONF, alternatives
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from arclight.runs.run_directory import collect_environment, run_git

RESULTS = CONF.parent / "benchmarks" / "results"

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One measured quantity: a value per round, in `unit`."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.values)

    def to_text(self, digits: int = 3) -> str:
        """The median and, where there are several values, what they lie between; at least so many significant digits."""
        spread = f" ({significant(self.low, digits)} to {significant(self.high, digits)})" if len(self.values) > 1 else ""
        return significant(self.median, digits) + spread


@dataclass(frozen=True)
class Case:
    """One of the things compared: its settings and what was measured of it, or why nothing was."""

    name: str
    settings: dict[str, Any]
    figures: dict[str, Figure] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True)
class Result:
    """What a benchmark found; `facts` is everything but the cases, as the docstring of this module lists it."""

    benchmark: str
    facts: dict[str, Any]
    cases: tuple[Case, ...]

    def to_plain(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"benchmark": self.benchmark, **self.facts, "cases": [case_to_plain(case) for case in self.cases]}


def significant(value: float, digits: int) -> str:
    """The value with so many significant digits, whole numbers never cut."""
    decimals = max(0, digits - len(str(int(abs(value)))) + (1 if abs(value) < 1 else 0))
    return f"{value:,.{decimals}f}"


def interleave(cases: Mapping[str, Callable[[], T]], num_rounds: int) -> dict[str, list[T]]:
    """What each case gives in each round.

    Every case is measured once in a round, so that a machine that slows down slows all alike; each round begins with another
    one, so that none always comes first.

    Raises:
        InputError: for less than one round.
    """
    check_counts({"--repeats": num_rounds})
    names = list(cases)
    measured: dict[str, list[T]] = {name: [] for name in names}
    for number in range(num_rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measured[name].append(cases[name]())
    return measured


def ratio(over: Figure, under: Figure, *, factor: float = 1.0) -> Figure:
    """Round by round `factor` * over / under: what drifts from round to round drops out."""
    return Figure(tuple(factor * a / b for a, b in zip(over.values, under.values, strict=True)), "")


def command_of(arguments: Sequence[str]) -> str:
    """What to type in the checkout to measure it again: of a program's own arguments those that do not say where results go."""
    program, root = Path(arguments[0]).resolve(), CONF.parent
    named = [str(program.relative_to(root))] if program.is_relative_to(root / "benchmarks") else ["-m", "arclight"]
    kept = [
        argument
        for before, argument in itertools.pairwise(arguments)
        if before != "--output" and argument != "--output" and not argument.startswith("--output=")
    ]
    return shlex.join(["python", *named, *kept])


def gather_facts(
    machine: MeasuredPeaks, plan: Mapping[str, Any], settings: Mapping[str, Any], *, num_rounds: int
) -> dict[str, Any]:
    """Where, when and with what it was measured.

    Args:
        machine: what it can do at most.
        plan: as hardware.plan gives it; whatever it holds is kept.
        settings: of the benchmark.
        num_rounds: how often each case was measured.
    """
    known = collect_environment(hardware.probe())
    facts = {
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
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))  # as it will come back from the file
    return plain


def check_output(output: Path | None) -> None:
    """Before minutes of measuring: whether there will be a place for the result.

    Raises:
        InputError: when `output` lies in no folder.
    """
    if output is not None and not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}; make it first")


def write_result(result: Result, output: Path | None) -> Path:
    """Writes the file and says where: `output`, or `<benchmark>-<device>-<date>.json` in RESULTS, never over another one."""
    if output is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = f"{slug(result.benchmark)}-{slug(result.facts['device'])}-{result.facts['date'][:10]}"
        files = (Path(f"{path}.json") for path in alternatives(RESULTS / name))
        output = next(file for file in files if not file.exists())
    output.write_text(json.dumps(result.to_plain(), indent=2, default=str) + "\n", encoding="utf-8")
    return output


def read_result(path: Path) -> Result:
    """The result that `write_result` wrote.

    Raises:
        InputError: when the file is not there or is none.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        cases = tuple(case_from_plain(case) for case in plain.pop("cases"))
        return Result(plain.pop("benchmark"), plain, cases)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no result of a benchmark: {error}") from error


def case_to_plain(case: Case) -> dict[str, Any]:
    """As the file holds it: figures with their median and spread spelled out."""
    figures = {
        name: {
            "unit": figure.unit,
            "median": figure.median,
            "low": figure.low,
            "high": figure.high,
            "values": list(figure.values),
        }
        for name, figure in case.figures.items()
    }
    return {"name": case.name, "settings": case.settings, "figures": figures} | (
        {} if case.missing is None else {"missing": case.missing}
    )


def case_from_plain(plain: Mapping[str, Any]) -> Case:
    """The inverse of `case_to_plain`; medians and spread follow from the values."""
    figures = {name: Figure(tuple(figure["values"]), figure["unit"]) for name, figure in plain["figures"].items()}
    return Case(plain["name"], plain["settings"], figures, plain.get("missing"))


def slug(name: str) -> str:
    """The name in small letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
