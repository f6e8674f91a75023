"""Runs side by side: what differs in their configs, their scores over seeds, and whether a difference could be chance."""

from __future__ import annotations

import glob
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arclight.config.compose import flatten
from arclight.config.differences import differences
from arclight.config.locations import find_run
from arclight.config.redaction import without_secrets
from arclight.errors import InputError
from arclight.metrics.bootstrap import Difference, paired_test
from arclight.metrics.records import Counts, Prediction, metric_counts, read_predictions
from arclight.runs.run_directory import read_config, read_results, read_status

SHOWN = ("train/samples_per_s", "train/tokens_per_s", "train/step_ms", "time/total_s", "memory/peak_mb", "epochs", "parameters")
PAIRED = ("f1", "accuracy")  # scores that a p-value is given for


@dataclass(frozen=True)
class OneRun:
    """A run folder and what its files say."""

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]
    status: str

    @property
    def seed(self) -> Any:
        return self.settings.get("seed")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed; `letter` is what they are called in the tables."""

    letter: str
    runs: tuple[OneRun, ...]

    def values(self, name: str) -> list[float]:
        """Of a number in results.json, in those runs that have it."""
        found = [run.results.get(name) for run in self.runs]
        numbers = [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
        return [float(value) for value in numbers if math.isfinite(value)]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs; `pairs` compares each group's test predictions with those of the first, by (letter, score)."""

    groups: tuple[Group, ...]
    settings: dict[str, tuple[Any, ...]]  # those that differ between groups, a value for each
    pairs: dict[tuple[str, str], Difference]
    left_out: tuple[str, ...]  # what could not be compared, and why

    @property
    def names(self) -> list[str]:
        """The numbers that are shown, scores of the test first."""
        known = dict.fromkeys(name for group in self.groups for run in group.runs for name in run.results)
        scores = [name for split in ("test/", "val/") for name in known if name.startswith(split)]
        return [name for name in [*scores, *SHOWN] if any(group.values(name) for group in self.groups)]


def compare_runs(wanted: Sequence[str]) -> Comparison:
    """The comparison of runs, in the order in which they are given.

    The p-value of a pair is that of `evaluation.resampling.compare`: a two-sided paired bootstrap over the test samples. Seeds
    are pooled: each sample counts with the sum of what all runs of a group made of it, so that a group's score is that of all
    its predictions together. It is given where all runs of both groups were tested on the same samples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 16; Koehn, 2004.

    Args:
        wanted: RUNs (folders, checkpoints, `latest`), folders of grids, patterns with `*`.

    Raises:
        InputError: when there is no such run, or fewer than two.
    """
    runs, left_out = read_runs(wanted)
    if len(runs) < 2:
        told = "".join(f"; {line}" for line in left_out)
        raise InputError(
            f"{' '.join(wanted)}: {len(runs)} run that can be compared; give two or more, or the folder of a grid{told}"
        )
    groups = grouped(runs)
    pairs, problems = pair_up(groups)
    return Comparison(groups, differing(groups), pairs, (*left_out, *problems))


def read_runs(wanted: Sequence[str]) -> tuple[list[OneRun], list[str]]:
    """The runs that can be compared, and what is said of the others.

    Those that did not finish have no test scores and are left out, unless fewer than two others are there to be compared.
    """
    told: list[str] = []
    runs: list[OneRun] = []
    for folder in dict.fromkeys(folder.resolve() for name in wanted for folder in find_runs(name)):
        if settings := read_config(folder):
            runs.append(OneRun(folder, settings, read_results(folder), read_status(folder)))
        else:
            told.append(f"{folder.name} is left out: its config.yaml cannot be read")
    finished = [run for run in runs if run.status == "finished"]
    kept = finished if len(finished) > 1 else runs
    for run in runs:
        if run.status != "finished":
            told.append(f"{run.folder.name} {'did not finish' if run in kept else 'is left out'}: it is {run.status}")
    return kept, told


