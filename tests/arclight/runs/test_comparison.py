"""Runs side by side: groups, means over seeds, p-values, and what cannot be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from arclight.__main__ import main
from arclight.errors import InputError
from arclight.runs.comparison import compare_runs
from arclight.runs.comparison_page import mean_and_sd, write_comparison

NUM_SAMPLES = 300


def write_run(folder: Path, *, lr: Any, seed: int, right: Any, name: str = "cat", **results: Any) -> Path:
    """A finished run whose test got those images right where `right` (300,) is true."""
    folder.mkdir(parents=True)
    settings = {"optimizer": {"lr": lr}, "seed": seed, "hardware": {"x": seed}, "api_key": "Ab1"}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "overrides.txt").write_text("")
    told = {"status": "finished", "monitor": "val/accuracy", "test/accuracy": float(np.mean(right)), **results}
    (folder / "results.json").write_text(json.dumps(told))
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/accuracy\n0,1,2.0,0.5\n1,2,1.0,0.75\n")
    lines = [
        {"index": row, "label": name, "predicted": name if good else "<b>", "confidence": 0.5} for row, good in enumerate(right)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def rights(share: float, seed: int) -> Any:
    return np.random.default_rng(seed).random(NUM_SAMPLES) < share


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two settings, three seeds each."""
    for number, (lr, seed) in enumerate((lr, seed) for lr in (0.1, 0.01) for seed in (0, 1, 2)):
        share = 0.7 if lr == 0.1 else 0.78
        write_run(tmp_path / "grid" / f"{number}-a", lr=lr, seed=seed, right=rights(share, 10 * number))
    return tmp_path / "grid"


def test_runs_that_differ_in_the_seed_only_are_one_group(grid: Path) -> None:
    found = compare_runs([str(grid)])
    assert [(group.letter, [run.config["seed"] for run in group.runs]) for group in found.groups] == [
        ("A", [0, 1, 2]),
        ("B", [0, 1, 2]),
    ]
    assert found.settings == {"optimizer.lr": (0.1, 0.01)}
    assert found.left_out == ()


def test_mean_and_mean_and_sd_are_over_the_seeds(grid: Path) -> None:
    found = compare_runs([str(grid)])
    values = [float(rights(0.7, 10 * number).mean()) for number in range(3)]
    assert found.groups[0].values("test/accuracy") == pytest.approx(values)
    assert mean_and_sd(values) == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} (3)"
    assert mean_and_sd([1234.5]) == "1,234.5 (1)"
    assert mean_and_sd([21480.0, 21480.0]) == "21,480 (2)"
    assert mean_and_sd([4.0, 5.0]) == "4.5 ± 0.7 (2)"
    assert mean_and_sd([math.nan]) == "nan (1)"
    assert mean_and_sd([]) == ""


def test_the_p_value_is_that_of_scipy(grid: Path) -> None:
    pair = compare_runs([str(grid)]).pairs["B", "accuracy"]
    first, second = (
        np.mean([rights(share, 10 * number) for number in numbers], axis=0)
        for share, numbers in ((0.7, range(3)), (0.78, range(3, 6)))
    )

    def difference(one: Any, other: Any, axis: int = -1) -> Any:
        return np.mean(other, axis=axis) - np.mean(one, axis=axis)

    random = np.random.default_rng(0)
    theirs = stats.bootstrap((first, second), difference, paired=True, n_resamples=9999, method="percentile", rng=random)
    assert (pair.low, pair.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)
    tails = [np.mean(theirs.bootstrap_distribution <= 0), np.mean(theirs.bootstrap_distribution >= 0)]
    assert pair.p == pytest.approx(2 * min(tails), abs=0.01)
    flipped = stats.permutation_test((first, second), difference, permutation_type="samples", vectorized=True, rng=random)
    assert pair.p == pytest.approx(flipped.pvalue, abs=0.02)


