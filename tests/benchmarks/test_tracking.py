"""The cost of loggers is measured in turns, each over none; nothing here depends on time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.benchmark.training_step import compose
from benchmarks import tracking
from benchmarks.readme_tables import read_result
from benchmarks.tracking import choices, logger_overrides, to_cases


def test_the_step_with_each_over_that_with_none() -> None:
    rounds = {"none": [10.0, 20.0], "csv": [11.0, 21.0], "all of them": [12.0, 20.0]}
    cases = to_cases({name: [{"step": step, "share": 0.1} for step in steps] for name, steps in rounds.items()})
    assert [case.name for case in cases] == list(rounds)
    assert "factor" not in cases[0].figures
    assert cases[1].figures["factor"].values == pytest.approx((1.1, 1.05))
    assert cases[2].figures["factor"].median == pytest.approx(1.1)


@pytest.mark.parametrize("name", list(choices()))
def test_every_choice_composes(name: str) -> None:
    chosen = choices()[name]
    settings = compose(["experiment=demo", *logger_overrides(chosen)])
    assert sorted(settings["logger"]) == sorted(chosen)


def test_overrides_that_choose_loggers_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tracking.main(["logger=csv"])
    assert "logger=csv: this benchmark sets the loggers itself; leave it out" in capsys.readouterr().err


@pytest.mark.usefixtures("small_peaks")
def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def train(overrides: list[str], *, num_threads: int) -> dict[str, Any]:
        asked.append(next(override for override in overrides if override.startswith("logger=")))
        return {"train/step_ms": 10.0 if asked[-1] == "logger=none" else 10.2, "train/logging_share": 0.01}

    monkeypatch.setattr(tracking, "train", train)
    file = tmp_path / "tracking.json"
    tracking.main(["--device", "cpu", "--repeats", "2", "--output", str(file), "model=small_cnn"])
    assert len(asked) == 2 * len(choices())
    assert asked[: len(choices())] != asked[len(choices()) :]  # each round begins with another
    result = read_result(file)
    assert result.benchmark == "tracking-synthetic_images-small_cnn"
    assert result.cases[-1].figures["factor"].median == pytest.approx(1.02)
    shown = capsys.readouterr().out
    assert "1.02" in shown
    assert "at most 1.03 times as long is acceptable" in shown
