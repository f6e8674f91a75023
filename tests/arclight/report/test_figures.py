"""What test_report does not see of the figures: it tests them as parts of the page."""

from __future__ import annotations

import re

import pytest

from arclight.metrics.calibration import Bin, Calibration
from arclight.report.figures import calibration_chart, length_chart, line_chart


def test_figures_take_the_page_s_colour_of_text_and_no_ground() -> None:
    for svg in (
        calibration_chart(Calibration(0.1, 0.8, 0.7, 10, [Bin(10, 1.0, 0.7)])),
        length_chart({"train": {3: 5, 400: 1}, "<odd>": {}}, "words"),
    ):
        assert "currentColor" in svg
        assert "#ffffff" not in svg
        assert "<odd>" not in svg
        assert re.match(r'<svg viewBox="[^"]*" role="img"', svg)


@pytest.mark.parametrize("text", ['"><meta http-equiv="refresh"><form>', "\ud800", r"$\frac{$", "\x1b[2J\0"])
def test_any_text_is_only_text_in_a_figure(text: str) -> None:
    for svg in (line_chart(text, {"a": [(0, 1.0), (1, 2.0)]}), length_chart({"train": {3: 5}}, text)):
        svg.encode()
        assert "<meta" not in svg
        assert "<form" not in svg
        assert "\x1b" not in svg