def find_runs(name: str) -> list[Path]:
    """The run folders behind one argument."""
    if any(letter in name for letter in "*?["):
        found = [Path(path) for path in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  # Path's own takes no absolute pattern
        folders = [path for path in found if (path / "config.yaml").is_file()]
        if not folders:
            raise InputError(f"{name}: no run folder is called like that; outputs/ is where runs live")
        return folders
    # a run of a grid that a mistake has ended at once has left its results only
    within = sorted({file.parent for kind in ("config.yaml", "results.json") for file in Path(name).glob(f"*/{kind}")})
    return within if within and not (Path(name) / "config.yaml").is_file() else [find_run(name)]


def grouped(runs: Sequence[OneRun]) -> tuple[Group, ...]:
    """The runs by config, without their seeds, in the order in which the configs come first."""
    lists: list[list[OneRun]] = []
    for run in runs:
        same = [others for others in lists if set(differences(others[0].settings, run.settings)) <= {"seed"}]
        if same:
            same[0].append(run)
        else:
            lists.append([run])
    letters = [*string.ascii_uppercase, *(f"{one}{two}" for one in string.ascii_uppercase for two in string.ascii_uppercase)]
    if len(lists) > len(letters):
        raise InputError(f"{len(lists)} different configs are more than a table can show; give fewer runs")
    return tuple(Group(letter, tuple(members)) for letter, members in zip(letters, lists, strict=False))


def differing(groups: Sequence[Group]) -> dict[str, tuple[Any, ...]]:
    """The settings with an effect in which the groups differ."""
    settings = [without_secrets(group.runs[0].settings) for group in groups]
    flat = [dict(flatten(own)) for own in settings]
    keys = sorted({key for other in settings[1:] for key in differences(settings[0], other)} - {"seed"})
    return {key: tuple(own.get(key) for own in flat) for key in keys}


def pair_up(groups: Sequence[Group]) -> tuple[dict[tuple[str, str], Difference], list[str]]:
    """The differences from the first group, and why some are missing."""
    pairs: dict[tuple[str, str], Difference] = {}
    problems: list[str] = []
    tested: dict[str, tuple[list[Any], dict[str, Counts]]] = {}
    for group in groups if len(groups) > 1 else ():
        try:
            tested[group.letter] = pooled([read_predictions(run.folder / "predictions.jsonl") for run in group.runs])
        except ValueError as error:
            problems.append(f"{group.letter} has no p-value: {error}")
    first = tested.get(groups[0].letter)
    for group in groups[1:]:
        other = tested.get(group.letter)
        if first is None or other is None:
            continue
        if first[0] != other[0]:
            problems.append(f"{group.letter} has no p-value: it was tested on other samples than {groups[0].letter}")
            continue
        for name in PAIRED:
            if name in first[1] and name in other[1]:
                pairs[group.letter, name] = paired_test(first[1][name], other[1][name])
    return pairs, problems


def pooled(runs: Sequence[list[Prediction]]) -> tuple[list[Any], dict[str, Counts]]:
    """What is true of each sample, and the sums of the counts of several runs.

    Raises:
        ValueError: when the runs were not tested on the same samples, or on none.
    """
    truths = [[(one.index, one.truth) for one in run] for run in runs]
    if not truths[0] or any(truth != truths[0] for truth in truths):
        raise ValueError("its runs were not tested on the same samples")
    counts = [metric_counts(run) for run in runs]
    names = [name for name in PAIRED if all(name in own for own in counts)]
    return truths[0], {name: sum((own[name] for own in counts[1:]), counts[0][name]) for name in names}


def verdict(comparison: Comparison) -> list[str]:
    """One sentence for each group after the first, on the first score that it has a p-value for."""
    first = comparison.groups[0].letter
    lines = []
    for group in comparison.groups[1:]:
        name = next((name for name in PAIRED if (group.letter, name) in comparison.pairs), None)
        if name is None:
            continue
        pair = comparison.pairs[group.letter, name]
        better, worse = (group.letter, first) if pair.value > 0 else (first, group.letter)
        sure = "hardly chance" if pair.p < 0.01 else "perhaps chance" if pair.p < 0.05 else "may well be chance"
        lines.append(f"{better} is better than {worse} in test {name} by {abs(pair.value):.4f}: {sure} (p = {pair.p:.2g}).")
    return lines
