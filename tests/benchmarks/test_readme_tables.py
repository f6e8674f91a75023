"""The numbers of docs/speed.md are those of the result files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arclight.benchmark.measurement import RESULTS
from arclight.config.locations import CONF
from arclight.errors import InputError
from benchmarks.readme_tables import newest, read_result, to_markdown


def write(folder: Path, name: str, benchmark: str, date: str, cases: dict[str, tuple[str, list[float]]], task: str) -> None:
    plain = [
        {"name": case, "settings": {"precision": "bf16-mixed"}, "figures": {key: {"values": values, "unit": "1/s"}}}
        for case, (key, values) in cases.items()
    ]
    hardware_info = {"device": "made up", "date": date, "num_rounds": 2, "command": "python x", "settings": {"task": task}}
    (folder / name).write_text(json.dumps({"benchmark": benchmark, **hardware_info, "cases": plain}))


def test_ways_to_train_stand_side_by_side(tmp_path: Path) -> None:
    images = {"raw": ("samples", [4.0, 6.0]), "arclight": ("samples", [10.0, 30.0]), "dataloader": ("samples", [1.0, 1.0])}
    write(tmp_path, "a.json", "train-synthetic_images-cnn", "2026-02-01", images, "images")
    write(
        tmp_path, "b.json", "train-synthetic_images-cnn", "2026-01-01", {"arclight": ("samples", [7.0, 7.0])}, "images"
    )  # older
    write(tmp_path, "c.json", "train-synthetic_text-x", "2026-01-01", {"arclight": ("tokens", [5.0, 5.0])}, "text")
    write(tmp_path, "d.json", "loader-x", "2026-01-01", {"some": ("batches", [2.0, 2.0])}, "images")
    lines = to_markdown(newest(tmp_path)).splitlines()
    assert lines[3:] == [
        "| training loop | images/s | real tokens/s |",
        "|---|---|---|",
        "| `python train.py` (bf16, chosen by `auto` here) | 20.0 (10.0 to 30.0) | 5.00 (5.00 to 5.00) |",
        "| same kernels in a bare loop, without Lightning | 5.00 (4.00 to 6.00) |  |",
        "| tutorial loop: DataLoader, 2 workers, fp32 | 1.00 (1.00 to 1.00) |  |",
        "",
        "`python x` on made up, 2026-01-01, n = 2:",
        "",
        "|  | batches/s |",
        "|---|---|",
        "| some | 2.00 (2.00 to 2.00) |",
    ]


def test_a_directory_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no result files. Try: python -m benchmarks.training"):
        newest(tmp_path)


def test_the_table_of_the_documents_comes_from_the_files() -> None:
    document = (CONF.parent / "docs" / "speed.md").read_text()
    made = {" ".join(line.split()) for line in to_markdown(newest()).splitlines()}
    _, _, after = document.partition("| training loop |")
    rows = [" ".join(line.split()) for line in after.split("\n\n")[0].splitlines()[2:]]
    assert rows
    for row in rows:
        assert row in made, f"python -m benchmarks.readme_tables does not print: {row}"


@pytest.mark.parametrize("content", ["", "[]", '{"cases": 3}', '{"cases": [{"name": "x"}]}'])
def test_another_file_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"r.json is not a result file of a benchmark"):
        read_result(tmp_path / "r.json")


def test_the_stored_results_can_be_read() -> None:
    for file in RESULTS.glob("*.json"):
        result = read_result(file)
        assert result.metadata["num_rounds"] >= 1
        assert any(case.figures for case in result.cases)
