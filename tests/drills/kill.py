"""Stops real runs of `python train.py` at chosen moments, resumes them and compares them with runs that nothing stopped.

    python tests/drills/kill.py                                    # all drills, within --seconds
    python tests/drills/kill.py --only kill --processes 2 --task text --stops 10 --seconds 300
    python tests/drills/kill.py --only signals
    python tests/drills/kill.py --only others                      # W&B, two runs at once, full and read-only disks
    python tests/drills/kill.py --preload --random-settings 60 --seed 1

Prints a line per stop and per run, appends it to --records, writes all records as Markdown tables to --page, and exits with 1
if any run ended different or anything else was not as promised.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.drills import others, random_settings, runs, table
from tests.drills.moments import AIMS, Watch, wait_for
from tests.drills.runs import ROOT, TASKS, Drill, command_for, differences, end, results

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
TIMEOUT_S = 120.0  # of waiting for a moment


def whole_run(folder: Path, task: str, processes: int) -> Drill:
    """Returns the run that nothing stops; trained once per directory."""
    whole = Drill(folder / f"{task}-{processes}-whole", command_for(task, processes))
    if not whole.has_finished and whole.finish():
        raise SystemExit(f"the run that nothing stops failed: {whole.log_file}")
    return whole


def stop_repeatedly(
    whole: Drill, run: Drill, stops: list[tuple[str, str]], moments: random.Random, deadline: float
) -> Iterator[dict[str, Any]]:
    """Starts and stops a run at each of the moments, resuming each time; then lets it finish.

    Args:
        whole: the run that it must end equal to.
        run: in a directory of its own.
        stops: pairs of signal and intended moment.
        moments: draws the exact time.
        deadline: by time.monotonic(); no stop is started after it.
    """
    start_s = float(results(whole.runs[0])["time/first_step_s"])
    status: int | None = None
    for name, aim in stops:
        if time.monotonic() > deadline:
            break
        number = signal.Signals[name]
        process, watch = run.start("resume=auto"), Watch(run)
        reached, pids = wait_for(aim, process, watch, moments, start_s, TIMEOUT_S)
        if not reached:
            status = process.wait()
            break
        returncode = end(process, number, pids)
        if run.has_finished:  # the signal came after the run had finished
            status = 0
            break
        is_right = returncode in ((-9,) if number is signal.SIGKILL else (128 + number,))
        yield {
            **{"kind": "stop", "signal": name, "aimed": aim, "moment": watch.moment() if number is signal.SIGKILL else aim},
            **{"status": returncode, "status_is_right": is_right},
        }
    if status is None:
        status = run.finish("resume=auto")
    different = [f"exit status {status} of the resumed run"] if status else differences(whole, run)
    yield {"kind": "end", "different": different}


def main() -> int:
    """Returns 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("kill", "signals", "others"), help="one kind of drill")
    parser.add_argument("--task", choices=tuple(TASKS), help="one of the examples")
    parser.add_argument("--processes", type=int, choices=(1, 2), help="per run; default: 1 and 2")
    parser.add_argument("--stops", type=int, default=60, help="maximum per kind (%(default)s)")
    parser.add_argument("--each", type=int, default=5, help="stops per run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1800, help="no drill starts after this time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--random-settings", type=int, metavar="N", help="SIGKILLs in N settings drawn from conf/; nothing else"
    )
    parser.add_argument("--preload", action="store_true", help="fork runs from one process that has imported everything")
    parser.add_argument("--folder", type=Path, help="for the runs; kept for the next call")
    parser.add_argument("--records", type=Path, help="file to append to; default: beside the runs")
    parser.add_argument("--page", type=Path, help="file for the tables of all records")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="drills_"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.preload:
        runs.preload()
    records = options.records or folder / "records.jsonl"
    began, failed = time.monotonic(), 0
    deadline = began + options.seconds

    def record_result(**record: Any) -> None:
        nonlocal failed
        failed += bool(record.get("different")) or record.get("as_promised") is False or record.get("status_is_right") is False
        with records.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if record["kind"] != "start":
            print(json.dumps(record), flush=True)

    paths = ("--folder", "--records", "--page")  # of this machine, not worth recording
    typed = [word for word, before in zip(sys.argv[1:], sys.argv, strict=False) if word not in paths and before not in paths]
    record_result(kind="start", command=shlex.join(["python", "tests/drills/kill.py", *typed]), **table.environment())
    tasks = [options.task] if options.task else list(TASKS)
    numbers = [options.processes] if options.processes else [1, 2]
    kinds = {"kill": ("SIGKILL",), "signals": SIGNALS} if options.random_settings is None else {}
    for record in random_settings.drill(
        folder, options.random_settings or 0, options.seed, deadline, processes=options.processes
    ):
        record_result(**record)
    for kind, signals in kinds.items():
        if options.only not in (None, kind):
            continue
        moments, num_stops = random.Random(options.seed), 0
        aims = AIMS if kind == "kill" else AIMS[1:]  # a signal in start-up ends the run at once, before there is a checkpoint
        for number, (processes, task) in zip(itertools.count(), itertools.cycle(itertools.product(numbers, tasks))):
            if num_stops >= options.stops or time.monotonic() > deadline:
                break
            whole = whole_run(folder, task, processes)
            name = f"{task}-{processes}-{kind}-{options.seed}-{number}-{os.getpid()}"  # calls may share a directory
            chosen = moments.sample(aims, len(aims)) * 2
            stops = [(moments.choice(signals), aim) for aim in chosen][: min(options.each, options.stops - num_stops)]
            for record in stop_repeatedly(whole, Drill(folder / name, whole.overrides), stops, moments, deadline):
                record_result(run=name, task=task, processes=processes, **record)
                num_stops += record["kind"] == "stop"
    if options.only in (None, "others") and options.random_settings is None:
        for task in tasks:
            for record in others.all_of(folder, task, whole_run(folder, task, 1), deadline):
                record_result(kind="other", **record)
    if options.page:
        table.write(table.read(records), options.page if options.page.is_absolute() else ROOT / options.page)
    print(f"{failed} not as promised; {time.monotonic() - began:.0f} s; runs and records: {folder}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
