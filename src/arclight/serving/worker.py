"""A worker process of the server: it loads one run, answers batches of inputs, and ends with the server."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from arclight.distributed.parent import end_with
from arclight.errors import InputError
from arclight.serving.frames import pack, read_frame

if TYPE_CHECKING:
    from arclight.inference.predictor import Predictor

MODULE = "arclight.serving.worker"  # as it is started


def load(settings: dict[str, Any]) -> tuple[Predictor, dict[str, Any]]:
    """Returns the model of a run and its description for clients.

    Args:
        settings: `run`, `device`, `batch_size`, and `threads` of a forward pass on the CPU.

    Raises:
        InputError: when there is no such run or device.
    """
    import torch

    from arclight.checkpoint.contents import restore
    from arclight.inference.predictor import Predictor
    from arclight.runs.run_directory import read_results

    restored = restore(settings["run"])
    predictor = Predictor(restored, device=settings["device"], batch_size=settings["batch_size"])
    torch.set_num_threads(settings["threads"])
    results = {} if restored.run_dir is None else read_results(restored.run_dir)
    scores = {key: value for key, value in results.items() if key.startswith("test/") and key.count("/") == 1}
    pipeline = predictor.pipeline
    description = {
        "kind": pipeline.kind,
        "labels": list(pipeline.labels),
        "inputs": [{"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)} for spec in pipeline.inputs],
        "run": (restored.run_dir or restored.path).name,
        "checkpoint": restored.path.name,
        "scores": scores,
        "device": str(predictor.device),
    }
    return predictor, description


def answer(predictor: Predictor, header: dict[str, Any], payloads: Sequence[bytes]) -> list[list[dict[str, Any]]]:
    """Returns the records of each input; a record with "error" where it cannot be predicted."""
    from arclight.inference.pipeline import BadItem

    items, ends = [], []
    for name, kind, payload in zip(header["names"], header["kinds"], payloads, strict=True):
        try:
            items += list(predictor.pipeline.read(source_of(kind, payload, predictor.pipeline.kind), name))
        except Exception as error:  # an input that its pipeline has not foreseen ends neither the batch nor the worker
            items.append(BadItem(name, f"cannot be read ({type(error).__name__})"))
        ends.append(len(items))
    records = [
        {"source": record.source, "error": record.problem} if isinstance(record, BadItem) else finite(record)
        for record in predict(predictor, items, header["top_k"])
    ]
    return [records[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def predict(predictor: Predictor, items: list[Any], top_k: int | None) -> Iterator[Any]:
    """Yields the record of each item, or BadItem where the model fails on it; items of a batch it fails on are tried alone."""
    from arclight.inference.pipeline import BadItem

    try:
        yield from list(predictor.predict(items, top_k=top_k))
    except Exception as error:
        if len(items) == 1:
            explained = str(error) if isinstance(error, InputError) else f"the model failed on it ({type(error).__name__})"
            yield BadItem(items[0].source, explained)
            return
        for item in items:
            yield from predict(predictor, [item], top_k)


def finite(value: Any) -> Any:
    """Returns a record with None in place of numbers that JSON does not have: nan and infinities."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def source_of(kind: str, payload: bytes, pipeline: str) -> Any:
    """Returns an input as its pipeline reads it: the bytes of a file, or a JSON value; a JSON value for tensors is one row."""
    if kind == "file":
        return payload
    value = json.loads(payload)
    if pipeline != "tensors":
        return value
    return {name: [row] for name, row in value.items()} if isinstance(value, dict) else [value]


def main() -> None:
    """Loads the run that the first argument describes and answers frames of standard input until it is closed."""
    settings = json.loads(sys.argv[1])
    end_with(settings["parent"])
    for stop in (signal.SIGINT, signal.SIGTERM):  # the server decides: it answers first what it has accepted
        signal.signal(stop, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints
    try:
        predictor, description = load(settings)
    except InputError as error:
        replies.write(pack({"error": str(error)}))
        replies.flush()
        return
    replies.write(pack(description))
    replies.flush()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        replies.write(pack({"records": answer(predictor, *frame)}))
        replies.flush()


if __name__ == "__main__":
    main()
