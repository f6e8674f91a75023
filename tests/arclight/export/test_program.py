"""What is exported of a plain LightningModule, and what it says when it cannot be."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.export.program import flatten, program_of, replaced_forward
from tests.arclight.export.modules import Gan, TableRegression


def test_tensors_by_name_with_two_rows() -> None:
    program = program_of(TableRegression(), None)
    assert {name: tuple(value.shape) for name, value in program.examples.items()} == {"numbers": (2, 3), "kinds": (2,)}
    assert program.outputs == ("mean", "spread")
    assert program.extra["inputs"] == {"numbers": "(batch, 3)", "kinds": "(batch)"}
    assert program_of(Gan(), None).outputs == ("output",)


def test_a_module_without_forward_is_its_net() -> None:
    class OnlyNet(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 1)

    module, batch = OnlyNet(), (torch.ones(3, 2), torch.ones(3))
    program = program_of(module, None, batch)
    assert program.net is module.net
    assert program.inputs_of(batch)[0] is batch[0]
    with replaced_forward(module, program.forward_with(lambda inputs: (inputs[0].sum(1) + 40,))):
        assert module.net(batch[0]).tolist() == [42, 42, 42]
    assert module.net(batch[0]).shape == (3, 1)


def test_what_prediction_calls_is_replaced_too() -> None:
    class Views(Gan):
        def predict_forward(self, noise: Tensor) -> Tensor:
            return self(noise) * 0

    module = Views()
    with replaced_forward(module, lambda noise: noise + 1):
        assert module.predict_forward(torch.zeros(1)) == module(torch.zeros(1)) == 1
    assert module.predict_forward(torch.zeros(1, 8)).abs().sum() == 0


def test_nothing_says_what_it_takes() -> None:
    module = Gan()
    module.example_input_array = None
    with pytest.raises(InputError, match=r"set self.example_input_array = torch.zeros\(1, ...\)"):
        program_of(module, None)
    module.example_input_array = torch.tensor(1.0)
    with pytest.raises(InputError, match="must be tensors whose first axis is the batch"):
        program_of(module, None)


def test_nested_outputs_are_flattened() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert [float(value) for value in flatten({"a": one, "b": [two, (one,)], "c": None})] == [0, 1, 0]
