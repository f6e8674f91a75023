"""`benchmark scaling` of an example task, with the time that processes spend in communication, and the cost of ddp itself.

python -m benchmarks.scaling --table
python -m benchmarks.scaling --overhead
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import Log, count, counts, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, ratio
from arclight.benchmark.scaling import HEADINGS, Job, device_counts, measure_jobs, plan_jobs, to_table
from arclight.benchmark.scaling import Options as ScalingOptions
from arclight.benchmark.train import train_in
from arclight.benchmark.training_step import SWITCHES, compose
from arclight.callbacks.throughput import NUM_FIRST
from arclight.config.compose import report_errors
from arclight.hardware.peak_measurement import choose_device
from benchmarks.tasks import TaskOptions, new_parser

WATCHED = "+callbacks.communication._target_=benchmarks.communication.CommunicationTime"
# one device with nothing that the plan would choose
UNTUNED = ("precision=fp32", *(f"++hardware.{switch}=false" for switch in SWITCHES))
OVERHEAD_TARGET = 1.03
COMMUNICATION = {
    "in_flight": "gradients in flight, ms",
    "exposed": "not hidden, ms",
    "exposed_share": "of the step",
    "floor": "at least, ms",
    "all_reduce": "all-reduce, GB/s",
}


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions, ScalingOptions):
    """What the command line says: also one device with nothing tuned; instead, ddp with one process over a single one."""

    with_untuned: bool = False
    only_overhead: bool = False


def measure(options: Options, log: Log) -> Result:
    """Trains on every number of devices, in every round."""
    is_cpu, hardware_info = choose_device(options.device).type == "cpu", hardware.probe()
    batch_size = int(compose(options.task_overrides())["data"]["batch_size"])
    jobs = plan(options, hardware_info, batch_size, is_cpu=is_cpu)
    num_samples = (options.num_steps + NUM_FIRST) * max(job.batch_size for job in jobs)
    sizes = {"data.num_train": num_samples, "data.num_val": 64, "data.num_test": 64}
    given = {override.lstrip("+").partition("=")[0] for override in options.overrides}
    sized = [] if "data" in given else [f"{key}={size}" for key, size in sizes.items() if key not in given]
    communication: dict[tuple[str, ...], list[dict[str, Any]]] = {}

    def train(overrides: Sequence[str], *, num_threads: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="arclight-benchmark-") as folder:
            results = train_in(Path(folder), overrides, num_threads=num_threads)
            for file in Path(folder).glob("outputs/*/*/communication.json"):
                communication.setdefault(tuple(overrides[-5:]), []).append(json.loads(file.read_text(encoding="utf-8")))
            return results

    options = dataclasses.replace(options, overrides=[*sized, *options.task_overrides()])
    name = "overhead" if options.only_overhead else "scaling"
    result = measure_jobs(name, jobs, options, log, train=train)
    return add_figures(result, {job.name: communication.get(job.overrides, []) for job in jobs})


def plan(options: Options, hardware_info: hardware.HardwareInfo, batch_size: int, *, is_cpu: bool) -> list[Job]:
    """Returns the cases, those of several processes with the callback that times their communication."""
    cores = hardware_info.num_cores
    if options.only_overhead:
        (single,) = plan_jobs([], cores, batch_size, is_cpu=is_cpu)
        place, _, size = single.overrides
        ddp = (place, "strategy=ddp_cpu" if is_cpu else "strategy=ddp", "trainer.devices=1", size)
        return [single, Job("ddp, 1 process", "ddp", 1, cores, batch_size, ddp)]
    counts = device_counts(options.devices, hardware_info, is_cpu=is_cpu)
    jobs = [
        job if job.kind == "one" else dataclasses.replace(job, overrides=(*job.overrides, WATCHED))
        for job in plan_jobs(counts, cores, batch_size, is_cpu=is_cpu)
    ]
    untuned = dataclasses.replace(jobs[0], name="untuned", kind="untuned", overrides=jobs[0].overrides + UNTUNED)
    return [untuned, *jobs] if options.with_untuned else jobs


def add_figures(result: Result, communication: Mapping[str, Sequence[Mapping[str, Any]]]) -> Result:
    """Returns the result with the overhead of ddp, and with the communication of each case, as communication.json says."""
    single = next(case.figures["step"] for case in result.cases if case.settings["kind"] == "one")
    cases = []
    for case in result.cases:
        figures = {**case.figures, **communication_figures(communication.get(case.name, ()))}
        if case.settings["kind"] == "ddp":
            figures["overhead"] = ratio(figures["step"], single)
        if "exposed" in figures:
            figures["exposed_share"] = ratio(figures["exposed"], figures["step"])
        cases.append(dataclasses.replace(case, figures=figures))
    return dataclasses.replace(result, cases=tuple(cases))


def communication_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Returns the milliseconds per step that gradients are in flight, that nothing hides, and that they take at least.

    The least is bytes * 2 (n - 1) / n, what a ring has to move, over the bandwidth of the fastest all-reduce of as many bytes
    between the same processes.
    """
    if not runs:
        return {}

    def median(values: Sequence[float]) -> float:
        return Figure(tuple(values), "").median

    moved = [run["gradient_bytes"] * 2 * (run["world_size"] - 1) / run["world_size"] for run in runs]
    bandwidth = [1000 * size / min(run["all_reduce_ms"]) for size, run in zip(moved, runs, strict=True)]
    return {
        "in_flight": Figure(tuple(median(run["in_flight_ms"]) for run in runs), "ms"),
        "exposed": Figure(tuple(median(run["with_ms"]) - median(run["without_ms"]) for run in runs), "ms"),
        "floor": Figure(tuple(1000 * size / speed for size, speed in zip(moved, bandwidth, strict=True)), "ms"),
        "all_reduce": Figure(tuple(speed / 1e9 for speed in bandwidth), "GB/s"),
    }


