from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from arclight.loggers.factory import build_loggers, close_loggers, log_metadata
from arclight.loggers.record import Record
from arclight.loggers.tensorboard import ResumableTensorBoardLogger

SETTINGS = {"tensorboard": {"_target_": "arclight.loggers.factory.tensorboard", "artifacts": ["mistakes"]}}


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # run_directory.HARMLESS, as in a run
def test_a_resumed_run_has_every_row_once_and_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard sorts event files by second, process and number as text ("10" before "9"): here each file has its own second.
    seconds = itertools.count(int(time.time()))
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: float(next(seconds)), sleep=time.sleep))
    for steps, after_step in (((1, 2, 3, 4), 0), ((3, 4), 2), ((4, 5), 3)):
        record = Record.read(tmp_path, after_step)
        loggers = build_loggers(SETTINGS, tmp_path, "name", record=record)
        log_metadata(loggers, {"optimizer": {"lr": 0.5}, "parameters": 7, "api_key": "Ab1"})
        for step in steps:
            for logger in loggers:
                logger.log_metrics({"train/loss": step + after_step, "val/loss": float("nan")}, step=step)
                logger.save()
        loggers[1].finalize("success")  # as Lightning does after the fit
        assert not loggers[1].is_broken  # type: ignore[attr-defined]
    for logger in loggers:
        logger.log_metrics({"test/accuracy": 0.75}, step=5)
    results = {"status": "finished", "steps": 5, "val/loss": 0.25, "test/accuracy": 0.75, "test/f1/a": 0.5}
    (tmp_path / "results.json").write_text(json.dumps(results))
    close_loggers(loggers, status="finished")
    recorded = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    points = {tag: [(event.step, event.value) for event in recorded.Scalars(tag)] for tag in recorded.Tags()["scalars"]}
    assert points["train/loss"] == [(1, 1), (2, 2), (3, 5), (4, 7), (5, 8)]
    # the last scores are not written twice; what the module does not log is, and the best checkpoint's under its own name
    assert points["test/accuracy"] == [(5, 0.75)]
    assert (points["test/f1/a"], points["best/val/loss"], len(points["val/loss"])) == ([(5, 0.5)], [(5, 0.25)], 5)
    texts = {tag: recorded.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in recorded.Tags()["tensors"]}
    assert texts["status/text_summary"] == "finished"
    assert '"lr": 0.5' in texts["run/text_summary"]
    assert "Ab1" not in str(texts)
    end = recorded.SummaryMetadata("_hparams_/session_end_info").plugin_data
    assert end.plugin_name == "hparams"


def test_missing_rows_are_written_and_recorded_ones_are_not_repeated(tmp_path: Path) -> None:
    first = ResumableTensorBoardLogger(tmp_path, artifacts=(), record=Record())
    for step in (0, 2):  # step 1 is lost; 2 is of the step after the checkpoint, which Lightning logs under this number
        first.log_metrics({"loss": step}, step)
    first.finalize("failed")
    record = Record(2, [{"step": "0", "loss": "0"}, {"step": "1", "loss": "1"}, {"step": "1", "note": "text"}])
    again = ResumableTensorBoardLogger(tmp_path, artifacts=(), record=record)
    again.log_metrics({"loss": 2}, 2)
    again.log_metrics({"loss": 3}, 3)
    again.finalize("success")
    recorded = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted((event.step, event.value) for event in recorded.Scalars("loss")) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_a_run_that_starts_again_without_a_checkpoint_repeats_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        logger = ResumableTensorBoardLogger(tmp_path, artifacts=(), record=Record())
        logger.log_metrics({"loss": 1.0}, 0)
        logger.finalize("failed")
    assert len(EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")) == 1
