"""Charts as inline SVG: transparent, in the text colour of the page, light or dark."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arclight.console.terminal import printable
from arclight.interfaces import standard_name
from arclight.metrics.calibration import NUM_BINS, Calibration

Lines = dict[str, list[tuple[float, float]]]
Style = tuple[str, tuple[int, ...]]

# Colour and dashes of each line. Every colour has a contrast of 3 or more to the light and the dark background; the second five
# repeat the colours of the first with other dashes.
# Source: Okabe and Ito, Color Universal Design (2008), its blue lightened, without the hues that are too pale on white.
LINES: tuple[Style, ...] = (
    ("#1c7fc4", (1, 0)),
    ("#d55e00", (6, 2)),
    ("#009e73", (2, 2)),
    ("#cc79a7", (8, 2, 2, 2)),
    ("#7f7f7f", (4, 4)),
    ("#1c7fc4", (5, 3)),
    ("#d55e00", (1, 0)),
    ("#009e73", (1, 0)),
    ("#cc79a7", (1, 0)),
    ("#7f7f7f", (1, 0)),
)
INK = "#010203"  # replaced by the text colour of the page
# Metrics with a chart or a table of their own, and those of the engine
KNOWN = re.compile(r"(train|val)/loss(_step|_epoch)?$|val/|test/|lr\b|epoch$|.*_per_s$")
MAX_POINTS = 400  # of a line; more are averaged


def metric_charts(series: dict[str, dict[float, float]]) -> list[dict[str, Any]]:
    """Returns charts of loss, validation scores, learning rate and all else that a module logged; none without values."""
    chosen = {
        "Loss": [name for name in series if re.fullmatch(r"(train|val)/loss(_step|_epoch)?", name)],
        "Validation scores": [name for name in series if re.fullmatch(r"val/[^/]+", name) and "loss" not in name],
        "Other metrics": [name for name in series if not KNOWN.match(name)],
        "Learning rate": [name for name in series if re.match(r"lr\b", name)],
    }
    figures = []
    for title, names in chosen.items():
        lines = {name: sorted(series[name].items()) for name in names[: len(LINES)]}
        notes = [
            f"{name}: {len(odd)} of {len(points)} values are NaN or infinite, the first at step {odd[0]:,.0f}."
            for name, points in lines.items()
            if (odd := [step for step, value in points if not is_drawable(value)])
        ]
        if names[len(LINES) :]:
            notes.append(f"Logged but not drawn: {', '.join(names[len(LINES) :])}.")
        if any(len(points) > MAX_POINTS for points in lines.values()):
            notes.append(f"Lines of more than {MAX_POINTS} points show means of neighbouring points.")
        if lines:
            legend = [(name, *line) for name, line in zip(lines, LINES, strict=False)]
            figures.append(
                {"title": title, "legend": legend, "notes": notes, "svg": line_chart(title, lines, logarithmic=title == "Loss")}
            )
    if not figures:
        raise ValueError("no metric was logged")
    return figures


def read_series(text: str, results: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    """Returns metric -> step -> value; of a step that a resumed run logged again, the last value.

    Metrics of validation and test have the names that they have in `results`.
    """
    reader = csv.DictReader(io.StringIO(text))
    if "step" not in (reader.fieldnames or ()):
        raise ValueError("it has no column 'step'")
    series: dict[str, dict[float, float]] = {}
    names = standard_names(reader.fieldnames or (), results)
    for row in reader:
        for name, cell in row.items():
            with contextlib.suppress(TypeError, ValueError):  # an empty cell, or a line that was cut off
                if name != "step" and is_drawable(step := float(row["step"])):
                    series.setdefault(names.get(name, name), {})[step] = float(cell)
    return series


def standard_names(columns: Sequence[str], results: Mapping[str, Any]) -> dict[str, str]:
    """Returns the key in results.json of each column whose metric was logged under another name, such as "val_acc" or "acc"."""
    names = {name: standard_name(split, name) for split in ("val", "test") for name in columns if name.startswith(f"{split}_")}
    for key in (str(results.get("monitor")), *results):
        split, _, name = key.partition("/")
        if split in ("val", "test") and name in columns and key not in names.values():
            names.setdefault(name, key)
    return {name: key for name, key in names.items() if key not in columns}


def is_drawable(value: float) -> bool:
    return abs(value) < 1e30  # false for NaN


def _thin(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    size = -(-len(points) // MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    steps = [statistics.fmean(step for step, _ in group) for group in groups]
    means = [sum(value for _, value in group) / len(group) for group in groups]
    return steps, [mean if is_drawable(mean) else math.nan for mean in means]


def line_chart(title: str, lines: Lines, *, logarithmic: bool = False, styles: Sequence[Style] = LINES) -> Any:
    """Returns an SVG element with a line per entry over the steps."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    with figure(title, (4.8, 2.7)) as (axes, markup):
        drawn: list[float] = []
        for points, (colour, dashes) in zip(lines.values(), styles, strict=False):
            steps, values = _thin(points)
            axes.plot(steps, values, color=colour, linewidth=1.6, dashes=dashes, marker="o" * (len(steps) <= 20), markersize=3)
            drawn += [value for value in values if not math.isnan(value)]
        if logarithmic and drawn and 0 < 50 * min(drawn) < max(drawn):
            axes.set_yscale("log")
            axes.yaxis.set(major_locator=LogLocator(subs=(1, 3)), minor_formatter=NullFormatter())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        if len({*drawn}) == 1:  # matplotlib would show ticks around it that mean nothing
            axes.set_yticks(drawn[:1])
        axes.xaxis.set(major_formatter=EngFormatter(sep=""), label_text="step")
    return markup[0]


