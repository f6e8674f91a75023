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
from arclight.console.terminal import format_metric
from arclight.errors import InputError
from arclight.interfaces import direction, is_of_one_class
from arclight.metrics.bootstrap import Difference, paired_test
from arclight.metrics.records import Counts, metric_counts
from arclight.metrics.significance import compare_counts, compare_values
from arclight.report.narrative import main_metric
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
COUNTED = ("f1", "accuracy")  # metrics that are also tested over the samples, where there are predictions
Samples = tuple[list[Any], list[dict[str, Counts]]]  # index and labels of each test sample, and the counts of each run
BEFORE_A_RUN = {"overrides.txt", ".lock", "train.log"}  # files of a start that was killed before it wrote config.yaml


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed; `letter` names them in the tables."""

    letter: str
    runs: tuple[Run, ...]

    def values(self, name: str) -> list[float]:
        """Returns a metric of results.json, from the runs that have it."""
        found: list[Any] = [run.results.get(name) for run in self.runs]
        return [float(value) for value in found if type(value) in (int, float) and math.isfinite(value)]

    @property
    def seeds(self) -> Group:
        """The group with one run for each seed, the last: runs that repeat a seed say nothing about other seeds."""
        by_seed = {run.folder if (seed := run.config.get("seed")) is None else seed: run for run in self.runs}
        return Group(self.letter, tuple(by_seed.values()))


@dataclass(frozen=True)
class Comparison:
    """Groups of runs; `pairs` compares the metrics of each group with those of the first, by (letter, key of results.json)."""

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

    Differences between groups are tested over seeds (`metrics.significance`): F1 and accuracy over the test samples, too, where
    all runs were tested on the same ones. Of one seed each, `metrics.bootstrap.paired_test` covers the samples only.

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
    if within and not (Path(name) / "config.yaml").is_file():
        return within
    if Path(name).is_dir() and {file.name for file in Path(name).iterdir()} <= BEFORE_A_RUN:
        return [Path(name)]  # `read_runs` leaves it out, so that a pattern of the shell may match it
    return [find_run(name)]


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
    """Returns the differences from the first group by (letter, metric), and what the reader must know about them."""
    pairs: dict[tuple[str, str], Difference] = {}
    if len(groups) < 2:
        return pairs, []
    notes = [f"{group.letter}: of runs with the same seed, tests count the last" for group in groups if group.seeds != group]
    groups = [group.seeds for group in groups]
    tested: dict[str, Samples] = {}
    for group in groups:
        try:
            tested[group.letter] = counts_by_run(group)
        except ValueError as error:
            notes.append(f"{group.letter}: {error}; tests over samples leave it out")
    first, *others = groups
    for other in others:
        samples = [tested.get(group.letter, ([], [])) for group in (first, other)]
        if all(truths for truths, _ in samples) and samples[0][0] != samples[1][0]:
            notes.append(f"{other.letter} has no p-value: it was tested on different samples than {first.letter}")
            continue
        for name in tested_metrics(first, other):
            if (pair := compare_metric(name, first, other, [counts for _, counts in samples])) is not None:
                pairs[other.letter, name] = pair
    return pairs, [*notes, *seed_notes(first, others)]


def tested_metrics(first: Group, second: Group) -> list[str]:
    """Returns the metrics of both groups that get a p-value: those of the test, else those of the validation."""
    names = [name for name in first.runs[0].results if not is_of_one_class(name) and first.values(name) and second.values(name)]
    return next(filter(None, ([name for name in names if name.startswith(split)] for split in ("test/", "val/"))), [])


def compare_metric(name: str, first: Group, second: Group, counts: Sequence[list[dict[str, Counts]]]) -> Difference | None:
    """Returns the difference in one metric; None for one seed each, unless there are `counts` of both groups for it."""
    split, _, bare = name.partition("/")
    if split == "test" and bare in COUNTED and all(runs and all(bare in run for run in runs) for runs in counts):
        own, others = ([run[bare] for run in runs] for runs in counts)
        return paired_test(own[0], others[0]) if len(own) == len(others) == 1 else compare_counts(own, others)
    values = first.values(name), second.values(name)
    return None if len(values[0]) == len(values[1]) == 1 else compare_values(*values)


def seed_notes(first: Group, others: Sequence[Group]) -> list[str]:
    """Returns what groups of one seed mean for the tests."""
    single = ", ".join(group.letter for group in others if len(group.runs) == 1)
    if len(first.runs) > 1:
        return [f"{single}: one seed, taken to vary as those of {first.letter}"] if single else []
    several = ", ".join(group.letter for group in others if len(group.runs) > 1)
    notes = [f"{first.letter} and {single}: one seed each: differences between seeds are not covered"] if single else []
    return notes + ([f"{first.letter}: one seed, taken to vary as those of {several}"] if several else [])


def counts_by_run(group: Group) -> Samples:
    """Returns index and labels of each test sample, and the counts of each run by metric; none where no run has predictions.

    Raises:
        ValueError: when some predictions are damaged or missing, or the runs were not tested on the same samples.
    """
    if not any((run.folder / "predictions.jsonl").exists() for run in group.runs):
        return [], []
    predictions = []
    for run in group.runs:
        try:
            predictions.append(run.predictions)
        except InputError as error:
            raise ValueError(str(error).replace(str(run.folder), run.folder.name)) from error
    truths = [[(one.index, one.truth) for one in run] for run in predictions]
    if not truths[0] or any(truth != truths[0] for truth in truths):
        raise ValueError("its runs were not tested on the same samples")
    return truths[0], [metric_counts(run) for run in predictions]


def conclusions(comparison: Comparison) -> list[str]:
    """Returns one sentence for each group after the first, on the main metric or the first that has a p-value."""
    first, *others = comparison.groups
    main = main_metric(first.runs[0].results)
    return [
        describe(comparison.pairs[other.letter, name], name, first, other)
        for other in others
        if (name := next((name for name in (main, *comparison.metrics) if (other.letter, name) in comparison.pairs), None))
    ]


def describe(pair: Difference, name: str, first: Group, second: Group) -> str:
    """Returns a difference as a sentence: which group is better, by how much, and whether that is significant."""
    metric = name.replace("/", " ", 1)
    if not pair.value:
        return f"{first.letter} and {second.letter} are equal in {metric}."
    mode = direction(name, first.runs[0].results)
    upper, lower = (second.letter, first.letter) if (pair.value > 0) == (mode != "min") else (first.letter, second.letter)
    judgement = "significant" if pair.p < 0.01 else "weakly significant" if pair.p < 0.05 else "not significant"
    word = "better" if mode else "higher"
    return f"{upper} is {word} than {lower} in {metric} by {format_metric(abs(pair.value))}: {judgement} ({format_p(pair.p)})."


def format_p(p: float) -> str:
    """Returns a p-value in words."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
