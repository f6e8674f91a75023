"""`python -m arclight VERB ...`: what can be done with a trained run. Training itself is `python train.py`."""

from __future__ import annotations

import argparse

from arclight.benchmark.command_line import add_verbs as add_benchmark_verbs
from arclight.config import mistakes_told
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
    verb.add_argument("run", metavar="RUN", help="run folder")
    verb.set_defaults(do=report)

    verb = verbs.add_parser("doctor", help="what hardware is here and what `auto` takes on it, with reasons")
    verb.set_defaults(do=doctor)

    add_benchmark_verbs(verbs.add_parser("benchmark", help="how fast it is on this machine"))

    options = parser.parse_args(arguments)
    with mistakes_told():
        options.do(options)


def evaluate(options: argparse.Namespace) -> None:
    """Prints the scores of a run on a split."""
    import yaml
    from rich.console import Console

    from arclight import experiment

    overrides = {}
    for override in options.overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("data."):
            raise InputError(f"'{override}' is not of the form data.KEY=VALUE, the settings that evaluate takes")
        overrides[key.removeprefix("data.")] = yaml.safe_load(value)
    scores = experiment.evaluate(options.run, overrides, split=options.split)
    console = Console()
    for table in scores.tables:
        console.print(table.to_rich())
    for name, value in scores.numbers.items():
        console.print(f"{options.split}/{name:20}{value:.4f}", highlight=False)


def report(options: argparse.Namespace) -> None:
    """Prints where the new report lies."""
    from pathlib import Path

    from arclight.evaluation.report import write_report

    folder = Path(options.run)
    if not folder.is_dir():
        raise InputError(f"{folder} is no run folder: give the folder that holds results.json")
    print(write_report(folder))


def doctor(options: argparse.Namespace) -> None:
    """Prints the facts and the plan."""
    from dataclasses import asdict

    from arclight import hardware

    facts = hardware.probe()
    for name, value in asdict(facts).items():
        print(f"{name:20}{value}")
    for name, choice in hardware.plan(facts, {}).items():
        print(f"{name:20}{choice.value} ({choice.reason})")


if __name__ == "__main__":
    main()
