"""Errors and surprises of a user's loaders, in messages that name the data and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import BatchSampler, DataLoader

from arclight.errors import InputError, first_line
from arclight.interfaces import lengths

# What torch's default_collate says of samples that it cannot stack; the last one in a worker
UNEQUAL = (
    "stack expects each tensor to be equal size",
    "each element in list of batch should be of equal size",
    "Trying to resize storage that is not resizable",
)
UNKNOWN_TYPE = "default_collate: batch must contain"
DEAD = ("exited unexpectedly", "is killed by signal")  # of the workers that torch watches
NO_MEMORY = ("out of shared memory", "unable to write to file", "Bus error", "unable to allocate shared memory")


@contextmanager
def explain_loader_errors(loader: Any) -> Iterator[None]:
    """Context manager that turns errors of fetching a batch that users meet often into an InputError; others pass.

    Raises:
        InputError: for samples that cannot be stacked into a batch, and for workers that died.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        text = str(error)
        dataset = type(getattr(loader, "dataset", loader)).__name__
        collate = "give its DataLoader a collate_fn (with data=datasets: data.collate_fn)"
        if found := line_with(text, UNEQUAL):
            message = f"data: samples of {dataset} differ in shape: {found}; {collate} that pads them, or resize them"
        elif found := line_with(text, (UNKNOWN_TYPE,)):
            message = f"data: samples of {dataset} form no batch: {found}; return tensors, or {collate} that makes them"
        elif line_with(text, NO_MEMORY):
            message = (
                f"data: a DataLoader worker ran out of shared memory while it read {dataset}: {first_line(error)}; "
                "enlarge /dev/shm (docker run --shm-size=8g), or set num_workers=0 or fewer workers"
            )
        elif found := line_with(text, DEAD):
            message = (
                f"data: a DataLoader worker died while it read {dataset}: {found}; set num_workers=0 to see its error, "
                "and look for memory that ran out (dmesg)"
            )
        else:
            raise
        raise InputError(message, key="data") from error


def line_with(text: str, parts: tuple[str, ...]) -> str:
    """Returns the last line that contains one of the parts, without the class of the error; empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if any(part.lower() in line.lower() for part in parts)]
    return lines[-1].removeprefix("RuntimeError: ").removeprefix("TypeError: ") if lines else ""


def check_batch(batch: Any, loader: Any, number: int) -> None:
    """Raises InputError for a batch without samples, whose mean loss would be nan."""
    if any(lengths(batch)):
        return
    has_tensors = next(lengths(batch), None) is not None
    if batch is None or has_tensors or (isinstance(batch, Mapping | list | tuple) and not batch):
        made = "is None" if batch is None else "has no samples"
        dataset = type(getattr(loader, "dataset", loader)).__name__
        raise InputError(
            f"data: batch {number} of {dataset} {made}; leave such batches out in the loader or collate_fn",
            key="data",
        )


def check_length(dataset: Any, before: int, now: int) -> None:
    """Raises InputError when a data set has another length than in the first epoch: its order could not be resumed."""
    if before != now:
        raise InputError(
            f"data: {type(dataset).__name__} has {now:,} samples now and had {before:,} when training started; "
            "keep its length, set +trainer.reload_dataloaders_every_n_epochs=1, or make it an IterableDataset",
            key="data",
        )


def unused_batch_size(loader: DataLoader[Any], requested: int, world_size: int, accumulation_steps: int) -> str:
    """Returns a warning where the batches of a loader are not those that `data.batch_size` asks for; empty where they are."""
    makes_batches = type(loader.batch_sampler) is BatchSampler
    size = loader.batch_size if makes_batches else getattr(loader.batch_sampler, "batch_size", None)
    if size in {requested, requested // world_size, requested // (world_size * accumulation_steps)}:  # divided by the user
        return ""
    if makes_batches:
        return (
            f"data.batch_size={requested} counts, not batch_size={size} of the training DataLoader: a step of this run takes "
            f"{requested} samples. Let the data module use its batch_size, or set data.batch_size={size}"
        )
    source = (
        f"the loader's own {type(loader.batch_sampler).__name__}" if loader.batch_sampler is not None else "the data set itself"
    )
    return (
        f"data.batch_size={requested} has no effect in arclight: the training batches come from {source}, whatever their size"
    )
