"""What an exported file says about itself: labels, normalization, scores, versions, and a hash of the weights."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from arclight.checkpoint.contents import Restored
from arclight.config.atomic_file import read_json
from arclight.data.info import to_plain
from arclight.export.program import Program
from arclight.runs.run_directory import read_results


def describe(restored: Restored, program: Program) -> dict[str, Any]:
    """Returns the metadata of an export as plain values that JSON can hold."""
    info = {} if restored.data_info is None else to_plain(restored.data_info)
    info.pop("tokenizer", None)  # on its own, where the program needs it
    return {
        "arclight": version("arclight"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "model": restored.model,
        "data": restored.data,
        "labels": list(program.labels),
        "outputs": list(program.outputs),
        "data_info": info,
        "scores": scores_of(restored),
        "weights_sha256": hash_of_weights(restored.module.state_dict()),
        **program.extra,
    }


def scores_of(restored: Restored) -> dict[str, float]:
    """Returns the numbers of results.json for validation and test; empty for a checkpoint without a run."""
    folder = restored.run_dir
    results = {} if folder is None else read_results(folder)
    return {
        key: value for key, value in results.items() if key.startswith(("val/", "test/")) and isinstance(value, int | float)
    }


def environment_of(restored: Restored) -> dict[str, Any]:
    """Returns environment.json of the run; empty for a checkpoint without a run."""
    folder = restored.run_dir
    return {} if folder is None else read_json(folder / "environment.json")


def hash_of_weights(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, types, shapes and values of the weights, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()
