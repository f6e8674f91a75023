"""Is the fast way as good? Entity F1 of `python train.py` and of transformers' Trainer, same data, same epochs, same scorer.

    python benchmarks/scores.py --seeds 0,1,2 --epochs 1 data=conll2003 data.root=CONLL model.checkpoint=FOLDER

Ours is experiment=conll2003_bert with these overrides; the Trainer is benchmarks/hf_trainer.py, run_ner's defaults. Each run is
a process of its own, and each gets a line when it has ended; the result file has F1 and seconds of both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, check_output, gather_facts, interleave, write_result
from arclight.benchmark.train_process import TOLD_CHARACTERS, environment_for, train
from arclight.benchmark.training_step import compose
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware.peak_measurement import MeasuredPeaks, choose_device, device_name

HERE = Path(__file__).resolve().parent
LONGEST_S = 3600.0


def main() -> None:
    """Trains, prints the comparison, writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--output", type=Path, help="result file; one in benchmarks/results/ otherwise")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    check_output(options.output)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    hardware_info = hardware.probe()
    overrides = [absolute(override) for override in options.overrides]
    recipe = ["experiment=conll2003_bert", f"trainer.max_epochs={options.epochs}", *overrides]
    settings = compose(recipe)

    def ours(seed: int) -> dict[str, float]:
        results = train(
            [*recipe, f"seed={seed}", "logger=csv"], num_threads=hardware_info.num_cores, longest_s=LONGEST_S
        ).results
        return {key: float(results[key]) for key in ("test/f1", "time/fit_s")}

    def theirs(seed: int) -> dict[str, float]:
        return run_trainer([f"--epochs={options.epochs}", *recipe, f"seed={seed}"], hardware_info.num_cores)

    ways = {"arclight": ours, "hf_trainer": theirs}
    measured = interleave({name: over(seeds, name, way) for name, way in ways.items()}, len(seeds))
    cases = [
        Case(
            name,
            {"seeds": seeds},
            {key: Figure(tuple(n[key] for n in rounds), "s" if key.startswith("time/") else "") for key in rounds[0]},
        )
        for name, rounds in measured.items()
    ]
    ours_f1, theirs_f1 = (case.figures["test/f1"] for case in cases)
    gap = statistics.mean(ours_f1.values) - statistics.mean(theirs_f1.values)
    spread = max(figure.high - figure.low for figure in (ours_f1, theirs_f1))
    print(f"F1 of ours {ours_f1.to_text(4)}, of the Trainer {theirs_f1.to_text(4)}")
    print(f"means differ by {gap:+.4f}, seeds of one by up to {spread:.4f}")
    device = choose_device("auto")
    machine = MeasuredPeaks(device.type, device_name(device), torch.get_num_threads(), {}, 0.0)
    about = {"overrides": options.overrides, "epochs": options.epochs, "seeds": seeds, "gap": gap, "spread": spread}
    known = gather_facts(machine, plan_hardware(settings, hardware_info), about, num_rounds=len(seeds))
    print(write_result(Result(f"scores-{settings['name']}", known, tuple(cases)), options.output))


def absolute(override: str) -> str:
    """A path as seen from anywhere."""
    key, _, value = override.partition("=")
    is_path = key in ("data.root", "model.checkpoint", "data.tokenizer") and Path(value).exists()
    return f"{key}={Path(value).resolve()}" if is_path else override


def over(seeds: list[int], name: str, way: Callable[[int], dict[str, float]]) -> Callable[[], dict[str, float]]:
    """A call that takes the next seed each time and tells what came of it."""
    left = iter(seeds)

    def once() -> dict[str, float]:
        seed, began = next(left), time.monotonic()
        numbers = way(seed)
        numbers["time/total_s"] = time.monotonic() - began
        print(f"{name}, seed {seed}: F1 {numbers['test/f1']:.4f}, fit {numbers['time/fit_s']:.1f} s", flush=True)
        return numbers

    return once


def run_trainer(arguments: list[str], num_threads: int) -> dict[str, float]:
    """What the Trainer's program printed."""
    with tempfile.TemporaryDirectory(prefix="arclight-scores-") as folder:
        ended = subprocess.run(
            [sys.executable, str(HERE / "hf_trainer.py"), *arguments],
            cwd=folder,
            env=environment_for(num_threads),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    if ended.returncode != 0:
        raise RuntimeError(f"hf_trainer.py ended with status {ended.returncode}:\n{ended.stderr[-TOLD_CHARACTERS:]}")
    numbers: dict[str, float] = json.loads(ended.stdout.strip().splitlines()[-1])
    return numbers


if __name__ == "__main__":
    main()
