"""Tensors as inputs of any LightningModule: rows of .npy, .npz, .json, .jsonl and .csv files, or arrays in memory."""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arclight.inference.pipeline import BadItem, Format, InputSpec, Item, Record, net_of, read_bytes

MAX_FILE_BYTES = 2_000_000_000


class TensorPipeline:
    """The `InputPipeline` of a module that offers none: each row of the inputs is an item.

    Types and sizes are those of the module's `example_input_array` (a tensor, a tuple, or a dict by argument of `forward`);
    without one, a single float32 tensor of any size.

    Records: {"source", "output"}, the output as numbers and lists.
    """

    kind = "tensors"
    suffixes = (".csv", ".json", ".jsonl", ".npy", ".npz")

    def __init__(self, module: Any) -> None:
        self.labels: tuple[str, ...] = ()
        self.formats: Mapping[str, Format] = {}
        example = getattr(module, "example_input_array", None)
        names = list(inspect.signature(net_of(module).forward).parameters) or ["input"]
        self._has_example = example is not None
        if isinstance(example, Mapping):
            named = list(example.items())
        else:
            tensors = (torch.zeros(1),) if example is None else example if isinstance(example, list | tuple) else (example,)
            named = list(zip(names, tensors, strict=False))
        self.inputs = tuple(InputSpec(name, value.dtype, ("batch", *value.shape[1:])) for name, value in named)

    def read(self, source: Any, name: str) -> Iterator[Item | BadItem]:
        """Yields the rows of a path, bytes of a file, an array, or a tuple or dict of arrays by argument."""
        try:
            arrays = self._arrays(source)
            columns = [self._column(spec, values) for spec, values in zip(self.inputs, arrays, strict=True)]
            if len({len(column) for column in columns}) > 1:
                raise ValueError(
                    f"the inputs have {', '.join(str(len(column)) for column in columns)} rows: as many are needed"
                )
        except (ValueError, TypeError, OSError, EOFError, RecursionError) as error:
            yield BadItem(name, str(error))
            return
        for number, row in enumerate(zip(*columns, strict=True), 1):
            yield Item(f"{name}:{number}", [row])

    def _arrays(self, source: Any) -> list[Any]:
        """Returns one array for each input."""
        if isinstance(source, Path | bytes):
            source = parse(read_bytes(source, MAX_FILE_BYTES), source.suffix.lower() if isinstance(source, Path) else "")
        if isinstance(source, Mapping):
            missing = [spec.name for spec in self.inputs if spec.name not in source]
            if missing and len(source) != len(self.inputs):
                raise ValueError(f"has no {', '.join(missing)}; the model takes {', '.join(spec.name for spec in self.inputs)}")
            return list(source.values()) if missing else [source[spec.name] for spec in self.inputs]
        arrays = list(source) if isinstance(source, tuple) else [source]
        if len(arrays) != len(self.inputs):
            raise ValueError(
                f"holds 1 array, the model takes {', '.join(spec.name for spec in self.inputs)}: use .npz or .json"
            )
        return arrays

    def _column(self, spec: InputSpec, values: Any) -> Tensor:
        """Returns the rows of one input; raises ValueError where their type or size is not that of the model."""
        column = values if isinstance(values, Tensor) else torch.from_numpy(numbers(values))
        if self._has_example:
            sizes = tuple(column.shape[1:])
            if sizes != spec.shape[1:]:
                raise ValueError(f"{spec.name} has rows of size {list(sizes)}, the model takes {list(spec.shape[1:])}")
        if column.is_floating_point() and not spec.dtype.is_floating_point:
            raise ValueError(f"{spec.name} holds fractions, the model takes {spec.dtype}")
        return column.to(spec.dtype)

    def length(self, row: tuple[Tensor, ...]) -> int:
        return 1

    def collate(self, rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def record(self, item: Item, outputs: Sequence[Any], *, top_k: int | None = None) -> Record:
        return {"source": item.source, "output": plain(outputs[0])}

    def table_rows(self, record: Record) -> list[Record]:
        return [{"source": record["source"], **dict(flat(record["output"], "output"))}]


def parse(content: bytes, suffix: str) -> Any:
    """Returns the arrays in a file: one, or by name; raises ValueError when it is not of a known format.

    A CSV file has a row in each line, with or without a header; JSON is a list of rows or an object of such lists by input, and
    lines of JSON are rows.
    """
    if content[:6] == b"\x93NUMPY" or suffix in (".npy", ".npz"):
        loaded: Any = np.load(io.BytesIO(content), allow_pickle=False)
        return {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    text = content.decode("utf-8-sig")
    if suffix in (".json", ".jsonl") or text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return {name: [row[name] for row in rows] for name in rows[0]} if isinstance(rows[0], dict) else rows
    lines = [line for line in csv.reader(text.splitlines()) if line]
    if lines and not all(map(is_number, lines[0])):
        lines = lines[1:]  # a header
    try:
        return [[float(cell) for cell in line] for line in lines]
    except ValueError as error:
        raise ValueError(f"is neither .npy, .npz nor JSON, and no CSV of numbers: {error}") from None


def is_number(cell: str) -> bool:
    """Returns whether a cell of a CSV file holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def numbers(values: Any) -> np.ndarray[Any, Any]:
    """Returns rows of numbers as an array, float32 for fractions; raises ValueError for anything else."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not array.ndim or not len(array):
        raise ValueError(f"holds {array.dtype} of size {list(array.shape)}, not rows of numbers of equal length")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def plain(values: Any) -> Any:
    """Returns outputs as numbers, texts, lists and mappings."""
    if isinstance(values, Tensor):
        return values.tolist()
    if isinstance(values, Mapping):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return values if isinstance(values, bool | int | float | str | None) else str(values)


def flat(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the numbers of nested outputs with names such as output_0_1."""
    if isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from flat(value, f"{name}_{key}")
    else:
        yield name, values
