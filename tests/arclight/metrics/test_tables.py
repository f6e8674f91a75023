"""Tables of precision, recall and F1 from counts."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from rich.console import Console

from arclight.metrics.tables import Row, Table, tabulate

COUNTS = torch.tensor([[3, 4, 6], [0, 0, 2], [0, 5, 0], [0, 0, 0]])
NAMES = ("cat", "never predicted", "never true", "neither")


def shown(table: Table) -> list[str]:
    console = Console(width=90, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table.to_rich())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_rows_are_the_hand_counted_ones_and_nothing_divides_by_0() -> None:
    table = tabulate(COUNTS, NAMES, title="pets")
    assert table.rows == (
        Row("cat", 0.75, 0.5, 0.6, 6),
        Row("never predicted", 0.0, 0.0, 0.0, 2),
        Row("never true", 0.0, 0.0, 0.0, 0),
        Row("neither", 0.0, 0.0, 0.0, 0),
    )


def test_averages_are_the_hand_counted_ones() -> None:
    micro, macro, weighted = tabulate(COUNTS, NAMES, title="pets").averages
    assert micro == Row("micro avg", pytest.approx(3 / 9), pytest.approx(3 / 8), pytest.approx(6 / 17), 8)
    assert macro == Row("macro avg", pytest.approx(0.75 / 4), pytest.approx(0.5 / 4), pytest.approx(0.6 / 4), 8)
    assert weighted == Row("weighted avg", pytest.approx(0.75 * 0.75), pytest.approx(0.5 * 0.75), pytest.approx(0.6 * 0.75), 8)


def test_averages_come_in_the_order_asked_for() -> None:
    table = tabulate(COUNTS, NAMES, title="pets", averages=("weighted avg", "micro avg"))
    assert [row.name for row in table.averages] == ["weighted avg", "micro avg"]
    assert tabulate(COUNTS, NAMES, title="pets", averages=()).averages == ()


def test_no_class_at_all_scores_0() -> None:
    table = tabulate(torch.zeros(0, 3, dtype=torch.int64), [], title="nothing")
    assert table.rows == ()
    assert [(row.precision, row.recall, row.f1, row.support) for row in table.averages] == [(0.0, 0.0, 0.0, 0)] * 3


def test_a_plain_table_goes_through_json() -> None:
    table = tabulate(COUNTS[:1], NAMES[:1], title="pets", averages=("macro avg",))
    assert json.loads(json.dumps(asdict(table))) == {
        "title": "pets",
        "rows": [{"name": "cat", "precision": 0.75, "recall": 0.5, "f1": 0.6, "support": 6}],
        "averages": [{"name": "macro avg", "precision": 0.75, "recall": 0.5, "f1": 0.6, "support": 6}],
    }


def test_a_terminal_shows_three_figures_to_the_right() -> None:
    table = Table("pets", (Row("cat", 2 / 3, 0.5, 1.0, 12345),), (Row("macro avg", 0.0, 0.25, 1 / 7, 6),))
    lines = shown(table)
    assert lines[0].strip() == "pets"
    (heading,) = [line for line in lines if "precision" in line]
    (cat,) = [line for line in lines if "cat" in line]
    (average,) = [line for line in lines if "macro avg" in line]
    assert cat.strip("│ ").split() == ["cat", "│", "0.667", "│", "0.500", "│", "1.00", "│", "12345"]
    assert average.strip("│ ").split() == ["macro", "avg", "│", "0", "│", "0.250", "│", "0.143", "│", "6"]
    assert heading.index("precision") + len("precision") == cat.index("0.667") + 5 == average.index("0 ") + 1
    assert cat.index("12345") + 5 == average.rindex("6") + 1
    assert lines.index(average) == lines.index(cat) + 2  # a line between classes and averages


def test_names_are_shown_as_they_are() -> None:
    lines = shown(Table("[bold]pets", (Row("[red]cat[/red]", 0.0, 0.0, 0.0, 0),), ()))
    assert lines[0].strip() == "[bold]pets"
    assert any("[red]cat[/red]" in line for line in lines)
