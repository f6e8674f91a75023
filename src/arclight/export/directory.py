"""Exports a trained run into a new directory, and compares what was written with the model before it is kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from arclight.checkpoint.contents import Restored, restore
from arclight.errors import InputError
from arclight.export.metadata import describe
from arclight.export.model_card import write_model_card
from arclight.export.onnx_file import OnnxSession, quiet_exporter, write_onnx, write_torch_export
from arclight.export.parity import (
    SAMPLES,
    SPLITS,
    TOLERANCE,
    Parity,
    batches_of,
    compare,
    data_on_disk,
    example_batches,
    loader_of,
    loaders_of,
)
from arclight.export.program import Call, Program, flatten, program_of

ONNX_FILE, EXPORTED_FILE, WEIGHTS_FILE = "model.onnx", "model.pt2", "model.safetensors"

EXAMPLE_HEAD = '''"""Runs model.onnx: python run_onnx.py {arguments}  (pip install onnxruntime{packages})"""

import json
import sys

import numpy as np
import onnxruntime
{imports}
session = onnxruntime.InferenceSession(f"{{sys.path[0]}}/model.onnx")
metadata = {{key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}}
'''


@dataclass(frozen=True)
class Exported:
    """A finished export: its directory, the comparison with the model, and its metadata."""

    directory: Path
    parity: Parity
    metadata: dict[str, Any]


def export(
    run: str,
    overrides: Mapping[str, Any],
    *,
    file_format: str,
    output: Path | None = None,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes a trained model in a format, into a directory that does not exist yet.

    Args:
        run: run directory, checkpoint file, or `latest`.
        overrides: settings of the data for the comparison, such as {"root": "elsewhere"}.
        file_format: one of `command_line.FORMATS`.
        output: the directory; None is `export/FORMAT` of the run.
        opset: version of the operators, for onnx; None is that of torch's exporter.
        tolerance: largest difference of an output.

    Raises:
        InputError: when there is no such run, the directory exists, a package is missing, or the format cannot hold the model;
            or when the exported model predicts another label or differs by more than the tolerance. Nothing is kept then.
    """
    if opset is not None and file_format != "onnx":
        raise InputError(f"--opset {opset} is of --format onnx; leave it out")
    restored = restore(run)
    target = output or (restored.run_dir or restored.path.parent) / "export" / file_format
    data = None
    with new_directory(target) as directory:
        data = data_on_disk(restored, overrides)
        program = make_program(restored, data)
        metadata = describe(restored, program)
        call = write(program, restored, directory, metadata, file_format, opset)
        batches = example_batches(program) if data is None else batches_of(program, loaders_of(data, loader_of(data)))
        parity = compare(program, call, batches, SAMPLES if data is None else SPLITS[loader_of(data)], tolerance)
        parity.check()
        metadata["parity"] = asdict(parity)
        (directory / "metadata.json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_model_card(directory / "README.md", restored, metadata, file_format)
    return Exported(target, parity, metadata)


def make_program(restored: Restored, data: Any) -> Program:
    """Returns the program of a restored module, in float32 where it was trained in less, on the CPU."""
    is_known = restored.module.example_input_array is not None or hasattr(restored.data_info, "export_program")
    batch = None if is_known or data is None else next(iter(loaders_of(data, loader_of(data))[0]))
    return program_of(restored.module.cpu().float(), restored.data_info, batch)


def write(
    program: Program, restored: Restored, directory: Path, metadata: Mapping[str, Any], file_format: str, opset: int | None
) -> Call:
    """Writes the files of a format and returns what runs the model that was read back from them."""
    if file_format == "onnx":
        write_onnx(program, directory / ONNX_FILE, metadata, opset)
        (directory / "run_onnx.py").write_text(example_program(program), encoding="utf-8")
        return OnnxSession(directory / ONNX_FILE)
    if file_format == "torch_export":
        write_torch_export(program, directory / EXPORTED_FILE, metadata)
        with quiet_exporter():
            loaded = torch.export.load(directory / EXPORTED_FILE).module()
        return lambda inputs: flatten(loaded(*inputs))
    if file_format == "safetensors":
        return write_safetensors(program, restored, directory / WEIGHTS_FILE, metadata)
    if program.save_as_hugging_face is None:
        raise InputError(
            f"--format huggingface: {type(restored.module).__name__} is not an architecture of transformers; set "
            "--format onnx, torch_export or safetensors"
        )
    with quiet_exporter():
        return program.save_as_hugging_face(directory)


def write_safetensors(program: Program, restored: Restored, path: Path, metadata: Mapping[str, Any]) -> Call:
    """Writes the weights of the module under their names in the checkpoint; the header holds the metadata as JSON."""
    from safetensors.torch import load_file, save_file

    state = {name: value.detach().clone().contiguous() for name, value in restored.module.state_dict().items()}
    save_file(state, path, {key: json.dumps(value) for key, value in metadata.items()})
    restored.module.load_state_dict(load_file(path))
    return program


def example_program(program: Program) -> str:
    """Returns run_onnx.py: the model without torch and this project."""
    needed = {"PIL": " pillow", "tokenizers": " tokenizers"}
    packages = "".join(package for name, package in needed.items() if f"from {name} " in program.example)
    arguments = {" pillow": "IMAGE...", " tokenizers": "'A sentence .'"}.get(packages, "")
    imports = "".join(f"{line}\n" for line in program.example.splitlines() if line.startswith("from "))
    lines = [line for line in program.example.splitlines() if not line.startswith("from ")]
    head = EXAMPLE_HEAD.format(arguments=arguments, packages=packages, imports=imports)
    return "\n".join([*head.splitlines(), *lines, ""])


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Context manager that yields an empty directory, which is renamed to `target` at the end; an error removes it.

    Raises:
        InputError: when the target exists or cannot be written.
    """
    if target.exists():
        raise InputError(f"{target} exists; remove it, or name another directory with --output")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}; name another directory with --output") from error
    try:
        yield part
        part.chmod(0o755)
        part.rename(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}; name another directory with --output") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
