"""What all benchmarks read from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from arclight.benchmark.command_line import BenchmarkOptions, add_arguments, count, counts, new_file


def test_numbers() -> None:
    assert counts("4,1,2,2") == [1, 2, 4]
    for text in ("1,,2", "two", "0", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number of 1 or more"):
            counts(text)
    assert count("3") == 3


def test_a_result_file_needs_a_directory(tmp_path: Path) -> None:
    assert new_file(str(tmp_path / "r.json")) == tmp_path / "r.json"
    with pytest.raises(argparse.ArgumentTypeError, match=r"nowhere/r.json: .*nowhere does not exist. Create it first"):
        new_file(str(tmp_path / "nowhere" / "r.json"))


def test_the_batch_size_is_an_override() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = BenchmarkOptions.parsed(parser.parse_args(["a=1", "--batch-size", "8", "--repeats", "2"]))
    assert options == BenchmarkOptions(overrides=["a=1", "data.batch_size=8"], num_rounds=2)
