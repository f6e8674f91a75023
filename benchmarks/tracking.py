"""What loggers cost: the training step with each of them, and with all, over that with none.

python -m benchmarks.tracking --steps 500 --repeats 9
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import Log, count, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, interleave, make_result, ratio
from arclight.benchmark.train import steady, train
from arclight.benchmark.training_step import compose
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from benchmarks.tasks import TaskOptions, new_parser

NONE, ALL = "none", "all of them"
ALONE = ("csv", "tensorboard", "wandb", "mlflow")
TARGET = 1.03  # largest acceptable ratio of the step with all loggers to that with none


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What the command line says."""

    num_steps: int = 300


def measure(options: Options, log: Log) -> Result:
    """Trains with every choice of loggers in every round; W&B offline, MLflow where it is installed.

    Raises:
        InputError: for an error in the overrides, or overrides that choose loggers.
        RuntimeError: when a run fails, with the end of its output.
    """
    if chosen := [override for override in options.overrides if override.lstrip("+~").startswith("logger")]:
        raise InputError(f"{chosen[0]}: this benchmark sets the loggers itself; leave it out")
    hardware_info, device = hardware.probe(), choose_device(options.device)
    overrides = options.task_overrides()
    settings = compose(overrides)
    log("peaks of the device")
    machine = measure_peaks(device, hardware_info)

    def once(name: str, loggers: Sequence[str]) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            log(name)
            command = [*steady(overrides, options.num_steps), *logger_overrides(loggers)]
            results = train(command, num_threads=hardware_info.num_cores)
            return {"step": results["train/step_ms"], "share": results["train/logging_share"]}

        return run

    measured = interleave({name: once(name, loggers) for name, loggers in choices().items()}, options.num_rounds)
    plan = plan_hardware(settings, hardware_info)
    about = {"task": options.task, "overrides": overrides, "num_steps": options.num_steps, "target": TARGET}
    about["log_every_n_steps"] = settings["trainer"]["log_every_n_steps"]
    name = f"tracking-{settings['name']}"
    return make_result(name, to_cases(measured), machine, plan, about, num_rounds=options.num_rounds)


def choices() -> dict[str, tuple[str, ...]]:
    """Returns the loggers of each case."""
    installed = tuple(name for name in ALONE if name != "mlflow" or importlib.util.find_spec("mlflow") is not None)
    return {NONE: (), **{name: (name,) for name in installed}, ALL: installed}


def logger_overrides(loggers: Sequence[str]) -> list[str]:
    """Returns the overrides that choose these loggers."""
    offline = ["logger.wandb.mode=offline"] if "wandb" in loggers else []
    return [f"logger=[{','.join(loggers)}]" if loggers else "logger=none", *offline]


def to_cases(measured: Mapping[str, list[dict[str, float]]]) -> list[Case]:
    """Returns each choice of loggers with its step, and that over the step without any, round by round."""
    steps = {name: Figure(tuple(numbers["step"] for numbers in rounds), "ms") for name, rounds in measured.items()}
    cases = []
    for name, step in steps.items():
        share = Figure(tuple(numbers["share"] for numbers in measured[name]), "")
        factor = {} if name == NONE else {"factor": ratio(step, steps[NONE])}
        loggers: dict[str, Any] = {"trackers": list(choices().get(name, ()))}
        cases.append(Case(name, loggers, {"step": step, "logging_share": share, **factor}))
    return cases


def to_table(result: Result) -> Table:
    """Returns a row for each choice of loggers."""
    settings = result.metadata["settings"]
    note = f"logged every {settings['log_every_n_steps']} steps; at most {settings['target']} times as long is acceptable"
    headings = {"step": "ms per step", "factor": "over none", "logging_share": "in callbacks and loggers"}
    return measurement.to_table(result, headings, notes=[note])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--steps", type=count, default=300, dest="num_steps", help="measured in each run (%(default)s)")
    with report_errors():
        run_benchmark(parser.parse_args(arguments), Options, measure, lambda result: [to_table(result)])


if __name__ == "__main__":
    main()
