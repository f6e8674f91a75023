"""`benchmark table`: the tables of the README, written from the result files, so that no number is copied by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from arclight.benchmark.measurement import RESULTS, Case, Result, read_result
from arclight.errors import InputError

# cases of `benchmark train`, in the order of the table
WAYS = {
    "arclight": "`python train.py` ({precision}, as `auto` chooses here)",
    "arclight in fp32": "`python train.py precision=fp32`",
    "raw": "the same kernels in a bare loop, no Lightning",
    "dataloader": "the tutorials' loop: DataLoader, 2 workers, fp32",
    "tagger_loop": "a plain loop with a DataLoader, fp32",
    "tagger_loop_bf16": "a plain loop with a DataLoader, bf16",
    "hf_trainer_bf16": "transformers' Trainer, bf16",
    "hf_trainer": "transformers' Trainer at its defaults, fp32",
    "padded": "the same, padded to 128 tokens",
}
SPEEDS = {"images": ("samples", "images/s"), "text": ("tokens", "real tokens/s")}
# of the other benchmarks: the figures that are shown, with their headings
SHOWN = {
    "seconds": "seconds",
    "beyond": "beyond importing Lightning, s",
    "factor": "factor",
    "step": "ms a step",
    "batches": "batches/s",
    "samples": "samples/s",
    "tokens": "real tokens/s",
    "latency": "latency, ms",
    "latency_p95": "p95, ms",
    "efficiency": "efficiency",
    "prepare": "preparing",
    "load": "loading",
    "train": "training",
    "peak_share": "share of peak",
    "copy_share": "share of copy speed",
}


def newest(folder: Path = RESULTS) -> list[Result]:
    """The last result of each benchmark on each device, by name.

    Raises:
        InputError: when the folder holds none, or a file that is none.
    """
    kept: dict[tuple[str, str], Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        key = (result.benchmark, result.facts["device"])
        if key not in kept or kept[key].facts["date"] <= result.facts["date"]:
            kept[key] = result
    if not kept:
        raise InputError(f"{folder} holds no result of a benchmark; python -m arclight benchmark train makes one")
    return [kept[key] for key in sorted(kept)]


def to_markdown(results: Sequence[Result]) -> str:
    """One table of the ways to train for each device, then one for each other benchmark; each says when and how often."""
    trained = [result for result in results if result.benchmark.startswith("train-")]
    devices = sorted({result.facts["device"] for result in trained})
    parts = [ways_table([result for result in trained if result.facts["device"] == device]) for device in devices]
    return "\n\n".join([*parts, *(plain_table(result) for result in results if result not in trained)])


def ways_table(results: Sequence[Result]) -> str:
    """Images and real tokens a second of each way to train, of results from one device."""
    speeds: dict[str, dict[str, str]] = {}
    for result in results:
        task = result.facts["settings"]["task"]
        for case in result.cases:
            if (figure := case.figures.get(SPEEDS[task][0])) is not None:
                speeds.setdefault(label_of(case), {})[task] = figure.to_text()
    tasks = [task for task in SPEEDS if any(task in found for found in speeds.values())]
    ordered = [label for way in WAYS for label in speeds if label_matches(label, way)]
    rows = [[label, *(speeds[label].get(task, "") for task in tasks)] for label in ordered]
    return "\n".join(
        [*(title_of(result) for result in results), "", *table(["way to train", *(SPEEDS[t][1] for t in tasks)], rows)]
    )


def label_of(case: Case) -> str:
    """How the README calls a way to train."""
    return WAYS.get(case.name, case.name).format(precision=str(case.settings.get("precision", "")).partition("-")[0])


def label_matches(label: str, way: str) -> bool:
    """Whether the label is that of this way, in whatever precision."""
    before, _, after = WAYS[way].partition("{precision}")
    return label.startswith(before) and label.endswith(after)


def plain_table(result: Result) -> str:
    """A row for each case that was measured, with those of its figures that are known here."""
    keys = [key for key in SHOWN if any(key in case.figures for case in result.cases)]
    rows = [
        [case.name, *(case.figures[key].to_text() if key in case.figures else "" for key in keys)]
        for case in result.cases
        if case.figures
    ]
    return "\n".join([title_of(result), "", *table(["", *(SHOWN[key] for key in keys)], rows)])


def title_of(result: Result) -> str:
    """What was measured where, when, how often, and what to type to get it again."""
    facts = result.facts
    return f"`{facts['command']}` on {facts['device']}, {facts['date'][:10]}, n = {facts['num_rounds']}:"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [list(headings), ["---"] * len(headings), *map(list, rows)]
    return ["| " + " | ".join(cells) + " |" if row != 1 else "|" + "|".join(cells) + "|" for row, cells in enumerate(lines)]
