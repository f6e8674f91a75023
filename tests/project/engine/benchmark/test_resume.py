"""A run goes on from outside, as a user would have it; no claim on any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.benchmark import resume
from arclight.benchmark.measurement import Case, Result
from arclight.benchmark.train_process import Trained
from arclight.benchmark.training_step import compose

FIRST = {"time/first_step_s": 4.0, "train/step_ms": 8.0, "checkpoint/num_saves": 1, "checkpoint/save_s": 0.03}
AGAIN = {"time/first_step_s": 4.5, "train/step_ms": 12.0, "checkpoint/num_saves": 2, "checkpoint/save_s": 0.06}


def test_what_is_asked_is_what_users_type() -> None:
    for recipe in resume.TASKS.values():
        assert compose([*recipe, *resume.FIRST])["trainer"]["max_epochs"] == 1


@pytest.mark.processes
def test_the_second_run_goes_on_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Path, tuple[str, ...]]] = []

    def train_in(folder: Path, overrides: tuple[str, ...], *, num_threads: int) -> Trained:
        started.append((folder, overrides))
        run = folder / "outputs" / "synthetic_images-cnn" / "run" / "checkpoints"
        run.mkdir(parents=True, exist_ok=True)
        (run / "last.ckpt").write_bytes(b"x" * 2_000_000)
        return Trained(AGAIN if len(started) % 2 == 0 else FIRST, {})

    monkeypatch.setattr(resume, "train_in", train_in)
    result = resume.measure_resume(["model=small_cnn"], num_rounds=1)
    assert [case.name for case in result.cases] == ["images", "text"]
    assert [overrides for _, overrides in started[:2]] == [("experiment=demo", *resume.FIRST, "model=small_cnn"), resume.AGAIN]
    assert started[0][0] == started[1][0] != started[2][0]
    assert not started[0][0].exists()
    values = {name: figure.median for name, figure in result.cases[0].figures.items()}
    assert values == pytest.approx(
        {
            **{"fresh": 4.0, "resumed": 4.5, "beyond": 0.5, "size": 2.0, "save": 30.0, "steps": 3.0},
            "share": 100 * 0.03 / (15 * 60),  # the default cadence
        }
    )
    assert resume.to_table(result).row_count == 2


def test_without_a_cadence_there_is_no_share() -> None:
    numbers: dict[str, Any] = {**resume.numbers_of(FIRST, AGAIN), "bytes": 1.0}
    figures = resume.to_figures([numbers], None)
    assert "share" not in figures
    case = Case("images", {"every_minutes": None}, figures)
    assert len(resume.to_table(Result("resume", {"device": "made up", "num_rounds": 1}, (case,))).columns) == 7
