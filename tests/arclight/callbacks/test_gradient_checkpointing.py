"""Nets that offer gradient checkpointing keep their losses and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from arclight.callbacks.gradient_checkpointing import GradientCheckpointing, enable_checkpointing
from arclight.errors import InputError


class Block(nn.Module):
    """Counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.5))
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs: Tensor = self.layers(inputs)
        return outputs


class TimmNet(nn.Module):
    """Offers checkpointing as the nets of timm do."""

    def __init__(self, is_supported: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.is_supported, self.is_enabled = is_supported, False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        assert self.is_supported, "gradient checkpointing not supported"
        self.is_enabled = enable

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = checkpoint(block, inputs, use_reentrant=False) if self.is_enabled else block(inputs)
        return inputs


class Module(LightningModule):
    """A LightningModule of any origin, with a net and a head."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(8, 2)


def gradients(net: nn.Module, *inputs: Any, **named: Any) -> list[Tensor]:
    """Returns the loss and the gradients of a training step; the same seed draws the same dropout."""
    net.train()
    torch.manual_seed(1)
    outputs = net(*inputs, **named)
    loss = (getattr(outputs, "last_hidden_state", outputs) ** 2).mean()
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in net.parameters() if parameter.grad is not None)]


def pairs(make: Any) -> list[nn.Module]:
    """Returns two nets with the same weights, the second with checkpointing turned on by the callback."""
    nets = []
    for number in range(2):
        torch.manual_seed(0)
        module = Module(make())
        if number:
            GradientCheckpointing().setup(Trainer(logger=False, accelerator="cpu", enable_checkpointing=False), module, "test")
            assert not getattr(module.net, "is_enabled", False), "a test needs no gradients"
            GradientCheckpointing().setup(Trainer(logger=False, accelerator="cpu", enable_checkpointing=False), module, "fit")
        nets.append(module.net)
    return nets


def test_a_net_of_timm_has_the_same_gradients_and_is_computed_twice() -> None:
    plain, saving = pairs(TimmNet)
    inputs = torch.randn(5, 8)
    for expected, found in zip(gradients(plain, inputs), gradients(saving, inputs), strict=True):
        assert torch.equal(expected, found)
    assert [[block.calls for block in net.blocks] for net in (plain, saving)] == [[1] * 3, [2] * 3]  # type: ignore[union-attr]


def test_a_net_of_transformers_has_the_same_gradients() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        **{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 8},
        **{"patch_size": 4, "hidden_dropout_prob": 0.2},
    )
    plain, saving = pairs(lambda: ViTModel(config, add_pooling_layer=False))
    is_on = [any(getattr(layer, "gradient_checkpointing", False) for layer in net.modules()) for net in (plain, saving)]
    assert is_on == [False, True]
    images = torch.randn(3, 3, 8, 8)
    for expected, found in zip(gradients(plain, images), gradients(saving, images), strict=True):
        assert torch.equal(expected, found)


def test_a_net_that_offers_none_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no net in Module has a method activation_checkpointing_enable or .*max_batch"):
        enable_checkpointing(Module(nn.Linear(8, 8)))
    with pytest.raises(InputError, match=r"TimmNet does not support it \(gradient checkpointing not supported\)") as caught:
        enable_checkpointing(Module(TimmNet(is_supported=False)))
    assert caught.value.key == "callbacks.gradient_checkpointing"
