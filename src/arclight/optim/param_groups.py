"""Builds parameter groups and the optimizer over them."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any, Literal

from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import SGD, Optimizer

from arclight.errors import InputError
from arclight.interfaces import Monitor, monitor_of
from arclight.optim.schedulers import Scheduler, count_steps, scheduler_config

LrRule = Literal["none", "linear", "sqrt"]
LARGEST_RATE = 3.4e38  # in float32
MakeOptimizer = functools.partial[Optimizer]  # called with the parameter groups


def parameter_groups(net: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Returns groups for an optimizer: no decay on norms and biases, and a smaller learning rate the deeper a layer lies.

    A parameter with fewer than two dimensions is a norm's or a bias and is not decayed. With `layer_decay` d, a layer that has
    k layers above it learns with lr * d**k; the net offers `depth(parameter name)` and `num_layers`.

    Raises:
        InputError: when `layer_decay` is outside 0..1, or not 1 for a net without numbered layers.

    Source: layer-wise decay as in Clark et al. 2020, ELECTRA, appendix B.
    """
    check_layer_decay(layer_decay, type(net))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            above = 0 if layer_decay == 1 else net.num_layers + 1 - net.depth(name)  # type: ignore[operator]
            key = (lr * layer_decay**above, weight_decay if parameter.ndim >= 2 else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": group_lr, "weight_decay": group_decay}
        for (group_lr, group_decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def check_layer_decay(layer_decay: float, net: Any) -> None:
    """Raises InputError for a decay outside 0..1, or not 1 for a class of nets without numbered layers."""
    if not 0 < layer_decay <= 1:
        raise InputError(
            f"module.layer_decay={layer_decay} must be above 0 and at most 1 (1: all layers alike)", key="module.layer_decay"
        )
    if layer_decay != 1 and not hasattr(net, "depth"):
        raise InputError(
            f"module.layer_decay={layer_decay} needs a net with numbered layers; {net.__name__} has none",
            key="module.layer_decay",
        )


def lr_factor(rule: LrRule, batch_size: int, lr_batch_size: int | None) -> float:
    """Returns the factor on a learning rate that was chosen for batches of `lr_batch_size`, for batches of `batch_size`.

    Rule "none" is 1, "linear" the quotient of the two, "sqrt" its root. Both are global batch sizes: the number of devices does
    not change them, so it may not change the learning rate either. Warm-up is left to the scheduler.

    Raises:
        InputError: when `lr_batch_size` is missing or below 1.

    Source: linear as in Goyal et al. 2017, Accurate, Large Minibatch SGD; root as in Krizhevsky 2014, One weird trick.
    """
    meaning = "the global batch size that optimizer.lr was chosen for"
    if lr_batch_size is not None and lr_batch_size < 1:
        raise InputError(f"module.lr_batch_size={lr_batch_size} must be 1 or more: {meaning}", key="module.lr_batch_size")
    if rule == "none":
        return 1.0
    if lr_batch_size is None:
        raise InputError(f"module.lr_rule={rule} needs module.lr_batch_size: {meaning}", key="module.lr_rule")
    quotient = batch_size / lr_batch_size
    return math.sqrt(quotient) if rule == "sqrt" else quotient


def read_rates(make_optimizer: MakeOptimizer) -> tuple[float, float]:
    """Returns the learning rate and the weight decay of the config, or else the optimizer's defaults.

    Raises:
        InputError: when one is negative, or not finite in float32.
    """
    defaults = inspect.signature(make_optimizer.func).parameters
    rates = {key: make_optimizer.keywords.get(key, defaults[key].default) for key in ("lr", "weight_decay")}
    for key, value in rates.items():
        if not 0 <= value <= LARGEST_RATE:
            message = f"optimizer.{key}={value} must be a finite number of 0 or more, in the range of float32"
            raise InputError(message, key=f"optimizer.{key}")
    return rates["lr"], rates["weight_decay"]


def can_fuse(make_optimizer: MakeOptimizer, net: nn.Module) -> bool:
    """Returns whether one kernel can do the whole update.

    On CPUs, that of torch 2.13 for SGD with momentum reads memory that was never written where weights have 16 bits.
    """
    if "fused" not in inspect.signature(make_optimizer.func).parameters:
        return False
    has_short_weights = any(weight.element_size() < 4 and weight.device.type == "cpu" for weight in net.parameters())
    return not (has_short_weights and make_optimizer.func is SGD)


def configure(
    module: LightningModule,
    net: nn.Module,
    make_optimizer: MakeOptimizer,
    scheduler: Scheduler,
    *,
    layer_decay: float = 1.0,
    factor: float = 1.0,
) -> Any:
    """Returns what `configure_optimizers` returns: optimizer and scheduler; `factor` multiplies every group's learning rate.

    Raises:
        InputError: when learning rate or weight decay is negative or not finite.
    """
    lr, weight_decay = read_rates(make_optimizer)
    groups = parameter_groups(net, lr=lr * factor, weight_decay=weight_decay, layer_decay=layer_decay)
    # not under fp16, whose scaler Lightning cannot combine with clipping and a fused update
    takes_fused = module.trainer.precision != "16-mixed" and can_fuse(make_optimizer, net)
    optimizer = make_optimizer(groups, **({"fused": True, **make_optimizer.keywords} if takes_fused else {}))
    steps, epochs = count_steps(module.trainer, module.trainer.datamodule.steps_per_epoch)  # type: ignore[attr-defined]
    entry = scheduler_config(
        scheduler, optimizer, total_steps=steps, total_epochs=epochs, monitor=monitor_of(module) or Monitor("val/loss", "min")
    )
    return {"optimizer": optimizer, "lr_scheduler": entry}
