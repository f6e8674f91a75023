"""A run is resumed in a process of its own, as a user would do it; nothing here depends on time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.benchmark.command_line import BenchmarkOptions
from arclight.benchmark.measurement import Case, Result
from arclight.benchmark.training_step import compose
from benchmarks import resume

FIRST = {"time/first_step_s": 4.0, "train/step_ms": 8.0, "checkpoint/num_saves": 1, "checkpoint/save_s": 0.03}
METADATA = {"device": "CPU", "num_rounds": 1, "machine": {"flops": {}, "copy_bytes_per_s": 1e9}}
AGAIN = {"time/first_step_s": 4.5, "train/step_ms": 12.0, "checkpoint/num_saves": 2, "checkpoint/save_s": 0.06}


def test_the_recipes_compose() -> None:
    for recipe in resume.RECIPES.values():
        assert compose([*recipe, *resume.FIRST])["trainer"]["max_epochs"] == 1


@pytest.mark.processes
def test_the_second_process_resumes_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Path, tuple[str, ...]]] = []

    def train_in(folder: Path, overrides: tuple[str, ...], *, num_threads: int) -> dict[str, Any]:
        started.append((folder, overrides))
        run = folder / "outputs" / "synthetic_images-cnn" / "run" / "checkpoints"
        run.mkdir(parents=True, exist_ok=True)
        (run / "last.ckpt").write_bytes(b"x" * 2_000_000)
        return AGAIN if len(started) % 2 == 0 else FIRST

    monkeypatch.setattr(resume, "train_in", train_in)
    result = resume.measure(BenchmarkOptions(overrides=["model=small_cnn"], num_rounds=1), print)
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


def test_no_share_without_an_interval_between_saves() -> None:
    numbers: dict[str, Any] = {**resume.numbers_of(FIRST, AGAIN), "bytes": 1.0}
    figures = resume.to_figures([numbers], None)
    assert "share" not in figures
    case = Case("images", {"every_minutes": None}, figures)
    assert len(resume.to_table(Result("resume", METADATA, (case,))).columns) == 7
