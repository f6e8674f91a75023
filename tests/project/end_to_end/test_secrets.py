"""Secrets in the environment, the overrides and uncommitted changes are in no file of a run directory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import wandb
from omegaconf import OmegaConf

import arclight
from arclight.config import compose
from arclight.config.differences import differences
from arclight.errors import InputError
from arclight.launch.multirun import MultirunTable
from arclight.runs import run_directory
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

pytestmark = pytest.mark.with_report

ENVIRONMENT = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdefplanted1",
    "HF_TOKEN": "hf_aaaaaaaaaaaaaaaaplanted2",
    "AWS_SECRET_ACCESS_KEY": "planted3/and+more",
    "MLFLOW_TRACKING_URI": "https://me:planted4@example.org",
}
ADDRESS = "https://me:planted5@example.org/x"
DIFF = (
    f'+password = "planted6"\n+token = tokenizer.encode("text")\n+url = "{ADDRESS}"\n'
    '+wandb.login(key="planted7")\n+post("https://hooks.slack.com/services/T0/B0/planted8")\n'
    '+store = "postgres://me:pl@nted/planted9@host/db"\n+AccountKey=planted10==\n'
)
OVERRIDES = [*TINY_IMAGES, "trainer.max_epochs=1", "logger=[csv,tensorboard,wandb]", f"logger.wandb.group='{ADDRESS}'"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a run that was started with all of them."""
    before, place = Path.cwd(), tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["train.py", *OVERRIDES])
        patch.setattr(run_directory, "run_git", lambda arguments: DIFF if arguments[0] == "diff" else "abc")
        os.chdir(place)
        try:
            yield arclight.run(OVERRIDES).folder
        finally:
            wandb.teardown()  # its process keeps the folder and the environment that it was started in
            os.chdir(before)


def test_no_file_of_the_run_holds_a_secret(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    wanted = {"config.yaml", "overrides.txt", "environment.json", "train.log", "report.html", "results.json", "best.ckpt"}
    assert wanted <= names
    assert any(name.endswith(".wandb") for name in names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert [str(path) for path in files if b"planted" in path.read_bytes()] == []


def test_everything_else_is_written(folder: Path) -> None:
    overrides = (folder / "overrides.txt").read_text().splitlines()
    assert overrides == [*OVERRIDES[:-1], "logger.wandb.group=(left out)"]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["git"]["diff"].splitlines()[1] == '+token = tokenizer.encode("text")'
    assert environment["command"][1:] == overrides
    settings = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["arclight"]["settings"]
    assert settings["logger"]["wandb"]["group"] == "https://(left out)@example.org/x"


def test_resuming_needs_the_secret_again(folder: Path) -> None:
    with pytest.raises(InputError, match=r"leaves out logger\.wandb\.group, which held a secret; give it again: logger\.wandb"):
        compose.compose([f"resume={folder}"])
    run_config = compose.compose([f"resume={folder}", OVERRIDES[-1]])
    assert run_config.settings["logger"]["wandb"]["group"] == ADDRESS
    assert differences(run_directory.read_config(folder), run_config.settings) == {}


def test_hydras_multirun_yaml_is_removed(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(ADDRESS)
    MultirunTable().on_job_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}), task_function=None)
    assert list(tmp_path.iterdir()) == []
