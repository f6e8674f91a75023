"""The run summary and the results, on a terminal and in a log."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.text import Text

from arclight.config.compose import RunConfig
from arclight.console.terminal import open_console
from arclight.hardware import Decision
from arclight.images.info import ImageInfo
from arclight.interfaces import Monitor
from arclight.metrics.tables import Row, Table
from arclight.modules.supervised import Scores
from arclight.runs.summary import MOST_CLASSES, describe_steps, print_interrupted, print_results, print_run_summary
from arclight.text.info import TokenInfo
from tests.arclight.console.test_terminal import Terminal

IMAGES = ImageInfo(channels=3, height=32, width=32, classes=("a", "b"), mean=(0.0,) * 3, std=(1.0,) * 3)
TEXT = TokenInfo(labels=("O", "B-X"), tokenizer="", vocab_size=9, pad_id=0, max_length=64)
REASON = "takes 20 s and more before the first step, which short runs do not earn back; hardware.compile=true"
CHOICES = {
    "accelerator": Decision("cpu", "no GPU here; 2 cores"),
    "num_nodes": Decision(1, "this machine alone"),
    "cudnn_benchmark": Decision(False, "set by user", is_user_set=True),
    "workers": Decision(2, REASON),
}
RESULTS: dict[str, Any] = {
    **{
        "status": "finished",
        "val/accuracy": 0.5,
        "val/loss": 1.5,
        "test/accuracy": 0.25,
        "test/f1/[b]x": 0.1,
        "test/loss": None,
    },
    **{
        "train/samples_per_s": 3804.4,
        "train/step_ms": 16.82,
        "train/data_wait_share": 0.01,
        "train/forward_backward_share": 0.9,
    },
    **{"time/total_s": 75.2, "time/fit_s": 60.1, "time/first_step_s": 4.71, "advice": "training waits for data: raise workers"},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def components(data_info: Any = IMAGES, **trainer: Any) -> Any:
    """The components of a run with batches of 16."""
    given = {"world_size": 1, "accumulate_grad_batches": 1, "loggers": [], "max_epochs": 3, "max_steps": -1}
    given |= {"limit_train_batches": 1.0, **trainer}
    module = SimpleNamespace(
        monitor=Monitor("val/accuracy", "max"),
        parameters=lambda: [torch.nn.Parameter(torch.zeros(30, 40))],
        learning_rate=lambda batch: f"0.1 ({batch})",
    )
    data = SimpleNamespace(sizes={"train": 8000, "val": 9}, batch_size=16, data_info=data_info, steps_per_epoch=500)
    return SimpleNamespace(
        **{"trainer": SimpleNamespace(**given), "module": module, "monitor": module.monitor, "data": data},
        **{"decisions": CHOICES, "ckpt_path": None},
    )


def start(stream: io.StringIO, made: Any) -> str:
    settings = {
        "name": "synthetic_images-cnn",
        "module": {"_target_": "project.lightning_modules.image_classifier.ImageClassifier"},
    }
    run_config = RunConfig(
        settings=settings, overrides=(), data="[i]shapes", model="cnn", folder=Path("outputs/x"), started=0.0
    )
    print_run_summary(open_console(file=stream), made, run_config)
    return Text.from_ansi(stream.getvalue()).plain


def table(num_classes: int) -> Table:
    rows = tuple(Row(f"[b]{number}", 0.5, 0.5, number / 1000, 3) for number in range(num_classes, 0, -1))
    return Table("Per class", rows, (Row("macro avg", 0.5, 0.5, 0.5, 9),))


def end(stream: io.StringIO, results: dict[str, Any], num_classes: int = 2) -> str:
    scores = Scores({}, {}, (table(num_classes),), (), [])
    print_results(open_console(file=stream), results, scores, Path("outputs/x"))
    return Text.from_ansi(stream.getvalue()).plain


def test_the_summary_in_a_log_has_one_line_per_item_and_every_decision() -> None:
    lines = start(io.StringIO(), components()).splitlines()
    summary = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert summary["data"] == "[i]shapes: 8,000 train, 9 val; 3x32x32, 2 classes"
    assert summary["model"] == "cnn: 1,200 parameters"
    assert summary["module"] == "ImageClassifier, best by highest val/accuracy"
    assert summary["batch"] == "16"
    assert summary["steps"] == "500 per epoch x 3 = 1,500"
    assert summary["run dir"] == "outputs/x"
    assert summary["num_nodes"] == "1 (this machine alone)"
    assert summary["workers"] == f"2 ({REASON})"


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_the_summary_fits_a_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = start(Terminal(), components()).splitlines()
    assert {len(line) for line in lines} == {int(columns)}
    assert lines[0].startswith("╭─ cnn on [i]shapes ─")
    text = " ".join(" ".join(line.strip("│ ") for line in lines).split())
    assert "num_nodes" not in text, "usual values are not shown"
    assert "cudnn_benchmark False set by user" in text
    assert "workers 2" in text


def test_the_summary_of_several_processes_and_of_text() -> None:
    text = start(io.StringIO(), components(TEXT, world_size=2, accumulate_grad_batches=2))
    assert "16 = 2 processes x 2 accumulation steps x 4" in text
    assert "2 tags, up to 64 subwords" in text


def test_other_processes_print_nothing() -> None:
    stream = Terminal()
    console = open_console(quiet=True, file=stream)
    run_config = RunConfig(settings={}, overrides=(), data="", model="", folder=Path(), started=0.0)
    print_run_summary(console, None, run_config)  # type: ignore[arg-type]
    print_results(console, {}, Scores({}, {}, (), (), []), Path())
    assert stream.getvalue() == ""


def test_steps() -> None:
    def described(epochs: int | None, steps: int, limit: float = 1.0, num_parts: int = 1) -> str:
        limits = {"limit_train_batches": limit, "accumulate_grad_batches": num_parts}
        return describe_steps(SimpleNamespace(max_epochs=epochs, max_steps=steps, **limits), 500)

    assert described(3, 1000) == "500 per epoch x 3 = 1,500, at most 1,000"
    assert described(-1, 1000) == "500 per epoch, 1,000 in total"
    assert described(-1, -1) == described(None, -1) == "500 per epoch"
    assert described(3, -1, limit=60, num_parts=2) == "30 per epoch x 3 = 90"
    assert described(3, -1, limit=0.1, num_parts=2) == "50 per epoch x 3 = 150"
    assert described(1, -1, limit=9999) == "500 per epoch x 1 = 500"


def test_the_results_in_a_log() -> None:
    lines = [" ".join(line.split()) for line in end(io.StringIO(), RESULTS).splitlines() if line]
    assert lines == [
        "Per class",
        "precision recall f1 support",
        "[b]2 0.500 0.500 0.00200 3",
        "[b]1 0.500 0.500 0.00100 3",
        "macro avg 0.500 0.500 0.500 9",
        "val test",
        "accuracy 0.500 0.250",
        "loss 1.50",
        "time 1 min 15 s in total, first step after 4.71 s, training and validation 1 min 00 s",
        "speed 3,800 samples/s, 16.8 ms per step",
        "step 90% forward and backward, 1% waiting for data",
        "advice training waits for data: raise workers",
        "Report: outputs/x/report.html",
        "Evaluate again, or on other data: python -m arclight evaluate outputs/x",
        "Compare: python -m arclight compare outputs/x RUN",
    ]


def test_the_results_fit_a_terminal_and_show_the_weakest_of_many_classes() -> None:
    text = end(Terminal(), RESULTS, num_classes=100)
    assert max(map(len, text.splitlines())) <= 80
    assert "0.0240" in text
    assert "0.0250" not in text
    assert f"the {MOST_CLASSES} weakest classes; see the report for the other 76" in text


def test_results_without_scores_or_times() -> None:
    assert "Report: outputs/x/report.html" in end(io.StringIO(), {"status": "finished"})
    assert "step " not in end(io.StringIO(), {"train/step_ms": 1.0, "train/tokens_per_s": 2.0})


def test_a_resumed_run_and_a_stopped_one_name_their_position(tmp_path: Path) -> None:
    stream, run = io.StringIO(), tmp_path / "run"
    print_interrupted(open_console(file=stream), run)
    assert "Stopped before the first checkpoint" in stream.getvalue()
    last = run / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    progress = {"fit_loop": {"epoch_progress": {"current": {"started": 2, "processed": 1}}}}
    torch.save({"global_step": 13, "loops": progress}, last)
    print_interrupted(open_console(file=stream), run)
    assert "Saved in epoch 2, after step 13: " in stream.getvalue()
    assert "To continue: python train.py resume=run\n" in stream.getvalue()
    made = components()
    made.ckpt_path = last
    assert "in epoch 2, after step 13, from " in start(io.StringIO(), made)
