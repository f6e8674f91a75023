"""`export` of a plain LightningModule: the directory, its parity check, its model card, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from safetensors import safe_open
from torch.utils.data import DataLoader, TensorDataset

from arclight.errors import InputError
from arclight.export import command_line, compression, directory, metadata, model_card
from arclight.export.directory import export, new_directory
from arclight.export.parity import Parity, compare
from arclight.export.program import program_of
from tests.arclight.export.modules import Gan, restored


@pytest.fixture
def gan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gan:
    """Returns the module that `latest` restores, of a run in run/."""
    module = Gan()
    made = restored(module, tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text('{"status": "finished", "test/loss": 0.5, "test/nan": null}')
    hardware = {"num_cores": 2, "cpu_name": "EPYC", "gpus": []}
    (tmp_path / "run" / "environment.json").write_text(
        json.dumps({"command": ["/home/me/train.py", "seed=1"], "hardware": hardware})
    )
    monkeypatch.setattr(directory, "restore", lambda run: made)
    return module


def test_onnx_runs_without_this_project(gan: Gan, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported = export("latest", {}, file_format="onnx")
    assert exported.directory == tmp_path / "run" / "export" / "onnx"
    assert sorted(path.name for path in exported.directory.iterdir()) == [
        "README.md",
        "metadata.json",
        "model.onnx",
        "run_onnx.py",
    ]
    assert str(exported.parity).startswith("parity on 8 samples of the example inputs: largest difference ")
    program = exported.directory / "run_onnx.py"
    assert len(program.read_text().splitlines()) <= 20
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    with torch.no_grad():
        value = float(gan(torch.zeros(1, 8)).flatten()[0])
    assert answer.stdout.startswith("output [[[[")
    assert float(answer.stdout.split("[[[[")[1].split()[0]) == pytest.approx(value, abs=1e-5)


class WithoutTest(LightningDataModule):
    """Two validation batches of 3 and 2 samples, with labels."""

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.rand(5, 8), torch.zeros(5)), batch_size=3)


def test_data_without_a_test_split_are_compared_on_another(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "data_on_disk", lambda restored, overrides: WithoutTest())
    gan.example_input_array = None
    parity = export("latest", {}, file_format="safetensors").parity
    assert str(parity).startswith("parity on 5 samples of the validation split: largest difference 0")


def test_compress_needs_a_test_split(gan: Gan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(compression, "restore", lambda run: directory.restore(run))
    monkeypatch.setattr(compression, "load_data", lambda restored, overrides, split: WithoutTest())
    with pytest.raises(InputError, match="lost on the test split; WithoutTest has no test_dataloader"):
        compression.compress("latest", {}, method="int8_dynamic")
    assert not (tmp_path / "run" / "compress" / "int8_dynamic").exists()


def test_safetensors_hold_weights_and_metadata(gan: Gan) -> None:
    exported = export("latest", {}, file_format="safetensors")
    with safe_open(exported.directory / "model.safetensors", "pt") as file:
        assert file.keys() == sorted(gan.state_dict())
        assert json.loads(file.metadata()["scores"]) == {"test/loss": 0.5}
        assert json.loads(file.metadata()["weights_sha256"]) == metadata.hash_of_weights(gan.state_dict())


def test_torch_export_and_its_card(gan: Gan) -> None:
    exported = export("latest", {}, file_format="torch_export")
    extra = {"metadata.json": ""}
    loaded = torch.export.load(exported.directory / "model.pt2", extra_files=extra).module()
    assert torch.equal(loaded(torch.ones(3, 8)), gan(torch.ones(3, 8)))
    assert json.loads(extra["metadata.json"])["model"] == "net"
    card = (exported.directory / "README.md").read_text()
    for line in (
        "| test/loss | 0.5000 |",
        "| command | `train.py seed=1` |",
        "| hardware | 2 cores of EPYC |",
        "license: unknown",
    ):
        assert line in card
    assert model_card.__doc__


def test_refusals(gan: Gan, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists; remove it, or name another directory with --output"):
        export("latest", {}, file_format="safetensors", output=tmp_path / "there")
    with pytest.raises(InputError, match="Gan is not an architecture of transformers; set --format onnx"):
        export("latest", {}, file_format="huggingface", output=tmp_path / "hf")
    with pytest.raises(InputError, match="--opset 17 is of --format onnx"):
        export("latest", {}, file_format="safetensors", opset=17)
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file/x cannot be written: .*; name another directory with --output"),
        new_directory(tmp_path / "file" / "x"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run", "there"]


def test_other_outputs_are_refused(gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "write", lambda *given: lambda inputs: (gan(inputs[0]) + 0.5,))
    with pytest.raises(
        InputError, match=r"outputs differ by more than --tolerance.*largest difference 0.5 \(tolerance 0.001\)"
    ):
        export("latest", {}, file_format="onnx", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_labels_are_refused() -> None:
    from dataclasses import replace

    program = replace(program_of(Gan(), None), labels=("a",) * 8)
    batches = [(torch.zeros(2, 8),)]
    parity = compare(program, lambda inputs: (-program(inputs)[0],), batches, "test split", tolerance=9)
    assert parity.num_labels == 16
    assert parity.num_different > 0
    with pytest.raises(InputError, match="the exported model predicts other labels. parity on 2 samples of the test split"):
        parity.check()
    with pytest.raises(InputError, match="largest difference inf"):
        compare(program_of(Gan(), None), lambda inputs: (torch.full((2, 1, 8, 8), torch.nan),), batches, "x").check()
    Parity("x", 1, 0, 0, 0.0, 0.0).check()


def test_the_command_prints_files_and_parity(gan: Gan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from arclight.__main__ import main

    main(["export", "latest", "--format", "safetensors", "--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    assert printed.startswith("parity on 8 samples of the example inputs")
    assert "model.safetensors" in printed
    assert "onnx" in command_line.FORMATS
    with pytest.raises(SystemExit):
        main(["export", "latest", "seed=1"])
    assert "export changes data settings only" in capsys.readouterr().err


def test_checkpoint_of_another_version(tmp_path: Path) -> None:
    torch.save({"arclight": {"version": 99}, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(
        InputError, match="has checkpoint version 99; this arclight reads version 2.*open it with the arclight that"
    ):
        export(str(tmp_path / "a.ckpt"), {}, file_format="safetensors")
