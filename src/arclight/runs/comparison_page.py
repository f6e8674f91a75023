"""A comparison as terminal tables and as one HTML page."""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from arclight.config.atomic_file import read_file
from arclight.console.terminal import decimals_of, format_metric, score_table
from arclight.interfaces import is_of_one_class
from arclight.metrics.significance import mean_interval
from arclight.report.figures import LINES, line_chart, read_series
from arclight.report.page import format_value, shorten, templates, write_page
from arclight.runs.comparison import Comparison, Group, conclusions, format_p
from arclight.runs.run import Run

if TYPE_CHECKING:
    from rich.table import Table

Rows = list[tuple[str, list[str]]]  # names and cells

CURVES = ("train/loss", "val/loss")  # and the monitored metric
MAX_VALUE_LENGTH = 40  # characters of a setting in a legend
NAME_WIDTH, GROUP_WIDTH = 30, 23  # columns of a terminal
PAIR_HEADINGS = ("difference", "95 % interval", "p", "covers")
MIN_SETTINGS = 2  # in a legend
MAX_DECIMALS = 6
MAX_CHARTS = 16
NOT_DRAWN = re.compile(r"(epoch|step)$|test/|val/f1/")


def mean_and_sd(values: Sequence[float]) -> str:
    """Returns mean, standard deviation and number of the values as text: three significant figures or more."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    is_whole = all(value == int(value) for value in values if math.isfinite(value))
    if is_whole and len(set(values)) == 1:
        return f"{mean:,.0f} ({len(values)})"
    if len(values) == 1:
        return f"{format_metric(mean)} (1)"
    sd = statistics.stdev(values)
    if not 1e-4 <= abs(mean) < 1e15 or not sd:
        return f"{format_metric(mean)} ± {sd:.2g} ({len(values)})"
    decimals = max(decimals_of(mean), min(decimals_of(sd, 1), MAX_DECIMALS))
    of_sd = min(decimals_of(sd, 2), MAX_DECIMALS + 1)
    parts = [f"{round(value, places):,.{max(0, places)}f}" for value, places in ((mean, decimals), (sd, of_sd))]
    return f"{' ± '.join(parts)} ({len(values)})"


def number_rows(comparison: Comparison) -> tuple[Rows, Rows]:
    """Returns name and cells of each metric, and of each metric of one class."""
    rows = [(name, [mean_and_sd(group.values(name)) for group in comparison.groups]) for name in comparison.metrics]
    return [row for row in rows if not is_of_one_class(row[0])], [row for row in rows if is_of_one_class(row[0])]


def setting_rows(comparison: Comparison) -> Rows:
    """Returns name and cells of each setting in which the groups differ."""
    return [(key, [format_value(value, "name") for value in values]) for key, values in comparison.settings.items()]


def pair_rows(comparison: Comparison) -> Rows:
    """Returns name and cells of each pair."""
    first = comparison.groups[0].letter
    rows = []
    for (letter, name), pair in comparison.pairs.items():
        value, low, high = (format_metric(number) if number <= 0 else f"+{format_metric(number)}" for number in pair[:3])
        rows.append(
            (
                f"{letter} - {first}, {name}",
                [value, f"{low} to {high}", format_p(pair.p).removeprefix("p ").removeprefix("= "), pair.covers],
            )
        )
    return rows


def interval_rows(comparison: Comparison) -> Rows:
    """Returns name and 95 % interval of the mean over seeds of each group, for metrics of validation and test."""
    rows = []
    for name, _ in number_rows(comparison)[0]:
        if name.startswith(("val/", "test/")):
            intervals = [mean_interval(group.seeds.values(name)) for group in comparison.groups]
            cells = [" to ".join(map(format_metric, interval)) if interval else "" for interval in intervals]
            rows += [(name, cells)] if any(cells) else []
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
    charts, not_drawn = curve_charts(groups)
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
            intervals=interval_rows(comparison),
            curves=charts,
            not_drawn=not_drawn,
            lines=[(name, *line) for name, line in zip(labels(comparison), LINES, strict=False)],
            num_not_drawn=max(0, len(groups) - len(LINES)),
        )
    )
    write_page(path, page)


def count(num: int, noun: str) -> str:
    """Returns the number of things in words."""
    return f"{num} {noun}{'' if num == 1 else 's'}"


def labels(comparison: Comparison) -> list[str]:
    """Returns each group's letter with what differs: two settings, or as many as tell all groups apart."""
    chosen: list[tuple[str, list[str]]] = []
    for name, values in label_candidates(comparison):
        distinct = len(set(zip(*(own for _, own in chosen), strict=True)))
        combined = len(set(zip(*(own for _, own in chosen), values, strict=True)))
        if len(chosen) < MIN_SETTINGS or combined > distinct:
            chosen.append((name, values))
    return [
        " ".join([group.letter, *(f"{name}={shorten(values[place], MAX_VALUE_LENGTH)}" for name, values in chosen)])
        for place, group in enumerate(comparison.groups)
    ]


def label_candidates(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yields what may name the groups: options of data and model, then the settings that all have, then all others."""
    for option in ("data", "model"):
        names = [str(group.runs[0].results.get(option, "")) for group in comparison.groups]
        if len(set(names)) > 1:
            yield option, names
    settings = comparison.settings.items()
    for key, values in sorted(settings, key=lambda setting: (None in setting[1], setting[0].endswith("_target_"))):
        yield key, without_common_path(values)


def without_common_path(values: Sequence[Any]) -> list[str]:
    """Returns values as text, absolute paths without the directories that they share."""
    texts = [format_value(value, "name") for value in values]
    paths = [PurePath(text) for text in texts if PurePath(text).is_absolute()]
    if not paths:
        return texts
    depth = min(len(path.parts) for path in paths) - 1
    shared = next((level for level in range(depth) if len({path.parts[level] for path in paths}) > 1), depth)
    return [str(PurePath(*PurePath(text).parts[shared:])) if PurePath(text) in paths else text for text in texts]


def curve_charts(groups: Sequence[Group]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Returns charts of the logged metrics of all runs, in the line style of their group, and the metrics without a chart.

    The losses and the monitored metrics come first; metrics of the test and of single classes are left out.
    """
    runs = [(run, style) for group, style in zip(groups, LINES, strict=False) for run in group.runs]
    logged = [(series, style) for run, style in runs if (series := series_of(run)) is not None]
    monitors = [str(run.results.get("monitor")) for run, _ in runs]
    names = dict.fromkeys([*CURVES, *monitors, *sorted(name for series, _ in logged for name in series)])
    drawn = {
        name: [(series[name], style) for series, style in logged if name in series]
        for name in names
        if not NOT_DRAWN.match(name)
    }
    drawn = {name: lines for name, lines in drawn.items() if lines}
    charts = []
    for name, lines in [*drawn.items()][:MAX_CHARTS]:
        points = {str(number): sorted(line.items()) for number, (line, _) in enumerate(lines)}
        charts.append((name, line_chart(name, points, styles=[style for _, style in lines])))
    return charts, [*drawn][MAX_CHARTS:]


def series_of(run: Run) -> dict[str, dict[float, float]] | None:
    """Returns what a run logged; None where its metrics.csv is missing or damaged."""
    try:
        return read_series(read_file(run.folder / "metrics.csv"), run.results)
    except (OSError, ValueError, csv.Error):
        return None
