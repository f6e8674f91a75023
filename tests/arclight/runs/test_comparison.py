"""Runs side by side: groups, means over seeds, p-values, and what cannot be compared."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from arclight.__main__ import main
from arclight.errors import InputError
from arclight.metrics.bootstrap import Difference
from arclight.runs.comparison import Group, compare_runs, conclusions, describe
from arclight.runs.comparison_page import mean_and_sd, write_comparison
from arclight.runs.run import Run

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


def test_a_start_that_was_killed_is_left_out(grid: Path) -> None:
    for name, files in (("7-a", ()), ("8-a", ("overrides.txt", ".lock"))):
        (grid / name).mkdir()
        for file in files:
            (grid / name / file).touch()
    found = compare_runs([str(path) for path in sorted(grid.iterdir())])  # as a shell expands outputs/X/*
    assert sum(len(group.runs) for group in found.groups) == 6
    assert found.left_out[:2] == tuple(f"{name} is left out: its config.yaml cannot be read" for name in ("7-a", "8-a"))


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
    assert mean_and_sd([0.9131, 0.9142, 0.9153]) == "0.914 ± 0.0011 (3)"
    assert mean_and_sd([0.94011, 0.94012, 0.94013]) == "0.94012 ± 0.000010 (3)", "as many figures as the seeds share"
    assert mean_and_sd([1234.5]) == "1,230 (1)"
    assert mean_and_sd([1503.5, 1203.0]) == "1,350 ± 210 (2)"
    assert mean_and_sd([0.5, 0.5]) == "0.500 ± 0 (2)"
    assert mean_and_sd([21480.0, 21480.0]) == "21,480 (2)"
    assert mean_and_sd([4.0, 5.0]) == "4.50 ± 0.71 (2)"
    assert mean_and_sd([math.nan]) == "nan (1)"
    assert mean_and_sd([]) == ""


def test_one_seed_each_is_the_paired_bootstrap_of_scipy(grid: Path) -> None:
    found = compare_runs([str(grid / "0-a"), str(grid / "3-a")])
    pair = found.pairs["B", "test/accuracy"]
    first, second = rights(0.7, 0), rights(0.78, 30)

    def difference(one: Any, other: Any, axis: int = -1) -> Any:
        return np.mean(other, axis=axis) - np.mean(one, axis=axis)

    random = np.random.default_rng(0)
    theirs = stats.bootstrap((first, second), difference, paired=True, n_resamples=9999, method="percentile", rng=random)
    assert (pair.low, pair.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.006)
    assert pair.covers == "samples"
    assert found.left_out == ("A and B: one seed each: differences between seeds are not covered",)


def test_several_seeds_are_tested_over_seeds_and_samples(grid: Path) -> None:
    pair = compare_runs([str(grid)]).pairs["B", "test/accuracy"]
    scores = [
        [rights(share, 10 * number).mean() for number in numbers] for share, numbers in ((0.7, range(3)), (0.78, range(3, 6)))
    ]
    assert pair.value == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    assert pair.p >= stats.ttest_ind(*scores, equal_var=False).pvalue * (1 - 1e-9)
    assert pair.covers == "seeds, samples"


def test_metrics_without_predictions_are_tested_over_seeds(tmp_path: Path) -> None:
    values = {0.1: [1.42, 1.5, 1.36], 0.01: [1.99, 2.05]}
    for lr, gaps in values.items():
        for seed, gap in enumerate(gaps):
            folder = write_run(
                tmp_path / f"{lr}-{seed}", lr=lr, seed=seed, right=rights(0.5, 0), **{"test/gap/dataloader_idx_0": gap}
            )
            results = json.loads((folder / "results.json").read_text())
            del results["test/accuracy"]
            mode = {"monitor": "val/gap/dataloader_idx_0", "monitor_mode": "min"}
            (folder / "results.json").write_text(json.dumps({**results, **mode}))
            (folder / "predictions.jsonl").unlink()
    found = compare_runs([str(tmp_path)])
    theirs = stats.ttest_ind(values[0.1], values[0.01], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    (pair,) = found.pairs.values()
    assert (pair.p, pair.covers) == (pytest.approx(theirs.pvalue), "seeds")
    assert found.groups[0].values("test/gap/dataloader_idx_0") == values[0.01]
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high)), "A is 0.01, so the signs are those of scipy"
    assert "B is better than A in test gap/dataloader_idx_0 by 0.593: significant" in conclusions(found)[0], "lower is better"


def test_a_seed_that_was_run_twice_counts_once(grid: Path) -> None:
    write_run(grid / "9-a", lr=0.01, seed=2, right=rights(0.78, 50))
    found = compare_runs([str(grid)])
    assert found.left_out == ("B: of runs with the same seed, tests count the last",)
    assert [len(group.seeds.runs) for group in found.groups] == [3, 3]
    without = compare_runs([*map(str, sorted(grid.glob("[0-4]-a"))), str(grid / "9-a")])
    assert found.pairs == without.pairs


def test_equal_models_are_equal(tmp_path: Path) -> None:
    for name, lr in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, lr=lr, seed=0, right=rights(0.5, 0))
    assert conclusions(compare_runs([str(tmp_path)])) == ["A and B are equal in test accuracy."]


def test_small_p_values_and_metrics_of_unknown_direction(tmp_path: Path) -> None:
    pair = Difference(0.25, 0.2, 0.3, 1e-9)
    groups = [Group(name, (Run(tmp_path, results={}),)) for name in "AB"]
    assert describe(pair, "test/gap", *groups) == "B is higher than A in test gap by 0.250: significant (p < 0.0001)."
    assert describe(pair, "test/loss", *groups) == "A is better than B in test loss by 0.250: significant (p < 0.0001)."


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
    assert re.fullmatch("B: 4-a/predictions.jsonl:1: damaged, .*; tests over samples leave it out", found.left_out[3])
    assert found.left_out[4] == "A: one seed, taken to vary as those of B"
    assert [len(group.runs) for group in found.groups] == [1, 3]
    assert {pair.covers for pair in found.pairs.values()} == {"seeds"}
    write_comparison(found, grid / "page.html")


def test_an_unfinished_run_costs_its_group_no_p_value(grid: Path) -> None:
    (grid / "4-a" / "results.json").write_text('{"status": "interrupted", "val/accuracy": 0.1}')
    (grid / "4-a" / "predictions.jsonl").unlink()
    found = compare_runs([str(grid)])
    assert found.left_out == ("4-a is left out: it is interrupted",)
    assert ("B", "test/accuracy") in found.pairs
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
    found = compare_runs([str(tmp_path)])
    assert "B has no p-value: it was tested on different samples than A" in found.left_out
    assert found.pairs == {}


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
