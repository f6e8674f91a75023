"""What the HTML pages share: templates with autoescape, formatting of values, writing a page."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells

from arclight.config.atomic_file import write_atomically

if TYPE_CHECKING:
    import jinja2

STEP_FRACTIONS = {  # key of results.json -> part of a training step
    "train/forward_backward_share": "forward and backward",
    "train/optimizer_share": "optimizer",
    "train/logging_share": "callbacks and loggers",
    "train/data_wait_share": "waiting for data",
}


@cache
def templates() -> jinja2.Environment:
    """Returns the environment of the templates, which compiles each once a process."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(format_value=format_value, duration=format_duration, shorten=shorten)
    return environment


def expect(kind: type, value: Any) -> Any:
    """Returns a value of a decoded file; raises ValueError when it is of another type."""
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


def write_page(path: Path, page: str) -> None:
    """Writes the page atomically."""
    write_atomically(path, page.encode(errors="replace"))  # a lone surrogate, which JSON can hold and UTF-8 cannot, becomes "?"


def format_value(value: Any, unit: str = "") -> str:
    """Returns a number with four digits and its unit; other values as text.

    The unit "share" formats 0..1 in percent, "name" a number that is not a quantity, such as a seed.
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float) or unit == "name":
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return text if len(text) <= 300 else f"{text[:300]}…"
    if not isinstance(value, int) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if unit == "share" and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return f"{number} {unit}" if unit not in ("", "share") else number


def format_duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 60 <= seconds < 1e9:
        return format_value(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def shorten(name: str, width: int = 13) -> str:
    """Returns the name, cut to `width` columns; East Asian letters take two."""
    return name if cell_len(name) <= width else f"{chop_cells(name, width - 1)[0]}…"