def to_tables(result: Result) -> Iterator[Table]:
    """Yields the speed of all cases, the communication of several processes, and the short table of --table."""
    notes = []
    if any("overhead" in case.figures for case in result.cases):
        notes = [f"ddp with one process should take at most {OVERHEAD_TARGET} times as long as a single process"]
    yield to_table(result, headings={**HEADINGS, "overhead": "over single"}, notes=notes)
    if several := tuple(case for case in result.cases if "exposed" in case.figures):
        yield measurement.to_table(dataclasses.replace(result, cases=several), COMMUNICATION)
    untuned = next((case for case in result.cases if case.settings["kind"] == "untuned"), None)
    if untuned is not None:
        yield to_short_table(result.cases, untuned)


def to_short_table(cases: Sequence[Case], untuned: Case) -> Table:
    """Returns one device with nothing tuned, one device as `auto` chooses, and several; factors in samples per second."""
    table = Table("", "samples/s", "factor", title="one device plain, one device library-tuned, several devices")
    tuned = next(case for case in cases if case.settings["kind"] == "one")
    rows = {"one device, plain": untuned, "one device, library-tuned": tuned}
    rows |= {case.name: case for case in cases if case.settings["kind"] in ("strong", "weak")}
    for name, case in rows.items():
        samples = case.figures["samples"]
        table.add_row(Text(name), samples.to_text(), f"{samples.median / untuned.figures['samples'].median:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--devices", type=counts, metavar="N,N...", help="default: up to all GPUs, or 1,2 processes")
    parser.add_argument("--steps", type=count, default=60, dest="num_steps", help="measured in each run (%(default)s)")
    parser.add_argument("--table", action="store_true", dest="with_untuned", help="also one device with nothing tuned")
    parser.add_argument("--overhead", action="store_true", dest="only_overhead", help="instead: ddp with one process")
    with report_errors():
        run_benchmark(parser.parse_args(arguments), Options, measure, to_tables)


if __name__ == "__main__":
    main()
