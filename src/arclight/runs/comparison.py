"""Compares runs: different settings, scores over seeds, and significance of differences."""

from __future__ import annotations

import glob
import itertools
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
from arclight.metrics.records import Counts, Prediction, metric_counts
from arclight.runs.run import Run
from arclight.runs.run_directory import read_config

OTHER_METRICS = (
    "train/samples_per_s",
    "train/tokens_per_s",
    "train/step_ms",
    "time/total_s",
    "memory/peak_mb",
    "epochs",
    "parameters",
)
TESTED = ("f1", "accuracy")  # metrics that get a p-value


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed; `letter` names them in the tables."""

    letter: str
    runs: tuple[Run, ...]

    def values(self, name: str) -> list[float]:
        """Returns a metric of results.json, from the runs that have it."""
        found: list[Any] = [run.results.get(name) for run in self.runs]
        return [float(value) for value in found if type(value) in (int, float) and math.isfinite(value)]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs; `pairs` compares each group's test predictions with those of the first, by (letter, metric)."""

    groups: tuple[Group, ...]
    settings: dict[str, tuple[Any, ...]]  # different settings, with the value of each group
    pairs: dict[tuple[str, str], Difference]
    left_out: tuple[str, ...]  # messages: what could not be compared, and why

    @property
    def metrics(self) -> list[str]:
        """The metrics to show, test metrics first."""
        known = dict.fromkeys(name for group in self.groups for run in group.runs for name in run.results)
        scores = [name for split in ("test/", "val/") for name in known if name.startswith(split)]
        return [name for name in [*scores, *OTHER_METRICS] if any(group.values(name) for group in self.groups)]


def compare_runs(names: Sequence[str]) -> Comparison:
    """Returns the comparison of runs, in the given order.

    p-values come from `metrics.bootstrap.paired_test`, a two-sided paired bootstrap over the test samples. Seeds are pooled:
    each sample's counts are summed over all runs of a group. Both groups must have been tested on the same samples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 16; Koehn, 2004.

    Args:
        names: RUNs (directories, checkpoints, `latest`), multirun directories, patterns with `*`.

    Raises:
        InputError: when a run does not exist, or there are fewer than two.
    """
    runs, left_out = read_runs(names)
    if len(runs) < 2:
        reasons = "".join(f"; {line}" for line in left_out)
        raise InputError(f"{' '.join(names)}: {len(runs)} run to compare; pass two or more, or a multirun directory{reasons}")
    groups = group_by_config(runs)
    pairs, problems = compare_with_first(groups)
    return Comparison(groups, different_settings(groups), pairs, (*left_out, *problems))


def read_runs(names: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Returns the runs to compare, and messages about the others.

    Unfinished runs have no test scores and are left out, unless fewer than two finished runs remain.
    """
    messages: list[str] = []
    runs: list[Run] = []
    for folder in dict.fromkeys(folder.resolve() for name in names for folder in find_runs(name)):
        if read_config(folder):
            runs.append(Run(folder))
        else:
            messages.append(f"{folder.name} is left out: its config.yaml cannot be read")
    finished = [run for run in runs if run.status == "finished"]
    kept = finished if len(finished) > 1 else runs
    for run in runs:
        if run.status != "finished":
            messages.append(f"{run.folder.name} {'did not finish' if run in kept else 'is left out'}: it is {run.status}")
    return kept, messages


def find_runs(name: str) -> list[Path]:
    """Returns the run directories that an argument names."""
    if any(letter in name for letter in "*?["):
        found = [Path(path) for path in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  # Path's own takes no absolute pattern
        folders = [path for path in found if (path / "config.yaml").is_file()]
        if not folders:
            raise InputError(f"{name}: no run directory matches; see outputs/")
        return folders
    # a run of a multirun that failed with a config error has only a results.json
    within = sorted({file.parent for kind in ("config.yaml", "results.json") for file in Path(name).glob(f"*/{kind}")})
    return within if within and not (Path(name) / "config.yaml").is_file() else [find_run(name)]


def group_by_config(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Returns the runs grouped by config without the seed, in order of first occurrence."""
    lists: list[list[Run]] = []
    for run in runs:
        same = (members for members in lists if set(differences(members[0].config, run.config)) <= {"seed"})
        members = next(same, None)
        if members is None:
            lists.append(members := [])
        members.append(run)
    tuples = (letters for num in itertools.count(1) for letters in itertools.product(string.ascii_uppercase, repeat=num))
    return tuple(Group("".join(letters), tuple(members)) for members, letters in zip(lists, tuples, strict=False))


def different_settings(groups: Sequence[Group]) -> dict[str, tuple[Any, ...]]:
    """Returns the settings with an effect in which the groups differ."""
    settings = [without_secrets(group.runs[0].config) for group in groups]
    flat = [dict(flatten(own)) for own in settings]
    keys = sorted({key for other in settings[1:] for key in differences(settings[0], other)} - {"seed"})
    return {key: tuple(own.get(key) for own in flat) for key in keys}


def compare_with_first(groups: Sequence[Group]) -> tuple[dict[tuple[str, str], Difference], list[str]]:
    """Returns the differences from the first group, and why some are missing."""
    pairs: dict[tuple[str, str], Difference] = {}
    problems: list[str] = []
    tested: dict[str, tuple[list[Any], dict[str, Counts]]] = {}
    for group in groups if len(groups) > 1 else ():
        try:
            tested[group.letter] = pool_counts([run.predictions for run in group.runs])
        except ValueError as error:
            problems.append(f"{group.letter} has no p-value: {error}")
    first_samples, first_counts = tested.pop(groups[0].letter, ([], {}))
    for letter, (samples, counts) in tested.items() if first_counts else ():
        if samples != first_samples:
            problems.append(f"{letter} has no p-value: it was tested on different samples than {groups[0].letter}")
            continue
        for name in [name for name in first_counts if name in counts]:
            pairs[letter, name] = paired_test(first_counts[name], counts[name])
    return pairs, problems


def pool_counts(runs: Sequence[list[Prediction]]) -> tuple[list[Any], dict[str, Counts]]:
    """Returns index and labels of each sample, and the counts summed over several runs.

    Raises:
        ValueError: when the runs were not tested on the same samples, or on none.
    """
    truths = [[(one.index, one.truth) for one in run] for run in runs]
    if not truths[0] or any(truth != truths[0] for truth in truths):
        raise ValueError("its runs were not tested on the same samples")
    counts = [metric_counts(run) for run in runs]
    names = [name for name in TESTED if all(name in own for own in counts)]
    return truths[0], {name: sum((own[name] for own in counts[1:]), counts[0][name]) for name in names}


def conclusions(comparison: Comparison) -> list[str]:
    """Returns one sentence for each group after the first, on the first metric that has a p-value."""
    first = comparison.groups[0].letter
    lines: dict[str, str] = {}
    for (letter, name), pair in comparison.pairs.items():
        better, worse = (letter, first) if pair.value > 0 else (first, letter)
        judgement = "significant" if pair.p < 0.01 else "weakly significant" if pair.p < 0.05 else "not significant"
        difference = f"{better} is better than {worse} in test {name} by {abs(pair.value):.4f}"
        lines.setdefault(letter, f"{difference}: {judgement} (p = {pair.p:.2g}).")
    return [*lines.values()]
