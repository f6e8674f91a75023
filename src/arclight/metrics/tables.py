"""Tables of precision, recall and F1, computed from counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Scores of one class or an average over classes, each 0..1, 0 for a division by 0; `support` counts true occurrences."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Table:
    """One row per class, and averages over them."""

    title: str
    rows: tuple[Row, ...]
    averages: tuple[Row, ...]

    def to_plain(self) -> dict[str, Any]:
        """Returns the table as lists, dicts, strings and numbers, ready for JSON."""
        rows, averages = ([asdict(row) for row in part] for part in (self.rows, self.averages))
        return {"title": self.title, "rows": rows, "averages": averages}

    def to_rich(self) -> rich.table.Table:
        """Returns the table for a terminal: four decimals, a line above the averages."""
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, because rich reads a name such as "[red]" in a plain string as markup
        table = RichTable(title=Text(self.title), title_justify="left")
        table.add_column("")
        for heading in ("precision", "recall", "f1", "support"):
            table.add_column(heading, justify="right")
        for rows in (self.rows, self.averages):
            for row in rows:
                scores = (f"{score:.4f}" for score in (row.precision, row.recall, row.f1))
                table.add_row(Text(row.name), *scores, str(row.support))
            table.add_section()
        return table


def tabulate(
    counts: Tensor,
    names: Sequence[str],
    *,
    title: str,
    averages: Sequence[str] = ("micro avg", "macro avg", "weighted avg"),
) -> Table:
    """Returns the table of some classes.

    Args:
        counts: int64 (classes, 3); true positives, predicted and true of each class.
        names: of the classes.
        title: of the table.
        averages: any of "micro avg" (scores of the summed counts), "macro avg" (plain mean of the rows) and "weighted avg"
            (mean of the rows weighted by support), in this order.
    """
    triples: list[list[int]] = counts.tolist()
    rows = tuple(_row(name, *triple) for name, triple in zip(names, triples, strict=True))
    sums = [sum(column) for column in zip(*triples, strict=True)] or [0, 0, 0]
    total = sums[2]
    average_rows: dict[str, Callable[[], Row]] = {
        "micro avg": lambda: _row("micro avg", *sums),
        "macro avg": lambda: _mean("macro avg", rows, [1] * len(rows), total),
        "weighted avg": lambda: _mean("weighted avg", rows, [row.support for row in rows], total),
    }
    return Table(title=title, rows=rows, averages=tuple(average_rows[name]() for name in averages))


def _row(name: str, correct: int, predicted: int, true: int) -> Row:
    return Row(name, _ratio(correct, predicted), _ratio(correct, true), _ratio(2 * correct, predicted + true), true)


def _mean(average: str, rows: Sequence[Row], weights: Sequence[int], support: int) -> Row:
    def mean(scores: Iterable[float]) -> float:
        return _ratio(sum(score * weight for score, weight in zip(scores, weights, strict=True)), sum(weights))

    precision, recall, f1 = (mean(getattr(row, name) for row in rows) for name in ("precision", "recall", "f1"))
    return Row(average, precision, recall, f1, support)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
