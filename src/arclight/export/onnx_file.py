"""Writes a program as an ONNX file, and runs it with onnxruntime."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from arclight.errors import InputError, first_line
from arclight.export.program import Program, Tensors

EXPORTER_OPSET = 18  # what torch exports to; others are converted from it
EXTRA = 'pip install -e ".[export]"'
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers that report progress as warnings
LARGEST_FILE = 2**31 - 1  # bytes of a protobuf message


def import_extra(name: str) -> Any:
    """Returns a package of the extra `export`; raises InputError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name.partition('.')[0]} is not installed. Try: {EXTRA}") from error


def dynamic_shapes(program: Program) -> tuple[dict[int, Any], ...]:
    """Returns the axes of each input that may have any size, as torch.export takes them."""
    names = {name for axes in program.axes.values() for name in axes.values()}
    dims = {name: Dim(name, max=program.largest.get(name)) for name in names}
    return tuple({axis: dims[name] for axis, name in program.axes[key].items()} for key in program.examples)


def write_onnx(program: Program, path: Path, metadata: Mapping[str, Any], opset: int | None = None) -> None:
    """Writes the program with its weights in one file.

    Args:
        program: to be written.
        path: of the file.
        metadata: plain values, stored in `metadata_props`, each as JSON.
        opset: version of the operators; None is that of torch's exporter.

    Raises:
        InputError: when a package is missing, torch cannot export the net, or it has operators that the opset lacks.
    """
    with quiet_exporter():
        onnx = import_extra("onnx")
        import_extra("onnxscript")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not 1 <= opset <= newest:
        raise InputError(f"--opset {opset} must be 1 to {newest}, which onnx {onnx.__version__} knows")
    try:
        with quiet_exporter():
            exported: Any = torch.onnx.export(
                program.net,
                tuple(program.examples.values()),
                dynamo=True,
                input_names=list(program.examples),
                output_names=list(program.outputs),
                dynamic_shapes=dynamic_shapes(program),
                opset_version=opset or EXPORTER_OPSET,
                verbose=False,
            )
            model = exported.model_proto
    except Exception as error:  # of any class: of torch.export, torch.onnx, onnxscript and the net itself
        raise not_exported(program, error) from error
    found = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset is not None and found != opset:
        raise InputError(
            f"--opset {opset}: the model has operators that opset {opset} lacks; set --opset {found}, or leave it out"
        )
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, path, save_as_external_data=model.ByteSize() > LARGEST_FILE)


def not_exported(program: Program, error: BaseException) -> InputError:
    """Returns the error for a net that torch cannot export, with the cause at the bottom of the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    name = type(program.net).__name__
    axes = sorted({axis for named in program.axes.values() for axis in named.values()})
    problem = f"{type(error).__name__}: {first_line(error)}"
    return InputError(f"torch {torch.__version__} cannot export {name} with axes {axes} of any size: {problem}")


def write_torch_export(program: Program, path: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the program as `torch.export.load` reads it; `metadata` is the extra file metadata.json."""
    try:
        with quiet_exporter():
            exported = torch.export.export(
                program.net, tuple(program.examples.values()), dynamic_shapes=dynamic_shapes(program)
            )
            torch.export.save(exported, path, extra_files={"metadata.json": json.dumps(metadata)})
    except Exception as error:
        raise not_exported(program, error) from error


class OnnxSession:
    """Runs an ONNX file with onnxruntime on the CPU; called as a program is.

    Args:
        path: of the file.
        num_threads: of one operator; 0 is one for each core.

    Raises:
        InputError: when onnxruntime is missing or cannot run the file.
    """

    def __init__(self, path: Path, num_threads: int = 0) -> None:
        onnxruntime = import_extra("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes are made in C++
            raise InputError(f"onnxruntime {onnxruntime.__version__} cannot run {path.name}: {first_line(error)}") from error
        self.names = [taken.name for taken in self.session.get_inputs()]

    def __call__(self, inputs: Tensors) -> Tensors:
        arrays = {name: value.numpy() for name, value in zip(self.names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in self.session.run(None, arrays))


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Context manager that silences progress of torch and transformers, and the exporters' warnings about each other."""
    transformers = sys.modules.get("transformers")
    progress: Any = None if transformers is None else transformers.utils.logging
    shows_progress = progress is not None and progress.is_progress_bar_enabled()
    if shows_progress:
        progress.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if shows_progress:
                progress.enable_progress_bar()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
