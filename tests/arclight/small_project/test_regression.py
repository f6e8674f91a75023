"""The engine alone: a conf and a project of its own, of a kind of data that the engine does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight.__main__ import main
from arclight.checkpoint.contents import restore
from arclight.config import locations
from arclight.config.locations import CONF
from arclight.errors import InputError

pytestmark = pytest.mark.with_report

HERE = "tests.arclight.small_project.regression"
ENGINE_GROUPS = (
    "callbacks",
    "checkpoint",
    "hardware",
    "hydra",
    "logger",
    "optimizer",
    "precision",
    "scheduler",
    "strategy",
    "trainer",
)
OPTIONS = {
    "data/table": {"_target_": f"{HERE}.Table", "batch_size": 8, "max_batch_per_device": None},
    "model/linear": {"defaults": ["/module@_global_.module: regression"], "_target_": f"{HERE}.Linear", "bias": True},
    "module/regression": {"_target_": f"{HERE}.Regression"},
}


@pytest.fixture
def small_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conf/ with the groups of the engine and one option each for data, model and module."""
    conf = tmp_path / "conf"
    for group in ENGINE_GROUPS:
        shutil.copytree(CONF / group, conf / group)
    for group in ("experiment", "debug", "local"):
        (conf / group).mkdir(parents=True)
    for name, settings in OPTIONS.items():
        (conf / name).parent.mkdir(exist_ok=True)
        (conf / f"{name}.yaml").write_text(yaml_of(settings))
    text = (CONF / "train.yaml").read_text()
    (conf / "train.yaml").write_text(text.replace("data: cifar10", "data: table").replace("model: cnn", "model: linear"))
    monkeypatch.setattr(locations, "CONF", conf)
    monkeypatch.chdir(tmp_path)
    return conf


def yaml_of(settings: dict[str, Any]) -> str:
    defaults = "".join(f"  - {entry}\n" for entry in settings.get("defaults", []))
    values = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items() if key != "defaults")
    return (f"defaults:\n{defaults}" if defaults else "") + values


COMMAND = ["logger=csv", "trainer=cpu", "precision=fp32", "trainer.max_epochs=3", "optimizer.lr=0.1"]


def test_a_regression_trains_is_tested_restored_and_reported(small_conf: Path) -> None:
    run = arclight.run(COMMAND)
    assert run.results["status"] == "finished"
    assert run.results["monitor"] == "val/loss"
    assert 0 < run.results["test/loss"] < 15  # about 30 before training
    assert run.results["steps"] == 3 * 64 // 8
    assert run.results["train/samples_per_s"] > 0
    restored = restore(run.folder)
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in restored.module.state_dict().items())
    assert "<bdi>linear</bdi> on <bdi>table</bdi>" in (run.folder / "report.html").read_text()
    Path("rows.csv").write_text("a,b,c,d\n0,1,2,3\n4,5,6,7\n")
    main(["predict", str(run.folder), "rows.csv", "--output", "out.jsonl"])
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    with torch.inference_mode():
        expected = run.model.net(torch.arange(8.0).view(2, 4))
    assert [record["source"] for record in records] == ["rows.csv:1", "rows.csv:2"]
    assert torch.allclose(torch.tensor([record["output"] for record in records]), expected)


def test_a_stopped_run_resumes_to_the_same_weights(small_conf: Path) -> None:
    whole = arclight.run([*COMMAND, "seed=3"])
    part = arclight.run([*COMMAND, "seed=3", "trainer.max_epochs=1"])
    resumed = arclight.run([*COMMAND, "seed=3", f"resume={part.folder}", "trainer.max_epochs=3", "resume_with_changes=true"])
    for name, value in torch.load(whole.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"].items():
        assert torch.equal(
            value, torch.load(resumed.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"][name]
        )


def test_a_wrong_setting_is_reported_with_its_place(small_conf: Path) -> None:
    with pytest.raises(InputError, match=r"model\.bais.*Did you mean 'bias'"):
        arclight.run([*COMMAND, "+model.bais=false"])
