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

SETTINGS = {"tensorboard": {"_target_": "arclight.loggers.factory.tensorboard", "artifacts": ["mistakes"]}}


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # run_directory.HARMLESS, as in a run
def test_a_resumed_run_records_no_step_twice_and_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard sorts event files by second, process and number as text ("10" before "9"): here each file has its own second.
    seconds = itertools.count(int(time.time()))
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: float(next(seconds)), sleep=time.sleep))
    for status, steps, after_step in (("failed", (1, 2, 3, 4), 0), ("finished", (3, 4, 5), 2)):
        loggers = build_loggers(SETTINGS, tmp_path, "name", after_step=after_step)
        log_metadata(loggers, {"optimizer": {"lr": 0.5}, "parameters": 7, "api_key": "Ab1"})
        for step in steps:
            loggers[1].log_metrics({"train/loss": step + after_step, "val/loss": float("nan")}, step=step)
        loggers[1].finalize("success")  # as Lightning does after the fit
        loggers[1].log_metrics({"test/accuracy": 0.75}, step=steps[-1])
        results = {"status": status, "steps": steps[-1], "val/loss": None, "test/accuracy": 0.75}
        (tmp_path / "results.json").write_text(json.dumps(results))
        close_loggers(loggers, status=status)
        assert not loggers[1].is_broken  # type: ignore[attr-defined]
    recorded = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [(event.step, event.value) for event in recorded.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 5), (4, 6), (5, 7)]
    texts = {tag: recorded.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in recorded.Tags()["tensors"]}
    assert texts["status/text_summary"] == "finished"
    assert '"lr": 0.5' in texts["run/text_summary"]
    assert "Ab1" not in str(texts)
    end = recorded.SummaryMetadata("_hparams_/session_end_info").plugin_data
    assert end.plugin_name == "hparams"
