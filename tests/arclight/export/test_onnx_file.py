"""ONNX files of plain LightningModules, run with onnxruntime."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from arclight.errors import InputError
from arclight.export.onnx_file import OnnxSession, import_extra, write_onnx, write_torch_export
from arclight.export.parity import compare, example_batches
from arclight.export.program import program_of
from tests.arclight.export.modules import Gan, TableRegression

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("module", [Gan(), TableRegression()], ids=["gan", "table"])
def test_same_outputs_at_any_batch_size(module: LightningModule, tmp_path: Path) -> None:
    program = program_of(module.eval(), None)
    write_onnx(program, tmp_path / "m.onnx", {"labels": ["a"], "note": "é"})
    session = OnnxSession(tmp_path / "m.onnx", num_threads=1)
    assert session.names == list(program.examples)
    parity = compare(program, session, example_batches(program), "example inputs")
    parity.check()
    assert (parity.num_samples, parity.num_labels) == (8, 0)
    stored = session.session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(text) for key, text in stored.items()} == {"labels": ["a"], "note": "é"}


def test_opset(tmp_path: Path) -> None:
    program = program_of(Gan().eval(), None)
    write_onnx(program, tmp_path / "m.onnx", {}, opset=20)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 20
    with pytest.raises(
        InputError, match="--opset 5: the model has operators that opset 5 lacks; set --opset 18, or leave it out"
    ):
        write_onnx(program, tmp_path / "m.onnx", {}, opset=5)
    with pytest.raises(InputError, match="--opset 999 must be 1 to"):
        write_onnx(program, tmp_path / "m.onnx", {}, opset=999)


def test_net_that_cannot_be_traced(tmp_path: Path) -> None:
    class Branch(Gan):
        def forward(self, noise: Tensor) -> Tensor:
            return noise if noise.sum() > 0 else -noise

    program = program_of(Branch(), None)
    for write in (write_onnx, write_torch_export):
        with pytest.raises(InputError, match=r"cannot export Branch with axes \['batch'\] of any size: \w+: "):
            write(program, tmp_path / "m", {})
    assert not list(tmp_path.iterdir())


def test_file_that_onnxruntime_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"onnxruntime [\d.]+ cannot run m.onnx: "):
        OnnxSession(tmp_path / "m.onnx")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r'onnxruntime is not installed. Try: pip install -e ".\[export\]"'):
        import_extra("onnxruntime.quantization")


def test_fixed_size_is_reported(tmp_path: Path) -> None:
    class Fixed(Gan):
        def forward(self, noise: Tensor) -> Tensor:
            return noise.reshape(2, 8) + torch.zeros(2, 8)

    with pytest.raises(InputError, match="cannot export Fixed"):
        write_torch_export(program_of(Fixed(), None), tmp_path / "m.pt2", {})
