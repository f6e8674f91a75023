"""What a comparison looks like: on terminals of any width, and as a page with the curves of many runs."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from arclight.__main__ import main
from arclight.console.terminal import open_console, print_tables
from arclight.metrics.significance import mean_interval
from arclight.report.figures import LINES
from arclight.runs.comparison import Comparison, Group, compare_runs, conclusions, different_settings
from arclight.runs.comparison_page import MAX_CHARTS, curve_charts, interval_rows, labels, terminal_tables, write_comparison
from arclight.runs.run import Run
from tests.arclight.console.test_terminal import Terminal
from tests.arclight.runs.test_comparison import rights, write_run


def settings(folder: Path, num: int) -> Path:
    """So many settings, one run each."""
    for number in range(num):
        write_run(folder / "grid" / str(number), lr=number, seed=0, right=rights(0.5, number))
    return folder / "grid"


def test_nothing_but_the_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), lr=1, seed=seed, right=rights(0.5, seed))
    found = compare_runs([str(tmp_path)])
    assert len(found.groups) == 1
    assert conclusions(found) == []
    assert [table.title.plain for table in terminal_tables(found)] == ["mean ± sd (n)"]  # type: ignore[union-attr]


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_many_settings_stand_below_each_other_where_a_terminal_is_narrow(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    console = open_console(file=stream)
    print_tables(console, terminal_tables(compare_runs([str(settings(tmp_path, 7))]), console.width))
    text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert max(map(len, text.splitlines())) <= int(columns)
    for letter in "ABCDEFG":
        assert f"{letter} (1)" in text
    assert len(re.findall(r"0\.\d{3} \(1\)", text)) == 7, "no score is broken into two lines"


def test_a_log_gets_every_setting_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of xdist set it
    stream = io.StringIO()
    console = open_console(file=stream)
    print_tables(console, terminal_tables(compare_runs([str(settings(tmp_path, 7))]), console.width))
    (line,) = [line for line in stream.getvalue().splitlines() if line.startswith("test/accuracy")]
    assert line.count("(1)") == 7


def test_the_curves_of_many_settings_are_told_apart(tmp_path: Path) -> None:
    num = len(LINES) + 2
    found = compare_runs([str(settings(tmp_path, num))])
    write_comparison(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    legend = re.findall(r'stroke="(#\w+)"[^>]*stroke-dasharray="([\d. ]+)"/></svg>([^<]+)', page)
    assert [name for _, _, name in legend] == labels(found)[: len(LINES)]
    assert len({(colour, dashes) for colour, dashes, _ in legend}) == len(LINES)
    assert "The last 2 configs are not drawn" in page
    assert found.groups[-1].letter == "L"


def test_a_run_whose_metrics_are_broken_has_no_curve(tmp_path: Path) -> None:
    folder = settings(tmp_path, 2)
    (folder / "0" / "metrics.csv").write_text("step,train/loss\n1," + "9" * 200_000 + "\n")  # longer than a cell may be
    write_comparison(compare_runs([str(folder)]), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count('<figure class="curve">') == 2


def test_a_legend_is_short(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, lr=name * 200, seed=0, right=rights(0.5, 0))
    assert all(len(label) < 70 and label.endswith("…") for label in labels(compare_runs([str(tmp_path)])))


def test_the_verb_prints_plain_lines_to_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(settings(tmp_path, 2))])
    out = capsys.readouterr().out
    assert out.isascii() or set(re.findall(r"[^\x00-\x7f]", out)) <= {"±"}
    assert "\x1b" not in out


def groups_of(*configs: dict[str, Any], **results: Any) -> Comparison:
    """A comparison of runs that exist in memory only, one for each config."""
    groups = []
    for letter, config in zip("ABCDE", configs, strict=False):
        run = Run(Path(letter), results={**results, **config.pop("results", {})})
        run.config = config
        groups.append(Group(letter, (run,)))
    return Comparison(tuple(groups), different_settings(groups), {}, ())


def test_a_legend_names_what_differs() -> None:
    nets = ({"model": {"hidden": 9, "widths": [1]}}, {"model": {"widths": [2]}})
    named = [{**net, "results": {"model": name}} for net, name in zip(nets, ("cnn", "small"), strict=True)]
    assert labels(groups_of(*named)) == ["A model=cnn model.widths=[1]", "B model=small model.widths=[2]"]
    three = [{"a": a, "b": 0, "c": c, "d": d} for a, c, d in ((1, 1, 1), (2, 1, 1), (2, 1, 2))]
    assert labels(groups_of(*three)) == ["A a=1 d=1", "B a=2 d=1", "C a=2 d=2"]
    four = [{"a": a, "b": b, "c": c} for a, b, c in ((1, 1, 1), (2, 2, 1), (2, 2, 2))]
    assert labels(groups_of(*four)) == ["A a=1 b=1 c=1", "B a=2 b=2 c=1", "C a=2 b=2 c=2"], "as many as tell them apart"


def test_a_legend_has_no_absolute_path() -> None:
    roots = ("/home/me/sets/animals/v1", "/home/me/sets/tumours/v1")
    assert labels(groups_of(*({"root": root} for root in roots))) == ["A root=animals/v1", "B root=tumours/v1"]
    assert labels(groups_of({"root": "/home/me/x"}, {"root": "data"})) == ["A root=x", "B root=data"]


def test_every_logged_metric_has_a_chart_under_its_name_in_the_results(tmp_path: Path) -> None:
    text = "step,epoch,train/loss,val_gap,rate,lr,test_gap,val/f1/cat\n1,0,2,0.5,3,0.1,,0.1\n2,0,1,0.4,4,0.1,,0.2\n3,0,,,,,7,\n"
    for name in ("a", "b"):
        folder = write_run(tmp_path / name, lr=name, seed=0, right=rights(0.5, 0), monitor="val/gap", **{"val/rate": 3})
        (folder / "metrics.csv").write_text(text)
    charts, not_drawn = curve_charts(compare_runs([str(tmp_path)]).groups)
    assert ([name for name, _ in charts], not_drawn) == (["train/loss", "val/gap", "lr", "val/rate"], [])


def test_of_many_metrics_the_first_are_drawn(tmp_path: Path) -> None:
    names = [f"m{number:02}" for number in range(MAX_CHARTS + 2)]
    for name in ("a", "b"):
        folder = write_run(tmp_path / name, lr=name, seed=0, right=rights(0.5, 0))
        (folder / "metrics.csv").write_text(f"step,{','.join(names)}\n1{',1' * len(names)}\n")
    write_comparison(compare_runs([str(tmp_path)]), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<figure class="curve">') == MAX_CHARTS
    assert f"Logged but not drawn: {', '.join(names[-2:])}." in page


def test_the_page_shows_intervals_and_no_directory_above_the_run(tmp_path: Path) -> None:
    for number, (lr, seed) in enumerate((lr, seed) for lr in (1, 2) for seed in (0, 1)):
        write_run(tmp_path / "grid" / f"{number}-a", lr=lr, seed=seed, right=rights(0.5, number))
    found = compare_runs([str(tmp_path / "grid")])
    (row,) = interval_rows(found)
    low, high = mean_interval(found.groups[0].values("test/accuracy")) or (0, 0)
    assert row[0] == "test/accuracy"
    assert row[1][0] == f"{low:.3f} to {high:.3f}" or float(row[1][0].split()[0]) == pytest.approx(low, rel=0.01)
    write_comparison(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert row[1][0] in page
    assert str(tmp_path) not in page
    assert "grid/0-a" in page
