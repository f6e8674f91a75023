"""A comparison as terminal tables and as one HTML page."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.config.atomic_file import read_file
from arclight.console.terminal import score_table
from arclight.report.figures import LINES, line_chart, read_series
from arclight.report.page import format_value, shorten, templates, write_page
from arclight.runs.comparison import Comparison, Group, conclusions

if TYPE_CHECKING:
    from rich.table import Table

Rows = list[tuple[str, list[str]]]  # names and cells

CURVES = ("train/loss", "val/loss")  # and the monitored metric
MAX_VALUE_LENGTH = 40  # characters of a setting in a legend
NAME_WIDTH, GROUP_WIDTH = 30, 23  # columns of a terminal
PAIR_HEADINGS = ("difference", "95 % interval", "p")


def mean_and_sd(values: Sequence[float]) -> str:
    """Returns mean, standard deviation and number of the values as text."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    is_whole = all(value == int(value) for value in values if math.isfinite(value))
    if is_whole and len(set(values)) == 1:
        return f"{mean:,.0f} ({len(values)})"
    digits = 4 if abs(mean) < 10 and not is_whole else 1
    if len(values) == 1:
        return f"{mean:,.{digits}f} (1)"
    return f"{mean:,.{digits}f} ± {statistics.stdev(values):,.{digits}f} ({len(values)})"


def number_rows(comparison: Comparison) -> tuple[Rows, Rows]:
    """Returns name and cells of each metric, and of each metric of one class."""
    rows = [(name, [mean_and_sd(group.values(name)) for group in comparison.groups]) for name in comparison.metrics]
    return [row for row in rows if row[0].count("/") < 2], [row for row in rows if row[0].count("/") >= 2]


def setting_rows(comparison: Comparison) -> Rows:
    """Returns name and cells of each setting in which the groups differ."""
    return [(key, [format_value(value, "name") for value in values]) for key, values in comparison.settings.items()]


def pair_rows(comparison: Comparison) -> Rows:
    """Returns name and cells of each pair."""
    first = comparison.groups[0].letter
    rows = []
    for (letter, name), pair in comparison.pairs.items():
        cells = [f"{pair.value:+.4f}", f"{pair.low:+.4f} to {pair.high:+.4f}", f"{pair.p:.2g}"]
        rows.append((f"{letter} - {first}, test/{name}", cells))
    return rows


def terminal_tables(comparison: Comparison, width: int = 1000) -> list[Table]:
    """Returns tables for a terminal of `width` columns; groups that do not fit side by side get further tables."""
    letters = [f"{group.letter} ({len(group.runs)})" for group in comparison.groups]
    numbers, _ = number_rows(comparison)
    num = max(1, (width - NAME_WIDTH) // GROUP_WIDTH)
    tables = [
        score_table(title, letters[start : start + num], [[(name, cells[start : start + num]) for name, cells in content]])
        for title, content in (("different settings (runs)", setting_rows(comparison)), ("mean ± sd (n)", numbers))
        if content
        for start in range(0, len(letters), num)
    ]
    if comparison.pairs:
        tables.append(score_table("significance", PAIR_HEADINGS, [pair_rows(comparison)]))
    return tables


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Writes one self-contained HTML page with the tables and the curves of all runs."""
    groups = comparison.groups
    numbers, per_class = number_rows(comparison)
    page = (
        templates()
        .get_template("comparison.html.j2")
        .render(
            name=f"{count(sum(len(group.runs) for group in groups), 'run')} of {count(len(groups), 'config')}",
            groups=groups,
            conclusions=conclusions(comparison),
            left_out=comparison.left_out,
            settings=setting_rows(comparison),
            numbers=numbers,
            per_class=per_class,
            pair_headings=PAIR_HEADINGS,
            pairs=pair_rows(comparison),
            curves=curve_charts(groups),
            lines=[(name, *line) for name, line in zip(labels(comparison), LINES, strict=False)],
            num_not_drawn=max(0, len(groups) - len(LINES)),
        )
    )
    write_page(path, page)


def count(num: int, noun: str) -> str:
    """Returns the number of things in words."""
    return f"{num} {noun}{'' if num == 1 else 's'}"


def labels(comparison: Comparison) -> list[str]:
    """Returns each group's letter with the first two settings in which it differs."""
    firsts = setting_rows(comparison)[:2]
    return [
        " ".join([group.letter, *(f"{key}={shorten(values[place], MAX_VALUE_LENGTH)}" for key, values in firsts)])
        for place, group in enumerate(comparison.groups)
    ]


def curve_charts(groups: Sequence[Group]) -> list[tuple[str, Any]]:
    """Returns charts of losses and monitored metric of all runs, in the line style of their group."""
    monitors = dict.fromkeys(str(run.results["monitor"]) for group in groups for run in group.runs if "monitor" in run.results)
    lines: dict[str, dict[str, tuple[Any, Any]]] = {name: {} for name in (*CURVES, *monitors)}
    for group, line in zip(groups, LINES, strict=False):
        for run in group.runs:
            try:
                series = read_series(read_file(run.folder / "metrics.csv"))
            except (OSError, ValueError, csv.Error):
                continue
            for name, own in lines.items():
                if name in series:
                    own[str(run.folder)] = (sorted(series[name].items()), line)
    return [
        (name, line_chart(name, {run: points for run, (points, _) in own.items()}, styles=[style for _, style in own.values()]))
        for name, own in lines.items()
        if own
    ]
