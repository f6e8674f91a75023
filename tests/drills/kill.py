"""Stops real runs of `python train.py` at random and at aimed moments and compares what becomes of them with whole ones.

    python tests/drills/kill.py                                    # everything, within --seconds
    python tests/drills/kill.py --only kill --processes 2 --task text --stops 10 --seconds 300
    python tests/drills/kill.py --only signals
    python tests/drills/kill.py --only others                      # W&B, two runs at once, full and read-only disks

Prints a line for each stop and each run, adds them to --records, writes the page of all records to --page, and exits with 1
when any run ended different or anything else was not as promised.
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

from tests.drills import others, runs, table
from tests.drills.moments import AIMS, Watch, wait_for
from tests.drills.runs import ROOT, TASKS, Drill, command_for, differences, end, results

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
LONGEST_S = 120.0  # that a moment is waited for


def whole_run(folder: Path, module: str, processes: int) -> Drill:
    """The run that nothing stops; made once for all drills in this folder."""
    whole = Drill(folder / f"{module}-{processes}-whole", command_for(module, processes))
    if not whole.has_finished and whole.finish():
        raise SystemExit(f"the run that nothing stops failed: {whole.said}")
    return whole


def stop_again_and_again(
    whole: Drill, run: Drill, stops: list[tuple[str, str]], moments: random.Random, deadline: float
) -> Iterator[dict[str, Any]]:
    """Stops a run at each of the moments, each time after it has gone on; then lets it come to its end.

    Args:
        whole: that it must end equal to.
        run: in a folder of its own.
        stops: the signal and the moment that is aimed at.
        moments: where in the moment.
        deadline: by time.monotonic, after which no more stops are begun.
    """
    start_s = float(results(whole.runs[0])["time/first_step_s"])
    status: int | None = None
    for name, aim in stops:
        if time.monotonic() > deadline:
            break
        number = signal.Signals[name]
        process, watch = run.start("resume=auto"), Watch(run)
        there, pids = wait_for(aim, process, watch, moments, start_s, LONGEST_S)
        if not there:
            status = process.wait()
            break
        left = end(process, number, pids)
        if run.has_finished:  # the signal came after its last word
            status = 0
            break
        right = left in ((-9,) if number is signal.SIGKILL else (128 + number,))
        yield {
            **{"kind": "stop", "signal": name, "aimed": aim, "moment": watch.seen() if number is signal.SIGKILL else aim},
            **{"status": left, "status_is_right": right},
        }
    if status is None:
        status = run.finish("resume=auto")
    different = [f"exit status {status} of the run that went on"] if status else differences(whole, run)
    yield {"kind": "end", "different": different}


def main() -> int:
    """1 when anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("kill", "signals", "others"), help="one kind of drill")
    parser.add_argument("--task", choices=tuple(TASKS), help="one of the tasks")
    parser.add_argument("--processes", type=int, choices=(1, 2), help="of each run; both otherwise")
    parser.add_argument("--stops", type=int, default=60, help="at most so many of each kind (%(default)s)")
    parser.add_argument("--each", type=int, default=5, help="stops of one run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1800, help="nothing is begun later than this (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--preload", action="store_true", help="runs are forks of one process that has imported everything")
    parser.add_argument("--folder", type=Path, help="for the runs; kept, with the whole runs for the next call")
    parser.add_argument("--records", type=Path, help="where the records are added; a file beside the runs otherwise")
    parser.add_argument("--page", type=Path, help="such as docs/fault_drills.md: written from all records")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="drills_"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.preload:
        runs.preload()
    records = options.records or folder / "records.jsonl"
    began, failed = time.monotonic(), 0
    deadline = began + options.seconds

    def keep(**record: Any) -> None:
        nonlocal failed
        failed += bool(record.get("different")) or record.get("as_promised") is False or record.get("status_is_right") is False
        with records.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if record["kind"] != "start":
            print(json.dumps(record), flush=True)

    places = ("--folder", "--records", "--page")  # of this machine
    told = [word for word, before in zip(sys.argv[1:], sys.argv, strict=False) if word not in places and before not in places]
    keep(kind="start", command=shlex.join(["python", "tests/drills/kill.py", *told]), **table.hardware_info())
    tasks = [options.module] if options.module else list(TASKS)
    numbers = [options.processes] if options.processes else [1, 2]
    kinds = {"kill": ("SIGKILL",), "signals": SIGNALS}
    for kind, signals in kinds.items():
        if options.only not in (None, kind):
            continue
        moments, num_stops = random.Random(options.seed), 0
        aims = AIMS if kind == "kill" else AIMS[1:]  # a signal in start-up ends the run at once, with nothing to go on from
        for number, (processes, module) in zip(itertools.count(), itertools.cycle(itertools.product(numbers, tasks))):
            if num_stops >= options.stops or time.monotonic() > deadline:
                break
            whole = whole_run(folder, module, processes)
            name = f"{module}-{processes}-{kind}-{options.seed}-{number}-{os.getpid()}"  # calls may share a folder
            chosen = moments.sample(aims, len(aims)) * 2
            stops = [(moments.choice(signals), aim) for aim in chosen][: min(options.each, options.stops - num_stops)]
            for record in stop_again_and_again(whole, Drill(folder / name, whole.overrides), stops, moments, deadline):
                keep(run=name, module=module, processes=processes, **record)
                num_stops += record["kind"] == "stop"
    if options.only in (None, "others"):
        for module in tasks:
            for record in others.all_of(folder, module, whole_run(folder, module, 1), deadline):
                keep(kind="other", **record)
    if options.page:
        table.write(table.read(records), options.page if options.page.is_absolute() else ROOT / options.page)
    print(f"{failed} not as promised; {time.monotonic() - began:.0f} s; runs and records lie in {folder}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
