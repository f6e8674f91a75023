"""What the HTML pages share: templates with autoescape, formatting of values, writing a page."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells

from arclight.config.atomic_file import write_atomically
from arclight.console.terminal import format_metric

if TYPE_CHECKING:
    import jinja2

STEP_FRACTIONS = {  # key of results.json -> part of a training step
    "train/forward_backward_share": "forward and backward",
    "train/optimizer_share": "optimizer",
    "train/logging_share": "callbacks and loggers",
    "train/data_wait_share": "waiting for data",
}


ACRONYMS = {name: name.upper() for name in ("cpu", "gpu", "gpus", "mps", "omp", "tf32", "bf16", "id")} | {"gpus": "GPUs"}


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
    environment.filters.update(format_value=format_value, duration=format_duration, label=label, shorten=shorten)
    environment.tests.update(empty=is_empty)
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
    """Returns a number with three significant figures, a whole one with all, and its unit; other values as text.

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
        return f"{format_metric(100 * value)} %"
    number = f"{value:,}" if isinstance(value, int) else format_metric(value)
    return f"{number} {unit}" if unit not in ("", "share") else number


def format_duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 60 <= seconds < 1e9:
        return format_value(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def label(key: str) -> str:
    """Returns a key of results.json or environment.json in words."""
    words = re.split(r"[/._]", key)
    return " ".join(ACRONYMS.get(word, word) for word in words if word != "num")


def is_empty(value: Any) -> bool:
    """Returns whether a value says nothing: None, an empty text, list or dict."""
    return value is None or value in ("", [], {})


def shorten(name: str, width: int = 13) -> str:
    """Returns the name, cut to `width` columns; East Asian letters take two."""
    return name if cell_len(name) <= width else f"{chop_cells(name, width - 1)[0]}…"
