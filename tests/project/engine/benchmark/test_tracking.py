"""What trackers cost is measured in turns, each over none; no claim on any time."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.__main__ import main
from arclight.benchmark import tracking
from arclight.benchmark.measurement import read_result
from arclight.benchmark.tracking import Wish, decisions, to_cases, tracked_by
from arclight.benchmark.train_process import Trained
from arclight.benchmark.training_step import compose
from arclight.errors import InputError
from arclight.hardware import peak_measurement


def test_the_step_with_each_over_that_with_none() -> None:
    rounds = {"none": [10.0, 20.0], "csv": [11.0, 21.0], "all of them": [12.0, 20.0]}
    cases = to_cases({name: [{"step": step, "share": 0.1} for step in steps] for name, steps in rounds.items()})
    assert [case.name for case in cases] == list(rounds)
    assert "factor" not in cases[0].figures
    assert cases[1].figures["factor"].values == pytest.approx((1.1, 1.05))
    assert cases[2].figures["factor"].median == pytest.approx(1.1)


@pytest.mark.parametrize("name", list(decisions()))
def test_every_choice_composes(name: str) -> None:
    chosen = decisions()[name]
    settings = compose(["experiment=demo", *tracked_by(chosen)])
    assert sorted(settings["logger"]) == sorted(chosen)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"num_steps": 0}, "--steps 0 must be 1 or more"),
        ({"num_rounds": 0}, "--repeats 0 must be 1 or more"),
        ({"overrides": ("logger=csv",)}, "logger=csv: this benchmark goes through the trackers itself; leave it out"),
    ],
)
def test_a_wrong_wish_is_told(wish: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Wish(**wish)  # type: ignore[arg-type]


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})
    asked: list[str] = []

    def train(overrides: list[str], *, num_threads: int) -> Trained:
        asked.append(next(override for override in overrides if override.startswith("logger=")))
        return Trained({"train/step_ms": 10.0 if asked[-1] == "logger=none" else 10.2, "train/logging_share": 0.01}, {})

    monkeypatch.setattr(tracking, "train", train)
    file = tmp_path / "tracking.json"
    main(["benchmark", "tracking", "--device", "cpu", "--repeats", "2", "--output", str(file), "model=small_cnn"])
    assert len(asked) == 2 * len(decisions())
    assert asked[: len(decisions())] != asked[len(decisions()) :]  # each round begins with another
    result = read_result(file)
    assert result.benchmark == "tracking-synthetic_images-small_cnn"
    assert result.cases[-1].figures["factor"].median == pytest.approx(1.02)
    told = capsys.readouterr().out
    assert "1.020" in told
    assert "at most 1.03 is wanted" in told
