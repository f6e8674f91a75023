"""A full disk: the error is reported, checkpoints are kept, and the resumed run ends as without the error."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arclight.config import atomic_file
from arclight.config.compose import compose
from arclight.errors import InputError
from arclight.runs import experiment
from arclight.runs.run import Run
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

RUN = [*TINY_IMAGES, "precision=fp32", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=1", "logger=csv"]
FULL = Path("/dev/full")  # Linux' device that is always full

pytestmark = [pytest.mark.with_report, pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")]


def train(folder: Path) -> Run:
    return experiment.run(replace(compose(RUN), folder=folder))


def fill_disk(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the disk full whenever one of these files is written."""

    def create(path: Path) -> Path:
        part = original(path)
        if path.name in names:
            part.unlink()
            part.symlink_to(FULL)
        return part

    original = atomic_file.create_part
    monkeypatch.setattr(atomic_file, "create_part", create)


def before(step: str, do: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls `do` right before this step of the experiment."""
    original = getattr(experiment, step)

    def instead(*arguments: Any) -> Any:
        do()
        return original(*arguments)

    monkeypatch.setattr(experiment, step, instead)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("whole") / "run")


def test_optional_files_are_reported_and_left_out(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    fill_disk(("metrics.csv", "mistakes.json"), monkeypatch)
    (folder / "train.log").symlink_to(FULL)
    (folder / "metrics.csv").write_text("step\n")  # so that the first new metric writes the file anew
    before("report", lambda: (folder / "report.html").mkdir(), monkeypatch)
    run = train(folder)
    output = capsys.readouterr().err
    assert run.results["status"] == "finished"
    assert run.results["test/accuracy"] == whole.results["test/accuracy"]
    for message in (
        "csv failed (OSError: [Errno 28] No space left on device): it records nothing from here on; the run continues",
        f"{folder / 'mistakes.json'} could not be written (No space left on device; ",
        f"{folder / 'report.html'} could not be written (Is a directory; ",
        f"To write the report later: python -m arclight report {folder}",
    ):
        assert output.count(message) == 1, output
    assert output.count("train.log could not be written ([Errno 28] No space left on device): logging to it stops here") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(("step", "name"), [("test", "predictions.jsonl"), ("write_results", "results.json")])
def test_required_files_end_the_run_which_resumes(
    step: str, name: str, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        before(step, lambda: fill_disk((name,), patched), patched)
        with pytest.raises(
            InputError, match=rf"{name} could not be written \(No space left on device; .* MB are free"
        ) as message:
            train(folder)
    assert "free some space or fix the permissions, then continue with resume=auto" in str(message.value)
    assert json.loads((folder / "results.json").read_text())["status"] == ("failed" if step == "test" else "running")
    again = train(folder)
    assert {key: value for key, value in again.results.items() if key.startswith(("val/", "test/", "steps"))} == {
        key: value for key, value in whole.results.items() if key.startswith(("val/", "test/", "steps"))
    }
    assert (folder / "predictions.jsonl").read_text() == (whole.folder / "predictions.jsonl").read_text()
    assert (folder / "metrics.csv").read_text().count("\n") == (whole.folder / "metrics.csv").read_text().count("\n")


def test_a_best_checkpoint_that_does_not_fit_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other files that cannot be written are reported as well and do not hide it."""
    from arclight.checkpoint import atomic_write

    folder = tmp_path / "run"

    def refuse(content: Any, part: Path) -> None:
        if part.name.startswith("best"):
            fill_disk(("results.json",), monkeypatch)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(content, part)

    original = atomic_write.save_with_torch
    monkeypatch.setattr("arclight.checkpoint.single_file.save_with_torch", refuse)
    with pytest.raises(InputError, match=r"best.ckpt could not be written: it needs .* MB are free there .*No space left"):
        train(folder)
    assert f"{folder / 'results.json'} could not be written" in capsys.readouterr().err


def test_times_of_a_run_whose_clock_is_set_back(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    before("fit", lambda: monkeypatch.setattr(time, "time", lambda: now() - 86_400), monkeypatch)
    run = train(tmp_path / "run")
    times = {key: value for key, value in run.results.items() if key.startswith("time/") or key == "checkpoint/save_s"}
    assert set(times) == {"time/first_step_s", "time/fit_s", "time/total_s", "checkpoint/save_s"}
    assert all(0 < value < 86_400 for value in times.values())
    assert run.results["checkpoint/num_saves"] == 1
    assert run.results["test/accuracy"] == whole.results["test/accuracy"]
