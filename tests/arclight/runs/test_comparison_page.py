"""What a comparison looks like: on terminals of any width, and as a page with the curves of many runs."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from arclight.__main__ import main
from arclight.console.terminal import open_console, print_tables
from arclight.report.figures import LINES
from arclight.runs.comparison import compare_runs, conclusions
from arclight.runs.comparison_page import labels, terminal_tables, write_comparison
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
    assert len(re.findall(r"0\.\d{4} \(1\)", text)) == 7, "no score is broken into two lines"


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
