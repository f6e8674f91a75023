"""The verbs `export` and `compress` of `python -m arclight`. Nothing heavy is imported before a verb is chosen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arclight.console.terminal import open_console, print_lines, print_tables
from arclight.errors import InputError

FORMATS = ("onnx", "torch_export", "safetensors", "huggingface")
METHODS = ("int8_dynamic", "int8_static", "prune", "prune_structured")


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to the sub-parsers of argparse."""
    verb = verbs.add_parser("export", help="write a trained model as a file that runs without this project")
    add_run(verb)
    verb.add_argument("--format", choices=FORMATS, default="onnx", dest="file_format", help="(%(default)s)")
    verb.add_argument("--opset", type=int, help="version of ONNX operators (default: that of torch's exporter)")
    verb.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of an output (%(default)s)")
    verb.add_argument("--push", metavar="NAME", help="upload the directory as this model to the Hugging Face hub")
    verb.set_defaults(do=export)

    verb = verbs.add_parser("compress", help="make a trained model smaller, and measure what it costs")
    add_run(verb)
    verb.add_argument("--method", choices=METHODS, default="int8_dynamic", help="(%(default)s)")
    verb.add_argument("--max-loss", type=float, help="what the score may lose, such as 0.01; more is an error")
    verb.add_argument("--amount", type=float, help="fraction of weights or channels to remove (0.5)")
    verb.add_argument("--epochs", type=int, help="of fine-tuning after weights are removed (1)")
    verb.set_defaults(do=compress)


def add_run(verb: argparse.ArgumentParser) -> None:
    """Adds the run, settings of its data, and the directory."""
    verb.add_argument("run", metavar="RUN", help="run directory, checkpoint file, or latest")
    verb.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE", help="data settings to change, such as data.root=...")
    verb.add_argument("--output", type=Path, metavar="DIR", help="new directory (default: in the run directory)")


def export(options: argparse.Namespace) -> None:
    """Prints the directory and the comparison with the trained model."""
    from arclight.export.directory import export as export_run  # imports torch
    from arclight.export.hub import check_hub_name, push
    from arclight.runs.evaluation import parse_overrides

    if options.push:
        check_hub_name(options.push)
    exported = export_run(
        options.run,
        parse_overrides(options.overrides, "export"),
        file_format=options.file_format,
        output=options.output,
        opset=options.opset,
        tolerance=options.tolerance,
    )
    files = sorted(exported.directory.iterdir())
    sizes = [f"{file} ({file.stat().st_size / 1e6:,.1f} MB)" for file in files]
    print_lines(open_console(), [str(exported.parity), *sizes])
    if options.push:
        print_lines(open_console(), [push(exported.directory, options.push)])


def compress(options: argparse.Namespace) -> None:
    """Prints score, size and latency before and after, and the directory."""
    from arclight.export.compression import CompressionOptions  # imports torch
    from arclight.export.compression import compress as compress_run
    from arclight.runs.evaluation import parse_overrides

    pruning = {name: value for name in ("amount", "epochs") if (value := getattr(options, name)) is not None}
    if pruning and not options.method.startswith("prune"):
        raise InputError(f"--{next(iter(pruning))} is for --method prune and prune_structured, not {options.method}")
    compressed = compress_run(
        options.run,
        parse_overrides(options.overrides, "compress"),
        method=options.method,
        output=options.output,
        max_loss=options.max_loss,
        options=CompressionOptions(**pruning),
    )
    console = open_console()
    print_tables(console, [compressed.to_table()])
    print_lines(console, [str(compressed.directory)])