def calibration_chart(calibration: Calibration) -> Any:
    """Returns the reliability diagram: accuracy of each confidence bin, and the diagonal of perfect calibration."""
    with figure("Reliability", (3.6, 3.2)) as (axes, markup):
        width = 1 / NUM_BINS
        places = [min(int(part.confidence * NUM_BINS), NUM_BINS - 1) * width for part in calibration.bins]
        means, accuracies = [part.confidence for part in calibration.bins], [part.accuracy for part in calibration.bins]
        axes.bar(places, accuracies, width=0.9 * width, align="edge", color=LINES[0][0], alpha=0.75)
        for place, part in zip(places, calibration.bins, strict=True):  # above all bars, where the diagonal does not cross them
            number = f"{part.num:,}" if part.num < 10_000 else f"{part.num / 1000:,.0f}k"
            axes.text(place + 0.45 * width, 1.02, number, fontsize=6.5, ha="center", color=INK)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, dashes=(4, 3))
        axes.plot(means, accuracies, color=LINES[1][0], marker="D", markersize=4, linewidth=0)
        axes.set(xlim=(0, 1), ylim=(0, 1.08), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1], xlabel="confidence", ylabel="accuracy")
    return markup[0]


def length_chart(lengths: dict[str, dict[int, int]], unit: str) -> Any:
    """Returns the distribution of sample lengths by split, in percent; the longest percent is left out."""
    with figure("Lengths", (4.8, 2.3)) as (axes, markup):
        longest = 1
        for (colour, dashes), counts in zip(LINES, lengths.values(), strict=False):
            total, seen = sum(counts.values()) or 1, 0
            for length in sorted(counts):
                seen += counts[length]
                if seen <= 0.99 * total:
                    longest = max(longest, length)
            percents = [100 * counts.get(length, 0) / total for length in range(max(counts, default=0) + 1)]
            axes.plot(percents, color=colour, dashes=dashes, linewidth=1.4)
        axes.set(xlim=(0, longest + 1), ylabel="% of samples")
        axes.set_xlabel(printable(unit), parse_math=False)  # a stranger's text: "$" begins no formula
    return markup[0]


@contextlib.contextmanager
def figure(title: str, size: tuple[float, float]) -> Iterator[tuple[Any, list[Any]]]:
    """Context manager that yields axes and a list that afterwards holds their SVG; matplotlib's global state is unchanged."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure

    inked = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK)
    markup: list[Any] = []
    title = printable(title)
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, **inked}]):
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.15, linewidth=0.6)
        yield axes, markup
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue().replace(INK, "currentColor")
    box, inside = re.findall(r'<svg [^>]*viewBox="([^"]*)"[^>]*>(.*)', svg, re.DOTALL)[0]
    # ids must be unique in a page, and matplotlib's style would apply to the whole page
    inside = re.sub(r"<style.*?</style>|(?<=<g) id=\"[^\"]*\"", "", inside, flags=re.DOTALL)
    drawn = Markup(inside)  # noqa: S704  # written by matplotlib, which escapes its texts
    markup.append(Markup('<svg viewBox="{}" role="img" aria-label="{}">{}').format(box, title, drawn))
