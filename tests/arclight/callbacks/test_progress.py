"""Progress of a run: a bar on a terminal, lines in a log."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from rich.text import Text

from arclight.callbacks import progress
from arclight.callbacks.loss_logging import LossLogging
from arclight.callbacks.progress import ProgressBar, progress_callback
from arclight.callbacks.throughput import Throughput
from arclight.console.terminal import open_console
from tests.arclight.callbacks.test_best_checkpoint import fit
from tests.arclight.console.test_terminal import Terminal


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress, "REFRESH_S", 0)


def watched(stream: io.StringIO, tmp_path: Path, *callbacks: Callback, **settings: Any) -> str:
    """Returns what a fit of two epochs, of two batches of three samples each, writes."""
    throughput = Throughput(0.0)
    losses = LossLogging(throughput)
    shown = progress_callback(open_console(file=stream), losses)
    fit(tmp_path, [0.25, 0.5], throughput, losses, shown, *callbacks, enable_checkpointing=False, **settings)
    return stream.getvalue()


def test_a_log_gets_one_line_per_epoch_and_no_control_codes(tmp_path: Path) -> None:
    text = watched(io.StringIO(), tmp_path)
    first, second = text.splitlines()
    assert first.startswith("epoch 1/2  train/loss ")
    assert "val/accuracy 0.500" in second
    assert "\x1b" not in text
    assert "\r" not in text


def test_a_terminal_gets_a_bar_and_a_line_per_epoch(tmp_path: Path) -> None:
    text = watched(Terminal(), tmp_path)
    plain = Text.from_ansi(text.replace("\r", "\n")).plain
    assert re.search(r"epoch 2/2 +━+ +loss -?[\d.]+  [\d,]+ samples/s +(00:0\d|--:--)", plain)
    assert "validating, batch 2 of 2" in plain
    lines = [line for line in plain.splitlines() if "train/loss" in line]
    assert [re.sub(r"train/loss -?[\d.]+|\d+ s$", "", line.rstrip()).split() for line in lines] == [
        ["epoch", "1/2", "val/accuracy", "0.250"],
        ["epoch", "2/2", "val/accuracy", "0.500"],
    ]
    assert max(map(len, plain.splitlines())) <= 80
    assert text.endswith("\x1b[2K")  # the bar is gone
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # and the cursor is back


@pytest.mark.parametrize("columns", ["20", "40", "60"])
def test_a_narrow_terminal_breaks_no_line_of_the_bar(columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    plain = Text.from_ansi(watched(Terminal(), tmp_path).replace("\r", "\n")).plain
    bars = [line for line in plain.splitlines() if "━" in line]
    assert bars
    assert max(map(len, bars)) <= int(columns)
    assert not any("samples/s" in line for line in bars)


def test_a_failing_run_restores_the_terminal(tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            raise RuntimeError("here")

    stream = Terminal()
    with pytest.raises(RuntimeError, match="here"):
        watched(stream, tmp_path, Breaks())
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_the_bar_has_a_loss_before_the_first_is_logged(tmp_path: Path) -> None:
    text = watched(Terminal(), tmp_path, log_every_n_steps=1000)
    assert "epoch 1/2" in text
    assert re.search(r"━ +loss -?\d", Text.from_ansi(text.replace("\r", "\n")).plain)


def test_a_run_without_an_end_shows_no_time_left(tmp_path: Path) -> None:
    stream = Terminal()
    bar = ProgressBar(open_console(file=stream), LossLogging(Throughput(0.0)))
    bar._show("epoch 1", None)
    bar._hide()
    assert "--:--" not in stream.getvalue()
