"""What test_report does not see of the figures: it tests them as parts of the page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from arclight.metrics.calibration import Bin, Calibration
from arclight.report.figures import calibration_chart, length_chart, line_chart, read_series


def test_figures_take_the_page_s_colour_of_text_and_no_ground() -> None:
    for svg in (
        calibration_chart(Calibration(0.1, 0.8, 0.7, 10, [Bin(10, 1.0, 0.7)])),
        length_chart({"train": {3: 5, 400: 1}, "<odd>": {}}, "words"),
    ):
        assert "currentColor" in svg
        assert "#ffffff" not in svg
        assert "<odd>" not in svg
        assert re.match(r'<svg viewBox="[^"]*" role="img"', svg)


def test_the_reliability_diagram_shows_the_number_of_each_bar() -> None:
    bins = [Bin(7, 0.05, 0.1), Bin(1234, 0.55, 0.5), Bin(43_210, 0.95, 0.9)]
    svg = str(calibration_chart(Calibration(0.1, 0.8, 0.7, 44_451, bins)))
    assert re.findall(r">(7|1,234|43k|0.5)</text>", svg) == ["7", "1,234", "43k"]


def test_a_constant_has_one_value_on_its_axis() -> None:
    lines = {"lr": [(1.0, 0.001), (2.0, 0.001)], "also": [(1.0, 0.001)]}
    assert re.findall(r">(0\.[\d]+)</text>", str(line_chart("lr", lines))) == ["0.001"]
    assert len(re.findall(r">(0\.[\d]+)</text>", str(line_chart("lr", {"lr": [(1.0, 0.001), (2.0, 0.002)]})))) > 2


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({}, {"val_x": "val/x", "test_x": "test/x", "val_both": "val_both"}),
        ({"monitor": "val/acc"}, {"acc": "val/acc"}),
        ({"val/acc": 1, "test/acc": 1, "val/x": 1}, {"acc": "val/acc", "val_x": "val/x"}),
        ({"monitor": None, "train/lr": 1}, {"lr": "lr"}),
    ],
)
def test_metrics_have_their_names_in_the_results(results: dict[str, Any], expected: dict[str, str]) -> None:
    names = ["val_x", "test_x", "acc", "lr", "val/both", "val_both"]
    found = read_series(f"step,{','.join(names)}\n1{',0.5' * len(names)}\n", results)
    assert set(expected.values()) <= set(found)
    assert not set(found) & (set(expected) - set(expected.values()))


@pytest.mark.parametrize("text", ['"><meta http-equiv="refresh"><form>', "\ud800", r"$\frac{$", "\x1b[2J\0"])
def test_any_text_is_only_text_in_a_figure(text: str) -> None:
    for svg in (line_chart(text, {"a": [(0, 1.0), (1, 2.0)]}), length_chart({"train": {3: 5}}, text)):
        svg.encode()
        assert "<meta" not in svg
        assert "<form" not in svg
        assert "\x1b" not in svg
