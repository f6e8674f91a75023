"""One HTML page about a run: verdict, scores, curves, tables, speed, environment, and the command that makes the run again.

The page is made of the files in a run folder alone, so it can be made again at any time, also for runs that failed or stopped
half-way. It is one file, holds no script and asks for nothing from elsewhere. The same files give the same bytes.
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
import shlex
import statistics
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from arclight.errors import InputError

# Colour and dashes of each line; every colour has a contrast of 3 or more to the light and to the dark ground.
# Source: Okabe and Ito, Color Universal Design (2008), its blue lightened, without the hues that are too pale on white.
LINES = (("#1c7fc4", (1, 0)), ("#d55e00", (6, 2)), ("#009e73", (2, 2)), ("#cc79a7", (8, 2, 2, 2)), ("#7f7f7f", (4, 4)))
INK = "#010203"  # stands in matplotlib's SVG where the page's own colour of text shall be
MOST_POINTS = 400  # of a line; more are averaged
MOST_NUMBERED = 12  # classes up to which a confusion matrix shows its counts

SECRET_NAME = r"(?:pass(?:word|wd|phrase)|secret|credential|(?:api|access|private)[-_]?key|authorization)[\w-]*"  # noqa: S105  # a pattern, no password
TOKEN_NAME = r"(?:token|auth|pwd)s?"  # noqa: S105  # a number under such a name is a count, not a secret
SECRET_TEXT = re.compile(
    rf"{SECRET_NAME}['\"]?\s*[=:]\s*\S+"
    rf"|{TOKEN_NAME}['\"]?\s*[=:]\s*(?!(?:[\d.]+(?:e[-+]?\d+)?|null|true|false)(?!\w))\S+"
    r"|\b(?:hf_|gh[a-z]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA)[\w-]{12,}"  # as well-known services begin theirs
    r"|(?<=//)[^/\s@]+(?=@)",  # user and password inside an address
    re.IGNORECASE,
)


def write_report(folder: Path) -> Path:
    """The path of `report.html`, made anew from the other files of a run folder and put there in one move.

    A file that is missing or broken costs its own part of the page, which then says so in one line.

    Raises:
        InputError: when `folder` is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder; give a run's folder, such as outputs/cifar10-cnn/2026-01-31_12-00-00")
    report = folder / "report.html"
    unfinished = folder / f".report.html.{os.getpid()}"
    try:
        # a lone surrogate, which JSON can hold and UTF-8 cannot, becomes "?"
        unfinished.write_text(_page(folder), encoding="utf-8", errors="replace", newline="\n")
        unfinished.replace(report)
    finally:
        unfinished.unlink(missing_ok=True)
    return report


def _page(folder: Path) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(shown=_shown, duration=_duration, short=_short)
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    run = folder.resolve()
    return template.render(
        name=f"{run.parent.name}/{run.name}",
        results=_part(folder, "results.json", _results),
        curves=_part(folder, "metrics.csv", _curves),
        scores=_part(folder, "scores.json", _scores),
        environment=_part(folder, "environment.json", _environment),
        command=_part(folder, "overrides.txt", _command),
        config=_part(folder, "config.yaml", _config),
    )


