"""The files that hand runs to a cluster: what they say composes, and their commands are ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from arclight.config.compose import compose, compose_with_hydra
from arclight.config.locations import CONF

SCRIPTS = CONF.parent / "scripts"


def test_the_launcher_of_slurm_composes() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with compose_with_hydra(["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]) as config:
        launcher = config.hydra.launcher
        assert launcher._target_.endswith("SlurmLauncher")
        assert (launcher.partition, launcher.tasks_per_node, launcher.nodes) == ("gpu", 1, 1)
        assert launcher.max_num_timeout > 0


def test_a_grid_keeps_its_folder_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of SLURM get the config pickled; the name must not be looked for again where the folder is there by now."""
    import pickle

    from arclight.config.compose import compose as composition

    monkeypatch.chdir(tmp_path)
    with compose_with_hydra([]) as config:
        folder = config.hydra.sweep.dir
        Path(folder).mkdir(parents=True)
        composition.unique_dir.cache_clear()  # as in another process
        assert pickle.loads(pickle.dumps(config)).hydra.sweep.dir == folder


def test_the_script_of_slurm_is_a_script() -> None:
    script = SCRIPTS / "slurm.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run([shutil.which("bash") or "sh", "-n", str(script)], check=True)
    assert "#SBATCH --ntasks-per-node=1 " in script.read_text()


def test_the_command_of_kubernetes_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job: dict[str, Any] = yaml.safe_load((SCRIPTS / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    options, overrides = trainer["args"][: trainer["args"].index("train.py")], trainer["args"]
    assert any(option.startswith("--rdzv-id=") and not option.endswith("=none") for option in options)
    settings = compose(overrides[overrides.index("train.py") + 1 :]).settings
    assert settings["data"]["root"] == "/data"
