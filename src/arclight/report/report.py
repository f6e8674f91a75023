"""One HTML page about a run: summary, scores, curves, tables, speed, environment, and the command that reproduces it.

The page is built from the files of a run directory alone, so it can be rebuilt at any time, also for runs that failed or were
stopped. It is one file without scripts and external resources. The same files give the same bytes.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from arclight.config.atomic_file import read_file, whole
from arclight.config.compose import read_settings
from arclight.config.redaction import LEFT_OUT, hide_in_override, without_secrets
from arclight.errors import InputError
from arclight.metrics.bootstrap import confidence_interval, f1_score
from arclight.metrics.calibration import calibrate
from arclight.metrics.records import metric_counts, parse_lines
from arclight.report.config_diff import changed_settings
from arclight.report.figures import calibration_chart, metric_charts, read_series
from arclight.report.narrative import main_metric, read_epochs, summarize_run
from arclight.report.page import STEP_FRACTIONS, expect, format_value, is_empty, label, templates, write_page
from arclight.report.samples import read_dataset_summary, read_errors

OFFERED = ("scores.json", "predictions.jsonl", "mistakes.json", "data.json")  # files that a module may offer
MAX_NUMBERED = 12  # classes of a confusion matrix that shows its counts
MAX_INTERVALS = 60  # scores that get one; each takes some milliseconds
TOLERANCE = 1e-3  # between a stored score and that of the predictions; more means that they do not belong together


def write_report(folder: Path) -> Path:
    """Writes `report.html` from the other files of a run directory, atomically, and returns its path.

    A missing or damaged file costs only its own part of the page, which then says so in one line.

    Raises:
        InputError: when `folder` is not a directory.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a directory; pass one such as outputs/cifar10-cnn/2026-01-31_12-00-00")
    write_page(folder / "report.html", _page(folder))
    return folder / "report.html"


def _page(folder: Path) -> str:
    template = templates().get_template("report.html.j2")
    run = folder.resolve()
    results = _part(folder, "results.json", _results)
    all_results = (results["content"] or {}).get("all", {})
    tested = _part(folder, "predictions.jsonl", lambda text: _tested(text, all_results))
    scores = _part(folder, "scores.json", _scores)
    errors = _part(folder, "mistakes.json", read_errors)
    data = _part(folder, "data.json", read_dataset_summary)
    interval = tested["content"]["intervals"].get(main_metric(all_results) or "") if tested["content"] else None
    epochs = _part(folder, "metrics.csv", lambda text: read_epochs(read_series(text, all_results)))
    offered = {"scores": scores, "tested": tested, "errors": errors, "data": data}
    trained = {
        "curves": _part(folder, "metrics.csv", lambda text: metric_charts(read_series(text, all_results))),
        "environment": _part(folder, "environment.json", _environment),
        "command": _part(folder, "overrides.txt", _command),
        "config": _part(folder, "config.yaml", lambda text: _config(text, all_results)),
    }
    optional = [*trained.values(), *offered.values()] if "evaluated" in all_results else []  # no training: nothing is missing
    if all_results.get("status") == "finished" and not any((folder / name).exists() for name in OFFERED):
        optional += offered.values()  # nor where the module offers none of them
    for part in optional:
        part["problem"] = ""
    return template.render(
        **offered,
        **trained,
        name=f"{run.parent.name}/{run.name}",
        results=results,
        summary=summarize_run(all_results, epochs["content"] or [], interval),
        step_fractions=STEP_FRACTIONS,
    )


