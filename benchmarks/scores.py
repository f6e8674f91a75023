"""Is the fast way as accurate? Entity F1 of `python train.py` and of transformers' Trainer: same data, epochs and scorer.

    python -m benchmarks.scores --seeds 0,1,2 --epochs 1 data=conll2003 data.root=CONLL model.checkpoint=DIRECTORY

Ours is experiment=conll2003_bert with these overrides; the Trainer is benchmarks.hf_trainer, with the defaults of run_ner. Each
run is a process of its own and prints a line when it has ended; the result file has F1 and seconds of both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from arclight import hardware
from arclight.benchmark.command_line import new_file
from arclight.benchmark.measurement import Case, Figure, interleave, make_result, write_result
from arclight.benchmark.train import train
from arclight.benchmark.training_step import compose
from arclight.config.hardware_plan import plan_hardware
from benchmarks.tasks import absolute_paths, unmeasured_peaks
from benchmarks.training import run_program

TIMEOUT_S = 3600.0


def main() -> None:
    """Trains, prints the comparison, writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--output", type=new_file, help="result file (default: a new one in benchmarks/results/)")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    hardware_info = hardware.probe()
    overrides = absolute_paths(options.overrides, ["data.root", "model.checkpoint", "data.tokenizer"])
    recipe = ["experiment=conll2003_bert", f"trainer.max_epochs={options.epochs}", *overrides]
    settings = compose(recipe)

    def ours(seed: int) -> dict[str, float]:
        command = [*recipe, f"seed={seed}", "logger=csv"]
        results = train(command, num_threads=hardware_info.num_cores, timeout_s=TIMEOUT_S)
        return {key: float(results[key]) for key in ("test/f1", "time/fit_s")}

    def theirs(seed: int) -> dict[str, float]:
        command = ["-m", "benchmarks.hf_trainer", f"--epochs={options.epochs}", *recipe, f"seed={seed}"]
        return run_program(command, num_threads=hardware_info.num_cores, timeout_s=TIMEOUT_S)

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
    spread = max(max(figure.values) - min(figure.values) for figure in (ours_f1, theirs_f1))
    print(f"F1 of ours {ours_f1.to_text(4)}, of the Trainer {theirs_f1.to_text(4)}")
    print(f"means differ by {gap:+.4f}, seeds of one by up to {spread:.4f}")
    about = {"overrides": options.overrides, "epochs": options.epochs, "seeds": seeds, "gap": gap, "spread": spread}
    plan = plan_hardware(settings, hardware_info)
    result = make_result(f"scores-{settings['name']}", cases, unmeasured_peaks(), plan, about, num_rounds=len(seeds))
    print(write_result(result, options.output))


def over(seeds: list[int], name: str, way: Callable[[int], dict[str, float]]) -> Callable[[], dict[str, float]]:
    """Returns a call that trains with the next seed each time and prints its F1."""
    left = iter(seeds)

    def once() -> dict[str, float]:
        seed, began = next(left), time.monotonic()
        numbers = way(seed)
        numbers["time/total_s"] = time.monotonic() - began
        print(f"{name}, seed {seed}: F1 {numbers['test/f1']:.4f}, fit {numbers['time/fit_s']:.1f} s", flush=True)
        return numbers

    return once


if __name__ == "__main__":
    main()
