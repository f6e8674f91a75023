"""Rounds are interleaved, medians and ratios are right, and a result comes back from its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.measurement import (
    Case,
    Figure,
    Result,
    check_output,
    command_of,
    gather_facts,
    interleave,
    ratio,
    read_result,
    significant,
    write_result,
)
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.hardware.peak_measurement import MeasuredPeaks

MACHINE = MeasuredPeaks("cpu", "Some CPU (R), 2 threads", 2, {"fp32": 1e11, "bf16": 4e11}, 2e10)


def made_up_result() -> Result:
    plan = {"precision": hardware.Decision("bf16-mixed", "it has the instructions"), "compile": False}
    hardware_info = gather_facts(MACHINE, plan, {"model": "cnn"}, num_rounds=3)
    figures = {"step": Figure((3.0, 1.0, 2.0), "ms")}
    return Result("scaling-cnn", hardware_info, (Case("one", {"n": 1}, figures), Case("two", {"n": 2}, missing="no compiler")))


def test_every_case_once_in_a_round_and_none_always_first() -> None:
    order: list[str] = []
    cases = {name: (lambda name=name: order.append(name) or len(order)) for name in "abc"}
    assert interleave(cases, 3) == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert "".join(order) == "abcbcacab"


def test_less_than_one_round_is_told() -> None:
    with pytest.raises(InputError, match="--repeats 0 must be 1 or more"):
        interleave({"a": lambda: 1}, 0)


def test_a_figure_is_its_median_and_its_spread() -> None:
    figure = Figure((3.0, 10.0, 2.0), "ms")
    assert (figure.median, figure.low, figure.high) == (3, 2, 10)
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


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    result = made_up_result()
    file = write_result(result, tmp_path / "result.json")
    assert read_result(file) == result
    plain = json.loads(file.read_text())
    assert plain["cases"][0]["figures"]["step"] == {"unit": "ms", "median": 2, "low": 1, "high": 3, "values": [3, 1, 2]}
    assert plain["cases"][1]["missing"] == "no compiler"
    # whatever the plan holds is kept
    assert plain["plan"]["precision"]["reason"] == "it has the instructions"
    assert plain["plan"]["compile"] is False
    assert plain["machine"]["flops"]["bf16"] == 4e11
    assert set(plain["git"]) == {"commit", "is_clean"}
    assert {"command", "date", "hardware", "packages", "python", "system", "settings", "num_rounds"} <= set(plain)


def test_no_result_is_written_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "RESULTS", tmp_path / "results")
    result = made_up_result()
    name = f"scaling-cnn-some-cpu-r-2-threads-{result.facts['date'][:10]}"
    assert [write_result(result, None).name for _ in range(2)] == [f"{name}.json", f"{name}_2.json"]


def test_a_missing_folder_is_told_beforehand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--output .*/nowhere/r.json: there is no folder .*/nowhere; make it first"):
        check_output(tmp_path / "nowhere" / "r.json")
    check_output(tmp_path / "r.json")


@pytest.mark.parametrize("content", ["", "[]", '{"cases": 3}', '{"cases": [{"name": "x"}]}'])
def test_another_file_is_no_result(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"r.json is no result of a benchmark"):
        read_result(tmp_path / "r.json")


def test_the_stored_results_can_be_read() -> None:
    for file in measurement.RESULTS.glob("*.json"):
        result = read_result(file)
        assert result.facts["num_rounds"] >= 1
        assert any(case.figures for case in result.cases)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["src/arclight/__main__.py", "benchmark", "start", "--output", "x.json"], "python -m arclight benchmark start"),
        (
            ["src/arclight/__main__.py", "benchmark", "train", "--output=x", "a=b c"],
            "python -m arclight benchmark train 'a=b c'",
        ),
        (["benchmarks/scores.py", "--output", "x.json", "--seeds", "0,1"], "python benchmarks/scores.py --seeds 0,1"),
    ],
)
def test_the_command_of_a_result_is_what_to_type_again(arguments: list[str], command: str) -> None:
    assert command_of([str(CONF.parent / arguments[0]), *arguments[1:]]) == command
