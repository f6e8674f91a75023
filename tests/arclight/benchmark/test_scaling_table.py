"""The tables show medians with their spread, and only columns that hold something."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from arclight.benchmark.measurement import Case, Figure, Result
from arclight.benchmark.scaling_table import to_communication_table, to_short_table, to_table

FACTS = {
    "device": "Some CPU",
    "num_rounds": 2,
    "machine": {"flops": {"fp32": 1e11}, "copy_bytes_per_s": 2e10},
}


def case(name: str, kind: str, samples: float, **figures: float) -> Case:
    measured = {"samples": Figure((samples, samples * 3), "1/s"), **{key: Figure((v,), "") for key, v in figures.items()}}
    return Case(name, {"kind": kind, "batch_size": 64}, measured)


def to_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


RESULT = Result(
    "scaling-synthetic_images-cnn",
    FACTS,
    (
        case("untuned", "untuned", 100, peak_share=0.3),
        case("1 process, 2 threads", "one", 200, peak_share=0.5),
        case("2 processes, strong", "strong", 300, efficiency=0.75, exposed=1.5, exposed_share=0.05, floor=1.0),
    ),
)


def test_the_table_of_cases() -> None:
    text = to_text(to_table(RESULT))
    assert "scaling-synthetic_images-cnn on Some CPU, n = 2" in text
    assert "200 (100 to 300)" in text
    assert "0.750" in text
    assert "50%" in text
    assert "over single" not in text
    assert "fp32 100" in text


def test_the_table_of_communication_has_only_cases_with_it() -> None:
    text = to_text(to_communication_table(RESULT))
    assert "2 processes, strong" in text
    assert "untuned" not in text
    assert "5%" in text
    assert "all-reduce" not in text


def test_plain_tuned_and_several_side_by_side() -> None:
    rows = [line.split() for line in to_text(to_short_table(RESULT)).splitlines()]
    factors = {" ".join(row[1:4]): row[-2] for row in rows if len(row) > 6}
    assert factors["one device, plain"] == "1.00"
    assert factors["one device, library-tuned"] == "2.00"
    assert factors["2 processes, strong"] == "3.00"


def test_the_overhead_names_its_target() -> None:
    result = Result("overhead", FACTS, (case("1 process", "one", 9), case("ddp, 1 process", "ddp", 9, overhead=1.02)))
    text = " ".join(to_text(to_table(result)).split())
    assert "1.02" in text
    assert "at most 1.03 times as long" in text
