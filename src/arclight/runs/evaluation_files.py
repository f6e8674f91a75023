"""The directory of an evaluation: scores, predictions and report.html, as a run writes them after its test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from arclight.checkpoint.contents import Restored
from arclight.config.locations import OUTPUTS, alternatives
from arclight.config.redaction import without_secrets
from arclight.metrics.predictions import Predictions
from arclight.modules.supervised import Scores
from arclight.report.report import write_report
from arclight.runs.experiment import write_examples, write_predictions
from arclight.runs.run_directory import explain_write_errors, write_json, write_text


def evaluation_dir(checkpoint: Path) -> Path:
    """Returns a directory that does not exist yet: in the run directory, else in outputs/, where other checkpoints lie."""
    run_dir = checkpoint.resolve().parent.parent
    parent = checkpoint.parent.parent if run_dir.is_relative_to(OUTPUTS.resolve()) else OUTPUTS
    started = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    return next(folder for folder in alternatives(parent / "evaluations" / started) if not folder.exists())


def write_evaluation(
    folder: Path, restored: Restored, scores: Scores, data: Any, *, settings: Mapping[str, Any], split: str
) -> None:
    """Writes results.json, scores.json, predictions.jsonl, data.yaml (settings) and report.html; creates the directory.

    Args:
        folder: where.
        restored: the evaluated model, after its evaluation.
        scores: of it.
        data: the data module, None without one.
        settings: the config of the run, with the `data` that was evaluated.
        split: "test" or "val".

    Raises:
        InputError: when a file cannot be written.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    results = {"status": "finished", "data": restored.data, "model": restored.model, "seed": settings.get("seed")}
    results |= {f"{split}/{name}": value for name, value in scores.metrics.items()}
    results |= {f"{split}/f1/{name}": value for name, value in scores.per_class.items()}
    write_json(folder / "results.json", {**results, "evaluated": str(restored.path), "split": split})
    write_text(
        folder / "data.yaml", yaml.safe_dump(without_secrets(dict(settings["data"])), sort_keys=False, allow_unicode=True)
    )
    write_json(folder / "scores.json", scores.to_plain())
    predictions: Predictions | None = getattr(restored.module, "predictions", None)
    if predictions is not None:
        write_predictions(data, predictions, folder, split=split)
        write_examples(data, predictions, folder, split=split)
    with explain_write_errors(folder / "report.html"):
        write_report(folder)
