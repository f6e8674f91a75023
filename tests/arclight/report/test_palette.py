"""The colours of the pages: text can be read on every ground it stands on, and lines are told apart by colour-blind eyes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arclight.report import figures

STYLE = (Path(figures.__file__).parent / "templates" / "style.css.j2").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL))
SCHEMES = {"light": LIGHT, "dark": LIGHT | DARK}
TEXT, GRAPHICS = 4.5, 3.0  # contrast at least. Source: WCAG 2.2, success criteria 1.4.3 and 1.4.11, level AA
TOLD_APART = 9.0  # distance in CIELAB; 2.3 is what can be noticed side by side
# what eyes without one kind of cone see, in linear RGB. Source: Machado, Oliveira and Fernandes (2009), severity 1
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> Any:
    """Linear RGB of "#rgb" or "#rrggbb"."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: Any) -> Any:
    scaled = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_graphics_have_contrast(scheme: str) -> None:
    colours = SCHEMES[scheme]
    for ground in (colours["ground"], colours["box"]):
        for text in ("ink", "faint", "good", "bad"):
            assert contrast(colours[text], ground) >= TEXT, (text, ground)
        for line in ("right-line", "wrong-line"):
            assert contrast(colours[line], ground) >= GRAPHICS, (line, ground)
    for cell in ("right", "wrong"):  # of the confusion matrix, under its numbers
        assert contrast(colours["ink"], colours[cell]) >= TEXT, cell
    parts = re.findall(r"\.part-\d \{ background: (#\w+) \}", STYLE)
    for colour in {colour for colour, _ in figures.LINES} | set(parts):
        assert contrast(colour, colours["ground"]) >= GRAPHICS, colour
    assert len(parts) == 4


@pytest.mark.parametrize("eyes", EYES)
def test_colour_blind_eyes_tell_colours_apart(eyes: str) -> None:
    lines = list(dict.fromkeys(colour for colour, _ in figures.LINES))
    pairs = [*itertools.combinations(lines, 2), *((colours["right"], colours["wrong"]) for colours in SCHEMES.values())]
    for one, other in pairs:
        seen = [lab(np.array(EYES[eyes]) @ linear(colour)) for colour in (one, other)]
        assert np.linalg.norm(seen[0] - seen[1]) > TOLD_APART, (one, other)


def test_lines_of_one_colour_have_other_dashes() -> None:
    assert len(set(figures.LINES)) == len(figures.LINES)
