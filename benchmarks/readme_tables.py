"""Prints the tables of docs/speed.md from the result files, so that no number is copied by hand.

python -m benchmarks.readme_tables [DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from arclight.benchmark.measurement import RESULTS, Case, Figure, Result
from arclight.config.compose import report_errors
from arclight.errors import InputError

# cases of benchmarks.training, in the order of the table
WAYS = {
    "arclight": "`python train.py` ({precision}, chosen by `auto` here)",
    "arclight in fp32": "`python train.py precision=fp32`",
    "raw": "same kernels in a bare loop, without Lightning",
    "dataloader": "tutorial loop: DataLoader, 2 workers, fp32",
    "tagger_loop": "plain loop with a DataLoader, fp32",
    "tagger_loop_bf16": "plain loop with a DataLoader, bf16",
    "hf_trainer_bf16": "transformers' Trainer, bf16",
    "hf_trainer": "transformers' Trainer with its defaults, fp32",
    "padded": "transformers' Trainer, padded to 128 tokens, fp32",
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


def read_result(path: Path) -> Result:
    """Reads a result file.

    Raises:
        InputError: when the file is missing or is not a result file.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        cases = []
        for case in plain.pop("cases"):
            figures = {name: Figure(tuple(figure["values"]), figure["unit"]) for name, figure in case["figures"].items()}
            cases.append(Case(case["name"], case["settings"], figures, case.get("missing")))
        return Result(plain.pop("benchmark"), plain, tuple(cases))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a result file of a benchmark: {error}") from error


def newest(folder: Path = RESULTS) -> list[Result]:
    """Returns the newest result of each benchmark on each device, by name.

    Raises:
        InputError: when the directory holds no result file, or a JSON file that is not one.
    """
    newest_results: dict[tuple[str, str], Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        key = (result.benchmark, result.metadata["device"])
        if key not in newest_results or newest_results[key].metadata["date"] <= result.metadata["date"]:
            newest_results[key] = result
    if not newest_results:
        raise InputError(f"{folder} holds no result files. Try: python -m benchmarks.training")
    return [newest_results[key] for key in sorted(newest_results)]


def to_markdown(results: Sequence[Result]) -> str:
    """Returns one table of the ways to train for each device, then one for each other benchmark, with date and n."""
    trained = [result for result in results if result.benchmark.startswith("train-")]
    devices = sorted({result.metadata["device"] for result in trained})
    parts = [ways_table([result for result in trained if result.metadata["device"] == device]) for device in devices]
    return "\n\n".join([*parts, *(plain_table(result) for result in results if result not in trained)])


def ways_table(results: Sequence[Result]) -> str:
    """Returns images and tokens per second of each way to train, of results from one device."""
    speeds: dict[str, dict[str, str]] = {}
    for result in results:
        task = result.metadata["settings"]["task"]
        for case in result.cases:
            if (figure := case.figures.get(SPEEDS[task][0])) is not None:
                speeds.setdefault(label_of(case), {})[task] = figure.to_text()
    tasks = [task for task in SPEEDS if any(task in found for found in speeds.values())]
    ordered = [label for way in WAYS for label in speeds if label_matches(label, way)]
    rows = [[label, *(speeds[label].get(task, "") for task in tasks)] for label in ordered]
    return "\n".join(
        [*(title_of(result) for result in results), "", *table(["training loop", *(SPEEDS[t][1] for t in tasks)], rows)]
    )


def label_of(case: Case) -> str:
    """Returns the words for a way to train."""
    return WAYS.get(case.name, case.name).format(precision=str(case.settings.get("precision", "")).partition("-")[0])


def label_matches(label: str, way: str) -> bool:
    """Returns whether the label is that of this way, in any precision."""
    before, _, after = WAYS[way].partition("{precision}")
    return label.startswith(before) and label.endswith(after)


def plain_table(result: Result) -> str:
    """Returns a row for each measured case, with those of its figures that SHOWN names."""
    keys = [key for key in SHOWN if any(key in case.figures for case in result.cases)]
    rows = [
        [case.name, *(case.figures[key].to_text() if key in case.figures else "" for key in keys)]
        for case in result.cases
        if case.figures
    ]
    return "\n".join([title_of(result), "", *table(["", *(SHOWN[key] for key in keys)], rows)])


def title_of(result: Result) -> str:
    """Returns the command that repeats the measurement, the device, the date and n."""
    metadata = result.metadata
    return f"`{metadata['command']}` on {metadata['device']}, {metadata['date'][:10]}, n = {metadata['num_rounds']}:"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    lines = [list(headings), ["---"] * len(headings), *map(list, rows)]
    return ["| " + " | ".join(cells) + " |" if row != 1 else "|" + "|".join(cells) + "|" for row, cells in enumerate(lines)]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS, help="of result files (default: benchmarks/results/)")
    with report_errors():
        print(to_markdown(newest(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
