"""Somebody else's training script for CIFAR-10, unchanged, on the data of a folder: what it prints becomes a result file.

    python benchmarks/peer.py airbench94_muon.py --data FOLDER --runs 5 --limit 100 --output peer.json

For scripts that read cifar10/train.pt and cifar10/test.pt where they are started, as KellerJordan/cifar10-airbench and
hiverge/cifar10-speedrun do, and print a table with a row `eval` for each run that has the columns tta_val_acc and
..._time_seconds. The files are made from FOLDER (which holds cifar-10-batches-bin) in a temporary folder, and the script is
started there. Its first run is its warm-up and does not count. It is ended after --runs more, or after --limit seconds.
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
from arclight.benchmark.measurement import Case, Figure, Result, check_output, gather_facts, write_result
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, device_name

RECORD = 1 + 3 * 32 * 32  # bytes of an image in the binary files, its label first
ACCURACY, SECONDS = "tta_val_acc", "time_seconds"
NUM_TOLD = 3  # lines of its end, when it gave nothing


def main() -> None:
    """Runs the script and writes what it said of itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("script", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar-10-batches-bin, or is it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=100.0, help="seconds (%(default)s)")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    check_output(options.output)
    with tempfile.TemporaryDirectory(prefix="arclight-peer-") as folder:
        lay_out(options.data, Path(folder, "cifar10"))
        rows, lines = run(options.script.resolve(), Path(folder), options.runs, options.limit)
    name, device = options.script.stem, choose_device("auto")
    if rows:
        figures = {"test/accuracy": Figure(tuple(a for a, _ in rows), ""), "record_s": Figure(tuple(s for _, s in rows), "s")}
        case = Case(name, {"runs": len(rows)}, figures)
    else:
        case = Case(name, {}, missing="no run ended; at last it said: " + " | ".join(lines[-NUM_TOLD:]))
    machine = MeasuredPeaks(device.type, device_name(device), torch.get_num_threads(), {}, 0.0)
    hardware_info = gather_facts(machine, hardware.plan(hardware.probe(), {}), {"script": name}, num_rounds=max(1, len(rows)))
    print(write_result(Result(f"peer-{name}", hardware_info, (case,)), options.output))
    sys.exit(0 if rows else f"{name}: {case.missing}")


def lay_out(data: Path, folder: Path) -> None:
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
    """Accuracy and seconds of each run after the first, and all that was printed."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    late = threading.Timer(limit_s, process.kill)
    late.start()
    rows: list[tuple[float, float]] = []
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for row in read_runs(kept(process.stdout, lines)):
            rows.append(row)
            print(f"{script.stem}: accuracy {row[0]:.4f}, {row[1]:.3f} s", flush=True)
            if len(rows) == num_runs + 1:
                break
    finally:
        late.cancel()
        process.kill()
        process.wait()
    return rows[1:], lines


def kept(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    """The lines, each noted."""
    for line in lines:
        if line.strip():
            seen.append(line.strip())
        yield line


def read_runs(lines: Iterable[str]) -> Iterator[tuple[float, float]]:
    """Accuracy and seconds of each run of a table as these scripts print it."""
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
