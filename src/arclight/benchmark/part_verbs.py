"""Verbs of `python -m arclight benchmark` that measure a part of a run: loading, inference, growth; and the README's tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.benchmark.options import add_common, read_counts, show

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_part_verbs(verbs: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds them to the others."""
    verb = verbs.add_parser("loader", help="batches alone: batches, samples, real tokens a second")
    verb.add_argument("--task", choices=("images", "text"), default="images", help="whose made data is loaded")
    verb.add_argument("--against", choices=("dataloader",), help="also torch's DataLoader with transforms of single samples")
    verb.add_argument("--workers", metavar="N,N...", help="its worker processes; none, and one for each core")
    verb.add_argument("--batches", type=int, default=100, help="measured in each round (%(default)s)")
    add_common(verb)
    verb.set_defaults(do=loader)

    verb = verbs.add_parser("inference", help="the forward pass by batch size: samples a second, latency")
    verb.add_argument("--model", default="cnn", help="an option of conf/model (%(default)s)")
    verb.add_argument("--batch-sizes", metavar="N,N...", help="1,4,16,64,256 otherwise")
    verb.add_argument("--without", action="append", default=[], choices=("compile",), help="leave a switch out")
    add_common(verb, with_batch_size=False)
    verb.set_defaults(do=inference)

    verb = verbs.add_parser("growth", help="1, 4 and 16 times the data: is cost a straight line?")
    verb.add_argument("--task", choices=("images", "text"), default="images", help="whose files are made")
    verb.add_argument("--sizes", metavar="N,N...", help="times the data; 1,4,16 otherwise")
    verb.add_argument("--samples", type=int, help="in one times the data; 1,024 images or 512 sentences")
    add_common(verb, with_batch_size=False)
    verb.set_defaults(do=growth)

    verb = verbs.add_parser("table", help="the README's tables as Markdown, from the result files")
    verb.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of result files; benchmarks/results/ otherwise")
    verb.set_defaults(do=table)


def loader(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.loader import Wish, measure_loader, to_table

    size = () if options.batch_size is None else (f"data.batch_size={options.batch_size}",)
    wish = Wish(
        task=options.task,
        against_dataloader=options.against is not None,
        workers=read_counts("--workers", options.workers) or (),
        overrides=(*options.overrides, *size),
        device=options.device,
        num_batches=options.batches,
        num_rounds=options.repeats,
    )
    show(options, lambda tell: measure_loader(wish, tell=tell), lambda result: [to_table(result)])


def inference(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.inference import SIZES, Wish, measure_inference, to_table

    wish = Wish(
        model=options.model,
        sizes=read_counts("--batch-sizes", options.batch_sizes) or SIZES,
        overrides=tuple(options.overrides),
        device=options.device,
        skip=tuple(options.without),
        num_rounds=options.repeats,
    )
    show(options, lambda tell: measure_inference(wish, tell=tell), lambda result: [to_table(result)])


def growth(options: argparse.Namespace) -> None:
    """Prints the table and where the result lies."""
    from arclight.benchmark.growth import SIZES, Wish, measure_growth, to_table

    wish = Wish(
        task=options.task,
        sizes=read_counts("--sizes", options.sizes) or SIZES,
        num_samples=options.samples,
        overrides=tuple(options.overrides),
        device=options.device,
        num_rounds=options.repeats,
    )
    show(options, lambda tell: measure_growth(wish, tell=tell), lambda result: [to_table(result)])


def table(options: argparse.Namespace) -> None:
    """Prints the tables."""
    import sys

    from arclight.benchmark.markdown import newest, to_markdown
    from arclight.benchmark.measurement import RESULTS

    sys.stdout.write(to_markdown(newest(options.folder or RESULTS)) + "\n")
