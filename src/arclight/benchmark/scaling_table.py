"""The tables of `benchmark scaling`, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from arclight.benchmark.measurement import Case, Result, significant
from arclight.benchmark.precision import limits

OVERHEAD_TARGET = 1.03
SPEED = {
    "samples": "samples/s",
    "step": "ms a step",
    "speedup": "speed-up",
    "efficiency": "efficiency",
    "overhead": "over single",
    "peak_share": "share of peak",
}
COMMUNICATION = {
    "in_flight": "gradients on their way, ms",
    "exposed": "not hidden, ms",
    "exposed_share": "of the step",
    "floor": "at least, ms",
    "all_reduce": "all-reduce, GB/s",
}
SHARES = {"peak_share", "exposed_share"}
WITH_SPREAD = {"samples", "speedup", "efficiency", "overhead", "exposed"}


def to_table(result: Result) -> Table:
    """A row for each case: speed, and what it is over one device."""
    table = new_table(f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}")
    fill(table, result.cases, SPEED)
    lines = [limits(result.facts["machine"])]
    if any("overhead" in case.figures for case in result.cases):
        lines.append(f"ddp with one process is meant to take at most {OVERHEAD_TARGET} times as long as a single one")
    table.caption = Text("\n".join(lines))
    return table


def to_communication_table(result: Result) -> Table:
    """A row for each case of several processes: what they spend on each other in a step."""
    table = new_table("time in communication")
    fill(table, (case for case in result.cases if "exposed" in case.figures), COMMUNICATION)
    return table


def to_short_table(result: Result) -> Table:
    """One device with nothing tuned, one device as `auto` has it, and several; factors in samples per second."""
    table = new_table("one device plain, one device library-tuned, several devices")
    for heading in ("", "samples/s", "factor"):
        table.add_column(heading, justify="right" if heading else "left")
    untuned = next(case for case in result.cases if case.settings["kind"] == "untuned")
    tuned = next(case for case in result.cases if case.settings["kind"] == "one")
    rows = {"one device, plain": untuned, "one device, library-tuned": tuned}
    rows |= {case.name: case for case in result.cases if case.settings["kind"] in ("strong", "weak")}
    for name, case in rows.items():
        factor = case.figures["samples"].median / untuned.figures["samples"].median
        table.add_row(Text(name), cell(case, "samples"), f"{factor:.2f}")
    return table


def new_table(title: str) -> Table:
    """An empty one with its title."""
    return Table(title=Text(title), title_justify="left", caption_justify="left")


def fill(table: Table, cases: Iterable[Case], columns: Mapping[str, str]) -> None:
    """A row for each case, without the columns that none of them has."""
    rows = list(cases)
    shown = {name: heading for name, heading in columns.items() if any(name in case.figures for case in rows)}
    for heading in ("case", "batch", *shown.values()):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for case in rows:
        table.add_row(Text(case.name), str(case.settings["batch_size"]), *(cell(case, name) for name in shown))


def cell(case: Case, name: str) -> Text:
    """The figure of a case; nothing where it has none."""
    if name not in case.figures:
        return Text("")
    figure = case.figures[name]
    if name in SHARES:
        return Text(f"{figure.median:.0%}")
    return Text(figure.to_text() if name in WITH_SPREAD else significant(figure.median, 3))
