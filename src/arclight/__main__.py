"""`python -m arclight VERB ...`: what can be done with a trained run. Training itself is `python train.py`."""

from __future__ import annotations

import argparse

from arclight.benchmark.command_line import add_verbs as add_benchmark_verbs
from arclight.config.compose import report_errors
from arclight.errors import InputError


def main(arguments: list[str] | None = None) -> None:
    """Runs the verb of the command line."""
    parser = argparse.ArgumentParser(prog="python -m arclight", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("evaluate", help="score a trained model on a split or on other data")
    verb.add_argument("run", metavar="RUN", help="run folder, checkpoint file, or latest")
    verb.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE", help="settings of the data, such as data.root=...")
    verb.add_argument("--split", choices=("test", "val"), default="test")
    verb.set_defaults(do=evaluate)

    verb = verbs.add_parser("report", help="write report.html of a run folder anew")
    verb.add_argument("run", metavar="RUN", help="run folder, checkpoint file, or latest")
    verb.set_defaults(do=report)

    verb = verbs.add_parser("compare", help="configs and scores of runs side by side, over seeds, and what could be chance")
    verb.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder, checkpoint file, latest, folder of a grid, or pattern"
    )
    verb.add_argument("--html", metavar="FILE", help="also a page with the curves")
    verb.set_defaults(do=compare)

    verb = verbs.add_parser("doctor", help="what hardware is here, what `auto` takes on it and why, what is missing")
    verb.add_argument("--json", action="store_true", help="the same for other programs")
    verb.set_defaults(do=doctor)

    add_benchmark_verbs(verbs.add_parser("benchmark", help="how fast it is on this machine"))

    options = parser.parse_args(arguments)
    with report_errors():
        options.do(options)


def evaluate(options: argparse.Namespace) -> None:
    """Prints the scores of a run on a split."""
    import yaml

    overrides = {}
    for override in options.overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("data."):
            raise InputError(f"'{override}' is not of the form data.KEY=VALUE, the settings that evaluate takes")
        overrides[key.removeprefix("data.")] = yaml.safe_load(value)
    from arclight.console.terminal import open_console, say, show
    from arclight.runs import experiment  # seconds to import: what is wrong above is told before

    scores = experiment.evaluate(options.run, overrides, split=options.split)
    console = open_console()
    show(console, [table.to_rich() for table in scores.tables])
    say(console, ["", *(f"{options.split}/{name:20}{value:.4f}" for name, value in scores.numbers.items())])


def report(options: argparse.Namespace) -> None:
    """Prints where the new report lies."""
    from pathlib import Path

    from arclight.config.locations import find_run
    from arclight.report.report import write_report

    is_begun = (Path(options.run) / "overrides.txt").is_file()  # a run that was killed may have written no more than that
    print(write_report(Path(options.run) if is_begun else find_run(options.run)))


def compare(options: argparse.Namespace) -> None:
    """Prints the tables, and where the page lies."""
    from pathlib import Path

    from arclight.console.terminal import open_console, say, show
    from arclight.report.comparison import compare_runs, verdict
    from arclight.report.comparison_page import to_rich, write_comparison

    comparison = compare_runs(options.runs)
    console = open_console()
    show(console, to_rich(comparison, console.width))
    say(console, ["", *verdict(comparison), *comparison.left_out])
    if options.html:
        if not Path(options.html).resolve().parent.is_dir():
            raise InputError(f"--html {options.html}: its folder is not there; make it first")
        write_comparison(comparison, Path(options.html))
        print(options.html)


def doctor(options: argparse.Namespace) -> None:
    """Prints facts, plan, trials and what is missing."""
    from arclight.hardware.doctor import examine, to_json, to_text

    print((to_json if options.json else to_text)(examine()))


if __name__ == "__main__":
    main()