def _part(folder: Path, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What one file gives to the page: its content, or one line that says why there is none."""
    try:
        return {"content": parse((folder / name).read_text(encoding="utf-8")), "problem": ""}
    except FileNotFoundError:
        problem = f"There is no {name} in this folder."
    except OSError as error:  # its whole message would show where on this machine the folder lies
        problem = f"{name} cannot be read: {error.strerror}."
    except (ValueError, csv.Error, RecursionError) as error:
        problem = f"{name} is broken: {error}."
    return {"content": None, "problem": problem}


def _only(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


def _without_secrets(value: Any) -> Any:
    """The same nested value without the entries that are named like keys, tokens or passwords."""
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items() if not _is_secret(str(key), inner)}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return SECRET_TEXT.sub("(left out)", value) if isinstance(value, str) else value


def _is_secret(key: str, value: Any) -> bool:
    names = SECRET_NAME if isinstance(value, int | float | None) else f"{SECRET_NAME}|{TOKEN_NAME}"
    return re.search(f"(?:{names})$", key, re.IGNORECASE) is not None


def _shown(value: Any, unit: str = "") -> str:
    """A number with its unit, four digits and those before the point; other values as text.

    "share" is the unit of 0..1, shown in percent; "name" that of numbers that are not counted or measured, such as a seed.
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float) or unit == "name":
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return text if len(text) <= 300 else f"{text[:300]}…"
    if not isinstance(value, int) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if unit == "share" and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return f"{number} {unit}" if unit not in ("", "share") else number


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 60 <= seconds < 1e9:
        return _shown(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _short(name: str, width: int = 13) -> str:
    """The name, cut to what fits beside a matrix; letters of East Asian scripts take two places."""
    places = [*itertools.accumulate(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)]
    return name if not places or places[-1] <= width else name[: bisect.bisect_left(places, width)] + "…"


def _results(text: str) -> dict[str, Any]:
    results = _without_secrets(_only(dict, json.loads(text)))
    wanted = [f"{split}/{metric}" for split in ("test", "val") for metric in ("f1", "accuracy")]
    metrics = dict.fromkeys(key.partition("/")[2] for key in results if key.startswith(("val/", "test/")))
    return {"all": results, "headline": next((key for key in wanted if key in results), None), "metrics": list(metrics)}


def _curves(text: str) -> list[dict[str, Any]]:
    """Figures of loss, validation scores and learning rate; those of which nothing was logged are left out."""
    series = _series(text)
    chosen = {
        "Loss": [name for name in series if re.fullmatch(r"(train|val)/loss(_step|_epoch)?", name)],
        "Validation scores": [name for name in series if re.fullmatch(r"val/[^/]+", name) and "loss" not in name],
        "Learning rate": [name for name in series if re.match(r"lr\b", name)],
    }
    figures = []
    for title, names in chosen.items():
        lines = {name: sorted(series[name].items()) for name in names[: len(LINES)]}
        notes = [
            f"{name}: {len(odd)} of {len(points)} values are NaN or infinite, the first at step {odd[0]:,.0f}."
            for name, points in lines.items()
            if (odd := [step for step, value in points if not _is_drawable(value)])
        ]
        if names[len(LINES) :]:
            notes.append(f"Logged too, not drawn: {', '.join(names[len(LINES) :])}.")
        if any(len(points) > MOST_POINTS for points in lines.values()):
            notes.append(f"Lines of more than {MOST_POINTS} points are drawn as means of neighbouring points.")
        if lines:
            legend = [(name, *line) for name, line in zip(lines, LINES, strict=False)]
            figures.append({"title": title, "legend": legend, "notes": notes, "svg": _draw(title, lines)})
    if not figures:
        raise ValueError("it holds no loss, no validation score and no learning rate")
    return figures


def _series(text: str) -> dict[str, dict[float, float]]:
    """Metric -> step -> value. A step that a resumed run logged once more counts with its last value."""
    reader = csv.DictReader(io.StringIO(text))
    if "step" not in (reader.fieldnames or ()):
        raise ValueError("it has no column 'step'")
    series: dict[str, dict[float, float]] = {}
    for row in reader:
        for name, cell in row.items():
            with contextlib.suppress(TypeError, ValueError):  # an empty cell, or a line that was cut off
                if name not in ("step", "epoch") and _is_drawable(step := float(row["step"])):
                    series.setdefault(name, {})[step] = float(cell)
    return series


def _is_drawable(value: float) -> bool:
    return abs(value) < 1e30  # false for NaN too


def _thin(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    steps = [statistics.fmean(step for step, _ in group) for group in groups]
    means = [sum(value for _, value in group) / len(group) for group in groups]
    return steps, [mean if _is_drawable(mean) else math.nan for mean in means]


def _draw(title: str, lines: dict[str, list[tuple[float, float]]]) -> Any:
    """Markup of an SVG element with one line per metric over the steps; its only texts are numbers and "step"."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    inked = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK)
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, **inked}]):
        figure = Figure(figsize=(4.8, 2.7), layout="constrained")
        axes = figure.add_subplot()
        drawn: list[float] = []
        for points, (colour, dashes) in zip(lines.values(), LINES, strict=False):
            steps, values = _thin(points)
            axes.plot(steps, values, color=colour, linewidth=1.6, dashes=dashes, marker="o" * (len(steps) <= 20), markersize=3)
            drawn += [value for value in values if not math.isnan(value)]
        if title == "Loss" and drawn and 0 < 50 * min(drawn) < max(drawn):
            axes.set_yscale("log")
            axes.yaxis.set(major_locator=LogLocator(subs=(1, 3)), minor_formatter=NullFormatter())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set(major_formatter=EngFormatter(sep=""), label_text="step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.15, linewidth=0.6)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue().replace(INK, "currentColor")
    box, inside = re.findall(r'<svg [^>]*(viewBox="[^"]*")[^>]*>(.*)', svg, re.DOTALL)[0]
    # a page may hold an id once only, and a style of matplotlib's would rule the whole page
    inside = re.sub(r"<style.*?</style>|(?<=<g) id=\"[^\"]*\"", "", inside, flags=re.DOTALL)
    return Markup(f'<svg {box} role="img" aria-label="{title}">{inside}')  # noqa: S704  # matplotlib's, numbers only


def _scores(text: str) -> dict[str, Any]:
    scores = _without_secrets(_only(dict, json.loads(text)))
    tables = [_only(dict, table) for table in _only(list, scores.get("tables") or [])]
    for table in tables:
        for part in ("rows", "averages"):
            table[part] = [_only(dict, row) for row in _only(list, table.get(part) or [])]
    return {"tables": tables, "confusion": _confusion(_only(dict, scores["confusion"])) if scores.get("confusion") else None}


def _confusion(confusion: dict[str, Any]) -> dict[str, Any]:
    """The matrix as cells that are not empty: row, column, count, share of the row; many cells are merged into ten tints."""
    labels = [str(label) for label in _only(list, confusion.get("labels"))]
    counts = [_only(list, row) for row in _only(list, confusion.get("counts"))]
    whole = all(isinstance(count, int) and count >= 0 for row in counts for count in row)
    if not labels or not whole or [len(row) for row in counts] != [len(labels)] * len(labels):
        raise ValueError("the confusion matrix must hold one row and one column of whole numbers for each label")
    totals = [sum(row) for row in counts]
    cells = [(y, x, count, count / totals[y]) for y, row in enumerate(counts) for x, count in enumerate(row) if count]
    tints: dict[tuple[bool, int], str] = {}
    if len(labels) > MOST_NUMBERED:
        for y, x, _, share in cells:
            tint = (x == y, math.ceil(10 * math.sqrt(share)))
            tints[tint] = f"{tints.get(tint, '')}M{x} {y}h1v1h-1z"
    mistakes = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))[:10]
    drawn = {"tints": sorted(tints.items()), "cells": [] if tints else cells}
    return {"title": confusion.get("title"), "labels": labels, "totals": totals, "mistakes": mistakes, **drawn}


def _environment(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    facts = _without_secrets(_only(dict, json.loads(text)))
    groups = {name: facts.pop(name) for name, inner in [*facts.items()] if isinstance(inner, dict)}
    return [(name, list(_flat(group, ""))) for name, group in [*groups.items(), ("more", facts)] if group]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        yield from _flat(dict(enumerate(value)), name)
    elif isinstance(value, str) and "\n" in value.strip():
        yield name, f"{len(value.splitlines()):,} lines, in environment.json"
    else:
        yield name, ", ".join(map(_shown, value)) if isinstance(value, list) else _shown(value)


def _command(text: str) -> dict[str, Any]:
    overrides = [line for line in text.split("\n") if line.strip()]
    kept = [override for override in overrides if not SECRET_TEXT.search(override)]
    return {"line": shlex.join(["python", "train.py", *kept]), "num_left_out": len(overrides) - len(kept)}


def _config(text: str) -> str:
    import yaml

    try:
        config = _only(dict, yaml.safe_load(text))
    except yaml.YAMLError as error:  # its whole message would quote the line, secrets and all
        raise ValueError(getattr(error, "problem", None) or "it is not YAML") from error
    return str(yaml.safe_dump(_without_secrets(config), sort_keys=False, allow_unicode=True, width=100))