def _part(folder: Path, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Returns the parsed content of a file, or one line that says why there is none."""
    try:
        return {"content": parse(read_file(folder / name)), "problem": ""}
    except FileNotFoundError:
        problem = f"There is no {name} in this directory."
    except OSError as error:  # its whole message would show a path of this machine
        problem = f"{name} cannot be read: {error.strerror}."
    except (ValueError, csv.Error, RecursionError) as error:
        problem = f"{name} is damaged: {error}."
    return {"content": None, "problem": problem}


def _results(text: str) -> dict[str, Any]:
    results = without_secrets(expect(dict, json.loads(text, parse_int=whole)))
    metrics = dict.fromkeys(key.partition("/")[2] for key in results if key.startswith(("val/", "test/")))
    return {"all": results, "main_metric": main_metric(results), "metrics": list(metrics)}


def _tested(text: str, results: dict[str, Any]) -> dict[str, Any]:
    """Returns intervals of the test scores that the predictions reproduce, and their calibration."""
    predictions = parse_lines(text, "line")
    if not predictions:
        raise ValueError("it holds no predictions")
    intervals = {}
    for name, counts in itertools.islice(metric_counts(predictions).items(), MAX_INTERVALS):
        stored = results.get(f"test/{name}")
        if isinstance(stored, int | float) and abs(float(f1_score(counts.sum(0))) - stored) < TOLERANCE:
            intervals[f"test/{name}"] = confidence_interval(counts)
    calibration = calibrate(predictions)
    figure = calibration_chart(calibration) if calibration else None
    return {"intervals": intervals, "calibration": calibration, "figure": figure, "unit": predictions[0].unit}


def _scores(text: str) -> dict[str, Any]:
    scores = without_secrets(expect(dict, json.loads(text)))
    tables = [expect(dict, table) for table in expect(list, scores.get("tables") or [])]
    for table in tables:
        for part in ("rows", "averages"):
            table[part] = [expect(dict, row) for row in expect(list, table.get(part) or [])]
    return {"tables": tables, "confusion": _confusion(expect(dict, scores["confusion"])) if scores.get("confusion") else None}


def _confusion(confusion: dict[str, Any]) -> dict[str, Any]:
    """Returns the non-empty cells: row, column, count, fraction of the row; many cells are merged into ten tints."""
    labels = [str(label) for label in expect(list, confusion.get("labels"))]
    counts = [expect(list, row) for row in expect(list, confusion.get("counts"))]
    is_valid = all(isinstance(count, int) and count >= 0 for row in counts for count in row)
    if not labels or not is_valid or [len(row) for row in counts] != [len(labels)] * len(labels):
        raise ValueError("the confusion matrix must have one row and one column of whole numbers for each label")
    totals = [sum(row) for row in counts]
    cells = [(y, x, count, count / totals[y]) for y, row in enumerate(counts) for x, count in enumerate(row) if count]
    tints: dict[tuple[bool, int], str] = {}
    if len(labels) > MAX_NUMBERED:
        for y, x, _, share in cells:
            tint = (x == y, math.ceil(10 * math.sqrt(share)))
            tints[tint] = f"{tints.get(tint, '')}M{x} {y}h1v1h-1z"
    confusions = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))[:10]
    drawn = {"tints": sorted(tints.items()), "cells": [] if tints else cells}
    return {"title": confusion.get("title"), "labels": labels, "totals": totals, "confusions": confusions, **drawn}


def _environment(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    values = without_secrets(expect(dict, json.loads(text)))
    groups = {name: values.pop(name) for name, inner in [*values.items()] if isinstance(inner, dict)}
    return [(name, rows) for name, group in [*groups.items(), ("more", values)] if (rows := list(_flat(group, "")))]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        yield from _flat(dict(enumerate(value)), name)
    elif isinstance(value, str) and "\n" in value.strip():
        yield label(name), f"{len(value.splitlines()):,} lines, in environment.json"
    elif name.endswith("_bytes") and isinstance(value, int):
        yield label(name.removesuffix("_bytes")), format_value(value / 1e9, "GB")
    elif not is_empty(value):
        yield label(name), ", ".join(map(format_value, value)) if isinstance(value, list) else format_value(value)


def _command(text: str) -> dict[str, Any]:
    overrides = [line for line in text.split("\n") if line.strip()]
    kept = [override for override in map(hide_in_override, overrides) if LEFT_OUT not in override]
    return {"line": shlex.join(["python", "train.py", *kept]), "num_left_out": len(overrides) - len(kept)}


def _config(text: str, results: dict[str, Any]) -> dict[str, Any]:
    import yaml

    kept = without_secrets(read_settings(text))
    changed = changed_settings(kept, data=str(results.get("data", "")), model=str(results.get("model", "")))
    return {"text": str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)), "changes": changed}
