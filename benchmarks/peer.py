"""Runs somebody else's training script for CIFAR-10, unchanged, and writes the numbers that it prints to a result file.

    python -m benchmarks.peer airbench94_muon.py --data DIRECTORY --runs 5 --limit 100 --output peer.json

For scripts that read cifar10/train.pt and cifar10/test.pt in their working directory, as KellerJordan/cifar10-airbench and
hiverge/cifar10-speedrun do, and print a table with a row `eval` for each run that has the columns tta_val_acc and
..._time_seconds. The files are made from DIRECTORY (which holds cifar-10-batches-bin) in a temporary directory, where the
script is started. Its first run is its warm-up and does not count. It is killed after --runs more, or after --limit seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from arclight import hardware
from arclight.benchmark.command_line import new_file
from arclight.benchmark.measurement import Case, Figure, make_result, write_result
from benchmarks.tasks import unmeasured_peaks

RECORD = 1 + 3 * 32 * 32  # bytes of an image in the binary files, its label first
ACCURACY, SECONDS = "tta_val_acc", "time_seconds"
NUM_SHOWN_LINES = 3  # of the end of its output, when no run ended


def main() -> None:
    """Runs the script and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("script", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar-10-batches-bin, or is it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=100.0, help="seconds (%(default)s)")
    parser.add_argument("--output", type=new_file, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arclight-peer-") as folder:
        write_data(options.data, Path(folder, "cifar10"))
        rows, lines = run(options.script.resolve(), Path(folder), options.runs, options.limit)
    name = options.script.stem
    if rows:
        figures = {"test/accuracy": Figure(tuple(a for a, _ in rows), ""), "record_s": Figure(tuple(s for _, s in rows), "s")}
        case = Case(name, {"runs": len(rows)}, figures)
    else:
        case = Case(name, {}, missing="no run ended; the end of its output: " + " | ".join(lines[-NUM_SHOWN_LINES:]))
    plan = hardware.plan(hardware.probe(), {})
    result = make_result(f"peer-{name}", [case], unmeasured_peaks(), plan, {"script": name}, num_rounds=max(1, len(rows)))
    print(write_result(result, options.output))
    sys.exit(0 if rows else f"{name}: {case.missing}")


def write_data(data: Path, folder: Path) -> None:
    """Writes train.pt and test.pt: images uint8 (N, 32, 32, 3), labels, names of the classes."""
    source = data if data.name == "cifar-10-batches-bin" else data / "cifar-10-batches-bin"
    folder.mkdir()
    classes = source.joinpath("batches.meta.txt").read_text().split()
    for split, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin")):
        records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, RECORD) for path in sorted(source.glob(pattern))])
        images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy())
        labels = torch.from_numpy(records[:, 0].astype(np.int64))
        torch.save({"images": images, "labels": labels, "classes": classes}, folder / f"{split}.pt")


def run(script: Path, folder: Path, num_runs: int, limit_s: float) -> tuple[list[tuple[float, float]], list[str]]:
    """Returns accuracy and seconds of each run after the first, and the lines that were printed."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    timer = threading.Timer(limit_s, process.kill)
    timer.start()
    rows: list[tuple[float, float]] = []
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for row in read_runs(recorded(process.stdout, lines)):
            rows.append(row)
            print(f"{script.stem}: accuracy {row[0]:.4f}, {row[1]:.3f} s", flush=True)
            if len(rows) == num_runs + 1:
                break
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    return rows[1:], lines


def recorded(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    """Yields the lines and appends them to `seen`."""
    for line in lines:
        if line.strip():
            seen.append(line.strip())
        yield line


def read_runs(lines: Iterable[str]) -> Iterator[tuple[float, float]]:
    """Yields accuracy and seconds of each run in a table as these scripts print it."""
    headings: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if ACCURACY in cells:
            headings = cells
        elif headings and len(cells) == len(headings):
            row = dict(zip(headings, cells, strict=True))
            seconds = next(value for heading, value in row.items() if heading.endswith(SECONDS))
            if row.get("epoch") == "eval":
                yield float(row[ACCURACY]), float(seconds)


if __name__ == "__main__":
    main()
