"""Rounds are interleaved, medians and ratios are right, and a result file holds everything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.measurement import (
    Case,
    Figure,
    Result,
    command_of,
    interleave,
    interleave_with_peaks,
    make_result,
    ratio,
    significant,
    warn_if_busy,
    write_result,
)
from arclight.config.locations import CONF
from arclight.hardware.peak_measurement import MeasuredPeaks
from benchmarks.readme_tables import read_result

MACHINE = MeasuredPeaks("cpu", "Some CPU (R), 2 threads", 2, {"fp32": 1e11, "bf16": 4e11}, 2e10)


def made_up_result() -> Result:
    plan = {"precision": hardware.Decision("bf16-mixed", "it has the instructions"), "compile": False}
    figures = {"step": Figure((3.0, 1.0, 2.0), "ms")}
    cases = [Case("one", {"n": 1}, figures), Case("two", {"n": 2}, missing="no compiler")]
    return make_result("scaling-cnn", cases, MACHINE, plan, {"model": "cnn"}, num_rounds=3)


def test_every_case_once_in_a_round_and_none_always_first() -> None:
    order: list[str] = []
    cases = {name: (lambda name=name: order.append(name) or len(order)) for name in "abc"}
    assert interleave(cases, 3) == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert "".join(order) == "abcbcacab"


def test_peaks_are_measured_in_every_round_and_the_largest_counts() -> None:
    speeds = iter([2e11, 5e11, 1e11])
    peaks = lambda: dataclasses.replace(MACHINE, flops={"fp32": next(speeds)})  # noqa: E731
    measured, machine = interleave_with_peaks({"a": lambda: 1}, 3, peaks)
    assert measured == {"a": [1, 1, 1]}
    assert machine.flops == {"fp32": 5e11}


def test_a_busy_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    for share in (10.0, 65.0):
        monkeypatch.setattr(measurement.psutil, "cpu_percent", lambda interval, share=share: share)
        warn_if_busy(lines.append)
    assert lines == ["warning: other programs use 65% of this machine's cores: all speeds will be too low"]


def test_a_figure_is_its_median_and_its_spread() -> None:
    figure = Figure((3.0, 10.0, 2.0), "ms")
    assert figure.median == 3
    assert figure.to_text() == "3.00 (2.00 to 10.0)"
    assert Figure((1234.5,), "").to_text() == "1,234"


@pytest.mark.parametrize(
    ("value", "text"), [(0.51249, "0.512"), (1.0, "1.00"), (22.85, "22.9"), (187.4, "187"), (-5.0, "-5.00"), (0.0, "0.000")]
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value, 3) == text


def test_a_ratio_is_taken_round_by_round() -> None:
    drifting, beside = Figure((10.0, 20.0, 40.0), "ms"), Figure((5.0, 10.0, 20.0), "ms")
    assert ratio(drifting, beside).values == (2, 2, 2)
    assert ratio(drifting, beside, factor=0.5).median == 1


def test_a_result_is_read_back_from_its_file(tmp_path: Path) -> None:
    result = made_up_result()
    file = write_result(result, tmp_path / "result.json")
    assert read_result(file) == result
    plain = json.loads(file.read_text())
    assert plain["cases"][0]["figures"]["step"] == {"unit": "ms", "median": 2, "low": 1, "high": 3, "values": [3, 1, 2]}
    assert plain["cases"][1]["missing"] == "no compiler"
    # every entry of the plan is stored
    assert plain["plan"]["precision"]["reason"] == "it has the instructions"
    assert plain["plan"]["compile"] is False
    assert plain["machine"]["flops"]["bf16"] == 4e11
    assert set(plain["git"]) == {"commit", "is_clean"}
    assert {"command", "date", "hardware", "packages", "python", "system", "settings", "num_rounds"} <= set(plain)


def test_no_result_overwrites_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "RESULTS", tmp_path / "results")
    result = made_up_result()
    name = f"scaling-cnn-some-cpu-r-2-threads-{result.metadata['date'][:10]}"
    assert [write_result(result, None).name for _ in range(2)] == [f"{name}.json", f"{name}_2.json"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["src/arclight/__main__.py", "benchmark", "scaling", "--output", "x.json"], "python -m arclight benchmark scaling"),
        (
            ["src/arclight/__main__.py", "benchmark", "train", "--output=x", "a=b c"],
            "python -m arclight benchmark train 'a=b c'",
        ),
        (["benchmarks/scores.py", "--output", "x.json", "--seeds", "0,1"], "python -m benchmarks.scores --seeds 0,1"),
    ],
)
def test_the_command_repeats_the_measurement(arguments: list[str], command: str) -> None:
    assert command_of([str(CONF.parent / arguments[0]), *arguments[1:]]) == command
