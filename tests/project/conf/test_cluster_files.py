"""The files for clusters (scripts/, conf/hydra/launcher): their overrides compose and their commands exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from arclight.config.compose import compose, compose_with_hydra
from arclight.config.locations import CONF

SCRIPTS = CONF.parent / "scripts"


def test_slurm_launcher_composes() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with compose_with_hydra(["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]) as config:
        launcher = config.hydra.launcher
        assert launcher._target_.endswith("SlurmLauncher")
        assert (launcher.partition, launcher.tasks_per_node, launcher.nodes) == ("gpu", 1, 1)
        assert launcher.max_num_timeout > 0


def test_multirun_keeps_its_directory_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM jobs unpickle the config; the directory, which exists by then, must not be renamed."""
    import pickle

    from arclight.config import locations

    monkeypatch.chdir(tmp_path)
    with compose_with_hydra([]) as config:
        sweep_dir = config.hydra.sweep.dir
        Path(sweep_dir).mkdir(parents=True)
        locations.unique_dir.cache_clear()  # as in another process
        assert pickle.loads(pickle.dumps(config)).hydra.sweep.dir == sweep_dir


def test_slurm_script_is_valid_bash() -> None:
    script = SCRIPTS / "slurm.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run([shutil.which("bash") or "sh", "-n", str(script)], check=True)
    options = re.findall(r"^#SBATCH --([a-z-]+)", script.read_text(), re.MULTILINE)
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "time", "signal", "requeue"} < set(options)
    assert "#SBATCH --ntasks-per-node=1 " in script.read_text()


def test_kubernetes_command_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job: dict[str, Any] = yaml.safe_load((SCRIPTS / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    options, overrides = trainer["args"][: trainer["args"].index("train.py")], trainer["args"]
    assert any(option.startswith("--rdzv-id=") and not option.endswith("=none") for option in options)
    settings = compose(overrides[overrides.index("train.py") + 1 :]).settings
    assert settings["data"]["root"] == "/data"
