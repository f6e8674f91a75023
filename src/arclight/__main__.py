"""`python -m arclight VERB ...`: evaluate, use, report and compare runs, examine and benchmark hardware. Training: train.py."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from arclight.console.interrupt import report_interrupt

with report_interrupt():  # these take a second
    from arclight.benchmark.command_line import add_verbs as add_benchmark_verbs
    from arclight.config.compose import report_errors
    from arclight.console.terminal import format_metric, open_console, print_lines, print_tables
    from arclight.errors import InputError
    from arclight.export.command_line import add_verbs as add_export_verbs
    from arclight.inference.command_line import add_predict
    from arclight.serving.command_line import add_verbs as add_serving_verbs


def main(arguments: list[str] | None = None) -> None:
    """Runs the verb of the command line."""
    parser = argparse.ArgumentParser(prog="python -m arclight", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("evaluate", help="compute the metrics of a trained model on a split or on other data")
    verb.add_argument("run", metavar="RUN", help="run directory, checkpoint file, or latest")
    verb.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE", help="data settings to change, such as data.root=...")
    verb.add_argument("--split", choices=("test", "val"), default="test")
    verb.add_argument("--device", default="auto", help="auto (as in training), cpu, cuda, cuda:1 or mps")
    verb.add_argument("--robustness", action="store_true", help="also on samples damaged by degrees; writes robustness.html")
    verb.set_defaults(do=evaluate)

    add_predict(verbs.add_parser("predict", help="predict new files with a trained model"))

    verb = verbs.add_parser("report", help="write the report.html of a run again")
    verb.add_argument("run", metavar="RUN", help="run directory, checkpoint file, or latest")
    verb.set_defaults(do=report)

    verb = verbs.add_parser("compare", help="compare configs and metrics of runs, over seeds, with significance")
    runs = "run directory, checkpoint file, latest, directory of a multirun, or pattern with *"
    verb.add_argument("runs", nargs="+", metavar="RUN", help=runs)
    verb.add_argument("--html", metavar="FILE", help="also write a page with the curves")
    verb.set_defaults(do=compare)

    verb = verbs.add_parser("doctor", help="show the hardware, what `auto` chooses on it and why, and missing packages")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(do=doctor)

    add_export_verbs(verbs)
    add_serving_verbs(verbs)

    add_benchmark_verbs(verbs.add_parser("benchmark", help="measure speed on this machine"))

    options, rest = parser.parse_known_args(arguments)
    if "overrides" in options and all(re.match(r"[\w.+~]+=", text) for text in rest):
        options.overrides += rest  # argparse does not take them after an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    with report_errors():
        options.do(options)


def evaluate(options: argparse.Namespace) -> None:
    """Prints the metrics of a run on a split."""
    from arclight.checkpoint.contents import find_checkpoint  # takes seconds to import
    from arclight.runs import evaluation
    from arclight.runs.evaluation_files import evaluation_dir

    console = open_console()
    overrides = evaluation.parse_overrides(options.overrides, "evaluate")
    checkpoint = find_checkpoint(options.run)
    print_lines(console, [f"Evaluating {checkpoint}"])
    folder = evaluation_dir(checkpoint)
    scores = evaluation.evaluate(str(checkpoint), overrides, split=options.split, folder=folder, device=options.device)
    print_tables(console, [table.to_rich() for table in scores.tables])
    print_lines(console, ["", *(f"{options.split}/{name:20}{format_metric(value)}" for name, value in scores.metrics.items())])
    print_lines(console, ["", f"Report: {folder / 'report.html'}"])
    if options.robustness:
        from arclight.runs import robustness

        measured = robustness.measure(
            evaluation.prepare(str(checkpoint), overrides, split=options.split, device=options.device)
        )
        print_tables(console, [measured.table()])
        measured.write(folder / "robustness.html")
        print_lines(console, ["", f"Robustness: {folder / 'robustness.html'}"])


def report(options: argparse.Namespace) -> None:
    """Prints the path of the new report."""
    from arclight.config.locations import find_run
    from arclight.report.report import write_report

    is_run_dir = (Path(options.run) / "overrides.txt").is_file()  # all that a run killed at its start has written
    folder = Path(options.run) if is_run_dir else find_run(options.run)
    try:
        page = write_report(folder)
    except OSError as error:
        raise InputError(f"{folder / 'report.html'} cannot be written: {error.strerror}") from error
    print_lines(open_console(), [str(page)])


def compare(options: argparse.Namespace) -> None:
    """Prints the tables, and the path of the page."""
    from arclight.runs.comparison import compare_runs, conclusions
    from arclight.runs.comparison_page import terminal_tables, write_comparison

    comparison = compare_runs(options.runs)
    console = open_console()
    print_tables(console, terminal_tables(comparison, console.width))
    print_lines(console, ["", *conclusions(comparison), *comparison.left_out])
    if options.html:
        if not Path(options.html).resolve().parent.is_dir():
            raise InputError(f"--html {options.html}: its directory does not exist; create it first")
        try:
            write_comparison(comparison, Path(options.html))
        except OSError as error:
            raise InputError(f"--html {options.html} cannot be written: {error.strerror}; name another file") from error
        print_lines(console, [options.html])


def doctor(options: argparse.Namespace) -> None:
    """Prints hardware, plan, trials and missing packages."""
    from arclight.config.locations import CONF
    from arclight.hardware.doctor import examine, to_json, to_text

    findings = examine(CONF.parent)
    print(to_json(findings) if options.json else to_text(findings))


if __name__ == "__main__":
    main()
