"""The interface between a kind of input and a model: sources -> items -> tensors -> model -> records.

`pipeline_for` returns the pipeline of a trained model: the one that its module or its data info offers by `input_pipeline()`,
else one of plain tensors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from arclight.interfaces import DataInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Record = dict[str, Any]  # what is predicted for one item: plain values, which JSON can hold
STDIN = "-"


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    Args:
        source: its name in records and messages, such as photo.png or notes.txt:3.
        rows: each as `InputPipeline.collate` takes it: one for an image, one per window for a text. Never empty.
        content: what `InputPipeline.record` needs besides the outputs.
    """

    source: str
    rows: Sequence[Any]
    content: Any = None


@dataclass(frozen=True)
class BadItem:
    """An item that cannot be predicted, and why."""

    source: str
    problem: str

    def __str__(self) -> str:
        return f"{self.source}: {self.problem}"


@dataclass(frozen=True)
class Format:
    """An output format: text before all records, of each record, and after them."""

    render: Callable[[Record], str]
    header: str = ""
    footer: str = ""


class InputSpec(NamedTuple):
    """One argument of `forward`: its name, type, and sizes; "batch" and "length" are sizes that vary."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]


class InputPipeline(Protocol):
    """Reads one kind of input for a model and turns the model's outputs into records; needs neither the data nor its config."""

    @property
    def kind(self) -> str: ...  # of the items, in words: "images"
    @property
    def labels(self) -> tuple[str, ...]: ...  # names of the model's outputs; empty where they have none
    @property
    def suffixes(self) -> tuple[str, ...]: ...  # of the files of a directory that are read, in lower case; empty: all
    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...  # of `forward`
    @property
    def formats(self) -> Mapping[str, Format]: ...  # besides JSON lines, CSV and tables

    def read(self, source: Any, name: str) -> Iterator[Item | BadItem]:
        """Yields the items of a source: a path, the bytes of a file, or an object of this kind (PIL image, text, array).

        Args:
            source: what is read. What cannot be read is yielded as a BadItem; no error is raised.
            name: of the source, for records and messages.
        """
        ...

    def length(self, row: Any) -> int:
        """Returns the length of a row; rows of similar length share a batch."""
        ...

    def collate(self, rows: Sequence[Any]) -> tuple[Tensor, ...]:
        """Returns the rows as the arguments of `forward`, on the CPU, as `inputs` describes them."""
        ...

    def record(self, item: Item, outputs: Sequence[Any], *, top_k: int | None) -> Record:
        """Returns the record of an item from the model's outputs for its rows.

        Args:
            item: that was read.
            outputs: for each of its rows, the row of the model's output: of a tensor (B, ...) a tensor (...).
            top_k: most probable labels that are listed; None is the pipeline's default.
        """
        ...

    def table_rows(self, record: Record) -> list[Record]:
        """Returns a record as rows of a table: the same keys in every row of every record."""
        ...


def pipeline_for(module: Any, data_info: DataInfo | None) -> InputPipeline:
    """Returns the pipeline of a trained LightningModule; the module's own offer comes before that of its data info."""
    for owner in (module, data_info):
        offered: Callable[[], InputPipeline] | None = getattr(owner, "input_pipeline", None)
        if offered is not None:
            return offered()
    from arclight.inference.tensors import TensorPipeline

    return TensorPipeline(module)


def net_of(module: Any) -> Any:
    """Returns the module, or its net where the module has no `forward` of its own."""
    from lightning.pytorch.utilities.model_helpers import is_overridden

    return module if is_overridden("forward", module) else getattr(module, "net", module)


def read_items(pipeline: InputPipeline, sources: Iterable[Any]) -> Iterator[Item | BadItem]:
    """Yields the items of sources; paths may be directories, patterns with *, or - for standard input.

    Objects in memory are named by their number, counted from 1.
    """
    for number, source in enumerate(sources, 1):
        if not isinstance(source, Path):
            yield from pipeline.read(source, f"item {number}")
        elif str(source) == STDIN:
            yield from pipeline.read(source, "stdin")
        else:
            for path in expand(source, pipeline.suffixes):
                yield from pipeline.read(path, str(path))


def expand(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yields a file itself, the files in a directory that have one of the suffixes, or those that match a pattern, by name."""
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        yield from sorted(file for file in found if not suffixes or file.suffix.lower() in suffixes)
    elif not path.exists() and (matches := matching(path)):
        yield from matches
    else:
        yield path


def matching(pattern: Path) -> list[Path]:
    """Returns the files that match a pattern such as photos/**/*.png, by name."""
    first = next((number for number, part in enumerate(pattern.parts) if re.search(r"[*?\[]", part)), None)
    if first is None:
        return []
    found = Path(*pattern.parts[:first]).glob(str(Path(*pattern.parts[first:])))
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def read_bytes(source: Path | bytes, limit: int) -> bytes:
    """Returns the content of a file, of standard input, or bytes; raises ValueError for none or more than the limit."""
    if isinstance(source, bytes):
        content = source
    elif str(source) == STDIN:
        content = sys.stdin.buffer.read(limit + 1)
    else:
        if not source.is_file():
            raise ValueError("no such file" if not source.exists() else "not a file")
        with source.open("rb") as file:
            content = file.read(limit + 1)
    if not content:
        raise ValueError("is empty (0 bytes)")
    if len(content) > limit:
        raise ValueError(f"has more than {limit / 1e6:,.0f} MB")
    return content
