"""Commands as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.config.locations import CONF
from arclight.console.terminal import format_metric
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

TRAIN = CONF.parent / "train.py"


def type_in(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=240, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [str(TRAIN), "data.batchsize=3"],
            "error: data.batchsize=3: data has no key 'batchsize'. Did you mean 'batch_size'?\n",
        ),
        ([str(TRAIN), "data=image_folder"], "error: data.root must be given: add data.root=... to the command\n"),
        ([str(TRAIN), "data=cifar11"], "error: data=cifar11: conf/data/ has no cifar11.yaml. Did you mean 'cifar10'?\n"),
        pytest.param(
            [str(TRAIN), "experiment=demo", "data.batch_size=99999"],
            "error: data.batch_size=99999 is larger than the training split of 4096 samples; "
            "take data.batch_size=4096 or less\n",
            marks=pytest.mark.processes,
        ),
        pytest.param(
            ["-m", "arclight", "evaluate", "latest"],
            "holds no run with a checkpoint; train one with `python train.py`\n",
            marks=pytest.mark.processes,
        ),
        (["-m", "arclight", "evaluate", "latest", "root=x"], "'root=x' must have the form data.KEY=VALUE"),
        (["-m", "arclight", "report", "nowhere"], "error: nowhere is not a run directory"),
    ],
)
def test_an_input_error_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    ended = type_in(tmp_path, *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.processes
def test_a_run_is_evaluated_from_the_command_line(tmp_path: Path) -> None:
    trained = type_in(tmp_path, str(TRAIN), *TINY_IMAGES, "trainer.max_epochs=1", "precision=fp32")
    assert trained.returncode == 0, trained.stderr
    (results,) = tmp_path.glob("outputs/*/*/results.json")
    assert not (results.parent / ".hydra").exists()  # config.yaml and overrides.txt are the one truth
    accuracy = json.loads(results.read_text())["test/accuracy"]
    evaluated = type_in(tmp_path, "-m", "arclight", "evaluate", "latest")
    assert evaluated.returncode == 0, evaluated.stderr
    assert format_metric(accuracy) in evaluated.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_config_need_no_torch(arguments: list[str], tmp_path: Path) -> None:
    ended = type_in(tmp_path, "-X", "importtime", str(TRAIN), *arguments)
    assert ended.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "transformers", "wandb", "matplotlib"}
