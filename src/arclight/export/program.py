"""`Program`: a trained net with pre- and post-processing, tensors in and tensors out, from which every format is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.inference.pipeline import net_of
from arclight.interfaces import DataInfo, example_inputs

Tensors = tuple[Tensor, ...]
Call = Callable[[Tensors], Tensors]  # tensors in, tensors out: the net, or a session of an exported file
BATCH = "batch"  # name of the first axis of every input and output


@dataclass(frozen=True)
class Program:
    """A trained net as tensors in, tensors out.

    Attributes:
        net: in eval mode; takes the inputs in order and returns a tensor, or several in a tuple, list or mapping.
        examples: inputs by name, each with at least 2 rows.
        axes: name of each axis of an input that may have any size.
        outputs: names; where there are labels, the first output is their logits (..., labels).
        labels: of the last axis of the first output; empty where the net does not classify.
        counted: which labels of these inputs there are, bool (...); None: all of them.
        largest: largest size of an axis by name.
        inputs_of: inputs of a batch of the data.
        forward_with: what the LightningModule's `forward` is in terms of a call that runs the program.
        example: Python lines that run the file with `session`, an onnxruntime session, and `metadata`; json, sys, np and
            onnxruntime are imported; other imports stand first, each as `from PACKAGE import NAME`.
        extra: plain values for the metadata; `task` is the hub's name of what the model does.
        save_as_hugging_face: writes weights, config and preprocessing of a model of transformers into a directory, and returns
            what computes the first output from the inputs with the model that is loaded from there.
    """

    net: nn.Module
    examples: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    inputs_of: Callable[[Any], Tensors]
    forward_with: Callable[[Call], Callable[..., Any]]
    example: str
    labels: tuple[str, ...] = ()
    counted: Callable[[Tensors], Tensor] | None = None
    largest: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    save_as_hugging_face: Callable[[Any], Call] | None = None

    def __call__(self, inputs: Tensors) -> Tensors:
        """Returns the outputs of the net as they are before export."""
        with torch.inference_mode():
            return flatten(self.net(*inputs))


def flatten(outputs: Any) -> Tensors:
    """Returns the tensors that a net returned, by itself or in nested tuples, lists and mappings."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    values = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return tuple(tensor for value in values for tensor in flatten(value))


def program_of(module: LightningModule, data_info: DataInfo | None, batch: Any = None) -> Program:
    """Returns the program of a module: that of its data info, or its `forward` on `example_input_array` or a batch.

    Raises:
        InputError: where nothing says what the module takes.
    """
    offered: Callable[[LightningModule], Program] | None = getattr(data_info, "export_program", None)
    if offered is not None:
        return offered(module)
    given = getattr(module, "example_input_array", None)
    if given is None and batch is not None:
        given = example_inputs(batch)
    if given is None:
        raise InputError(
            f"{type(module).__name__} does not say which tensors its forward takes, and its data cannot be loaded; set "
            "self.example_input_array = torch.zeros(1, ...) in its constructor"
        )
    return tensor_program(module, given)


def tensor_program(module: LightningModule, given: Any) -> Program:
    """Returns the program of any module from what its `forward` takes: a tensor, several, or a mapping by parameter.

    The first axis of every input is the batch.
    """
    net = net_of(module)
    names = [name for name in inspect.signature(net.forward).parameters if name not in ("args", "kwargs")]
    tensors = dict(given) if isinstance(given, Mapping) else dict(zip_names(names, flatten(given)))
    if not tensors or not all(isinstance(value, Tensor) and value.dim() for value in tensors.values()):
        raise InputError(f"{type(module).__name__}.example_input_array must be tensors whose first axis is the batch")
    examples = {name: at_least_two(value.detach().cpu()) for name, value in tensors.items()}
    ordered = {name: examples[name] for name in [*names, *examples] if name in examples}
    with torch.inference_mode():
        outputs = net(*ordered.values())
    keys = outputs.keys() if isinstance(outputs, Mapping) else ()
    count = len(flatten(outputs))
    named = tuple(map(str, keys)) if len(keys) == count else tuple(f"output_{number}" for number in range(count))
    shapes = {name: f"({', '.join([BATCH, *map(str, value.shape[1:])])})" for name, value in ordered.items()}
    lines = [f'"{name}": np.zeros({(1, *value.shape[1:])}, "{dtype_name(value)}"),' for name, value in ordered.items()]
    return Program(
        net=net,
        examples=ordered,
        axes={name: {0: BATCH} for name in ordered},
        outputs=("output",) if count == 1 and not keys else named,
        inputs_of=lambda batch: flatten(example_inputs(batch))[: len(ordered)],
        forward_with=lambda run: lambda *inputs: repack(run(inputs), outputs),
        example="\n".join(["inputs = {", *(f"    {line}" for line in lines), "}", PRINT_ALL]),
        extra={"inputs": shapes},
    )


PRINT_ALL = "for output, values in zip(session.get_outputs(), session.run(None, inputs)):\n    print(output.name, values)"


@contextmanager
def replaced_forward(module: LightningModule, forward: Callable[..., Any]) -> Iterator[None]:
    """Context manager in which the module computes with `forward` in place of the net that was exported."""
    net = net_of(module)
    owners = [(net, "forward"), *([(module, "predict_forward")] if hasattr(module, "predict_forward") else [])]
    for owner, name in owners:
        setattr(owner, name, forward)
    try:
        yield
    finally:
        for owner, name in owners:
            delattr(owner, name)


def zip_names(names: Sequence[str], tensors: Tensors) -> list[tuple[str, Tensor]]:
    """Returns tensors with the names of the parameters that take them; names are made up for those of `*args`."""
    padded = [*names, *(f"input_{number}" for number in range(len(names), len(tensors)))]
    return list(zip(padded, tensors, strict=False))


def at_least_two(tensor: Tensor) -> Tensor:
    """Returns a tensor with at least 2 rows: torch.export takes an axis of size 1 as one that never changes."""
    return torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor


def repack(tensors: Tensors, like: Any) -> Any:
    """Returns tensors as the net returns them: one by itself, others in the order of its tuple or mapping."""
    if isinstance(like, Tensor):
        return tensors[0]
    return dict(zip(like, tensors, strict=True)) if isinstance(like, Mapping) else tensors


def dtype_name(tensor: Tensor) -> str:
    """Returns NumPy's name of the tensor's type, such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")
