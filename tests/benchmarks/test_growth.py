"""The generated files have the right size, and slopes distinguish linear cost from other cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.benchmark.training_step import compose
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks
from arclight.runs import build
from benchmarks import growth
from benchmarks.growth import Options, make_files, overrides_for, slope, to_cases, to_table

MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e11}, 1e10)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [((1.0, 4.0, 16.0), 1.0), ((1.0, 16.0, 256.0), 2.0), ((3.0, 3.0, 3.0), 0.0), ((2.0, 5.0, 17.0), 0.77)],
)
def test_slope_of_cost(seconds: tuple[float, ...], expected: float) -> None:
    assert slope((1, 4, 16), seconds) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("task", ["images", "text"])
def test_files_hold_so_many_samples(task: str, tmp_path: Path) -> None:
    make_files(tmp_path / "a", task, 24, seed=1)
    data = build.build_data(compose(overrides_for(Options(task=task), tmp_path / "a")), workers=1)
    data.prepare_data()
    data.setup("fit")
    assert data.sizes == {"train": 24, "val": growth.NUM_HELD_OUT}
    make_files(tmp_path / "b", task, 24, seed=2)
    one, other = (
        b"".join(path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*")) if path.is_file()) for name in ("a", "b")
    )
    assert one != other  # what is cached by content is not found again in another round


@pytest.mark.parametrize("task", ["images", "text"])
def test_every_size_is_measured(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[str]] = []

    def train(overrides: list[str], *, num_threads: int) -> dict[str, Any]:
        runs.append(list(overrides))
        return {"time/fit_s": 1.0, "train/samples_per_s": 5.0}

    monkeypatch.setattr(growth, "train", train)
    monkeypatch.setattr(growth, "measure_peaks", lambda device, hardware_info: MACHINE)
    result = growth.measure(Options(task=task, sizes=(1, 2), num_samples=64, num_rounds=1), print)
    assert [case.name for case in result.cases] == ["1 x", "2 x", "slope"]
    assert result.cases[1].settings["num_samples"] == 128
    assert result.cases[2].figures["train"].median == pytest.approx(0.0)  # the same seconds for twice the data
    assert result.cases[0].figures["train_each"].median == pytest.approx(1e6 / 64)
    assert len(runs) == 2
    assert compose(runs[0])["trainer"]["max_epochs"] == 1
    assert to_table(result).row_count == 3


def test_slopes_are_taken_round_by_round() -> None:
    rounds = {1: [{"prepare": 1.0, "load": 1.0, "train": 2.0}] * 2, 4: [{"prepare": 4.0, "load": 1.0, "train": 32.0}] * 2}
    slopes = to_cases(rounds, 10)[-1].figures
    for part, expected in {"prepare": 1, "load": 0, "train": 2}.items():
        assert slopes[part].values == pytest.approx((expected, expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(sizes=(4,)), "--sizes 4 must be two or more numbers, such as 1,4,16"),
        (Options(overrides=("data=cifar10",)), "data=cifar10: this benchmark generates its files; leave it out"),
    ],
)
def test_wrong_options_are_an_error(options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        growth.measure(options, print)
