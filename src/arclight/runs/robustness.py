"""`evaluate --robustness`: the scores of a run on samples that are damaged by degrees, as a table and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.console.terminal import format_metric, score_table
from arclight.report.figures import LINES, figure
from arclight.report.page import templates, write_page
from arclight.runs.evaluation import Evaluation
from arclight.runs.run_directory import explain_write_errors

if TYPE_CHECKING:
    from rich.table import Table

PREFERRED = ("f1", "accuracy")  # of the metrics, where the run has no monitor among them


@dataclass(frozen=True)
class Robustness:
    """A metric by kind of damage and strength, the strength 0 of each first."""

    run: str
    split: str
    metric: str
    values: dict[str, list[tuple[float, float]]]  # kind -> (strength, metric)

    def rows(self) -> list[tuple[str, list[str]]]:
        """Returns name and cells of each kind: the metric without damage, and at each strength."""
        return [
            (
                kind,
                [f"{format_metric(value)} ({strength:g})" if strength else format_metric(value) for strength, value in points],
            )
            for kind, points in self.values.items()
        ]

    def headings(self) -> list[str]:
        """Returns the headings of the columns."""
        num = max(len(points) for points in self.values.values())
        return ["clean", *map(str, range(1, num))]

    def table(self) -> Table:
        """Returns the table for a terminal."""
        return score_table(f"{self.split}/{self.metric} by strength of damage", self.headings(), [self.rows()])

    def write(self, path: Path) -> None:
        """Writes one self-contained HTML page with table and figure; raises InputError when it cannot."""
        lines = [(kind, *line) for kind, line in zip(self.values, LINES, strict=False)]
        page = templates().get_template("robustness.html.j2")
        text = page.render(
            name=f"Robustness of {self.run}",
            run=self.run,
            title=f"{self.split}/{self.metric}",
            lines=lines,
            chart=self.chart(),
            headings=self.headings(),
            rows=self.rows(),
        )
        with explain_write_errors(path):
            write_page(path, text)

    def chart(self) -> Any:
        """Returns an SVG element: a line for each kind over the number of the strength, 0 for clean samples."""
        with figure(f"{self.metric} by strength of damage", (4.8, 2.7)) as (axes, markup):
            for points, (colour, dashes) in zip(self.values.values(), LINES, strict=False):
                numbers = [value for _, value in points]
                axes.plot(range(len(numbers)), numbers, color=colour, dashes=dashes, linewidth=1.6, marker="o", markersize=3)
            axes.set(xlabel="strength", ylabel=self.metric, xticks=range(len(self.headings())), ylim=(0, None))
        return markup[0]


def measure(evaluation: Evaluation) -> Robustness:
    """Returns the monitored metric (else F1, accuracy or the first one) at every strength; raises as `damaged_scores`."""
    damaged = list(evaluation.damaged_scores())
    metrics = evaluation.scores().metrics
    monitor = getattr(evaluation.restored.module, "monitor", None)
    name = str(getattr(monitor, "metric", monitor)).partition("/")[2]
    metric = next((one for one in (name, *PREFERRED) if one in metrics), next(iter(metrics)))
    values: dict[str, list[tuple[float, float]]] = {}
    for kind, strength, found in damaged:
        values.setdefault(kind, [(0.0, metrics[metric])]).append((strength, found.metrics[metric]))
    return Robustness(str(evaluation.restored.path), evaluation.split, metric, values)
