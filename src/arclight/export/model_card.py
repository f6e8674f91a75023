"""README.md of an export: a model card of the Hugging Face hub, written from the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from arclight.checkpoint.contents import Restored
from arclight.export.metadata import environment_of


def write_model_card(path: Path, restored: Restored, metadata: Mapping[str, Any], file_format: str) -> None:
    """Writes what the run knows: data, scores, command, hardware, versions. The license is left to fill in."""
    environment = environment_of(restored)
    hardware, parity = environment.get("hardware") or {}, metadata["parity"]
    kind = getattr(restored.data_info, "content", "tensors")
    head = {"library_name": "transformers" if file_format == "huggingface" else file_format, "tags": ["arclight"]}
    if "task" in metadata:
        head["pipeline_tag"] = metadata["task"]
    program, *arguments = environment.get("command") or ["not known"]
    command = " ".join([Path(program).name, *arguments])
    names = [str(gpu.get("name")) for gpu in hardware.get("gpus") or []] or [
        f"{hardware.get('num_cores')} cores of {hardware.get('cpu_name')}"
    ]
    devices = ", ".join(names) if hardware else "not known"
    scores = [f"| {name} | {value:.4f} |" for name, value in metadata["scores"].items()]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "license: unknown  # to be filled in",
        "---",
        f"# {restored.model} on {restored.data}",
        "## What is it?",
        f"A model for {kind}, trained with arclight {metadata['arclight']}, as {file_format}.",
        *([f"Labels: {', '.join(metadata['labels'])}."] if metadata["labels"] else []),
        "## How good is it?",
        *(["| metric | value |", "|---|---|", *scores] if scores else ["The run was not tested."]),
        "## How was it made?",
        "| | |",
        "|---|---|",
        f"| command | `{command}` |",
        f"| hardware | {devices} |",
        f"| torch | {metadata['torch']} |",
        f"| SHA-256 of the weights | `{metadata['weights_sha256']}` |",
        "## Is it the same model?",
        f"Compared on {parity['num_samples']} samples of the {parity['source']}: {parity['num_different']} of "
        f"{parity['num_labels']} labels differ, the largest difference of an output is {parity['largest_difference']:.2g}.",
        "## What may it be used for?",
        "To be filled in: license, uses and limits.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