def test_patterns_and_single_folders(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grid)
    assert sum(len(group.runs) for group in compare_runs(["[0-3]-*", "3-a"]).groups) == 4


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["0-a"], "0-a: 1 run to compare; pass two or more, or a multirun directory"),
        (["x*"], r"x\*: no run directory matches; see outputs/"),
        (["nowhere"], "nowhere is not a run directory"),
    ],
)
def test_what_is_not_there_is_told(grid: Path, wanted: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grid)
    with pytest.raises(InputError, match=told):
        compare_runs(wanted)


def test_half_written_runs(grid: Path) -> None:
    (grid / "0-a" / "config.yaml").write_text("a: [")
    (grid / "1-a" / "results.json").write_text('{"status": "fail')
    (grid / "6-a").mkdir()
    (grid / "6-a" / "results.json").write_text('{"status": "failed", "error": "seed=-1"}')
    (grid / "3-a" / "metrics.csv").unlink()
    (grid / "4-a" / "predictions.jsonl").write_text('{"index": 0, "la')
    found = compare_runs([str(grid)])
    assert found.left_out[:3] == (
        "0-a is left out: its config.yaml cannot be read",
        "6-a is left out: its config.yaml cannot be read",
        "1-a is left out: it is running",
    )
    assert "B has no p-value" in found.left_out[3]
    assert "damaged" in found.left_out[3]
    assert [len(group.runs) for group in found.groups] == [1, 3]
    assert found.pairs == {}
    write_comparison(found, grid / "page.html")


def test_an_unfinished_run_costs_its_group_no_p_value(grid: Path) -> None:
    (grid / "4-a" / "results.json").write_text('{"status": "interrupted", "val/accuracy": 0.1}')
    (grid / "4-a" / "predictions.jsonl").unlink()
    found = compare_runs([str(grid)])
    assert found.left_out == ("4-a is left out: it is interrupted",)
    assert ("B", "accuracy") in found.pairs
    assert found.groups[1].values("val/accuracy") == []


def test_unfinished_runs_are_compared_where_there_are_no_others(grid: Path) -> None:
    for number in range(5):
        (grid / f"{number}-a" / "results.json").write_text('{"status": "running"}')
    found = compare_runs([str(grid)])
    assert found.left_out[0] == "0-a did not finish: it is running"
    assert sum(len(group.runs) for group in found.groups) == 6


def test_what_is_left_out_is_told_where_too_little_is_left(grid: Path) -> None:
    (grid / "0-a" / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"1 run to compare.*; 0-a is left out: its config.yaml cannot be read"):
        compare_runs([str(grid / "0-a"), str(grid / "1-a")])


def test_other_test_samples_are_not_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "a", lr=1, seed=0, right=rights(0.5, 0))
    write_run(tmp_path / "b", lr=2, seed=0, right=rights(0.5, 0), name="dog")
    assert compare_runs([str(tmp_path)]).left_out == ("B has no p-value: it was tested on different samples than A",)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    for name, lr in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, lr=lr, seed=0, right=rights(0.5, 0), **{"val/loss": None, "test/loss": float("nan")})
    write_comparison(compare_runs([str(tmp_path)]), tmp_path / "page.html")


def test_the_page_is_self_contained_and_escaped(grid: Path) -> None:
    for number in range(3, 6):
        (grid / f"{number}-a" / "config.yaml").write_text(f"optimizer: {{lr: '<script>x'}}\nseed: {number}\n")
    write_comparison(compare_runs([str(grid)]), grid / "page.html")
    page = (grid / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "Ab1" not in page
    assert page.count('<figure class="curve">') == 2
    assert "prefers-color-scheme: dark" in page


def test_the_verb_prints_tables_and_writes_the_page(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(grid), "--html", str(grid / "page.html")])
    out = capsys.readouterr().out
    assert "optimizer.lr" in out
    assert "B is better than A in test accuracy by" in out
    assert out.rstrip().endswith("page.html")
    with pytest.raises(SystemExit):
        main(["compare", str(grid), "--html", str(grid / "no" / "page.html")])
    assert "its directory does not exist; create it first" in capsys.readouterr().err
