"""Parameter groups and the optimizer over them."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from arclight.errors import InputError
from arclight.training.schedules import count_steps

# A callable that still wants the parameters, and one that still wants (step, total_steps)
MakeOptimizer = functools.partial[Optimizer]
Schedule = Callable[[int, int], float]


def parameter_groups(net: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimizer: no decay on norms and biases, and a smaller learning rate the deeper a layer lies.

    A parameter with fewer than two dimensions is a norm's or a bias and is not decayed. With `layer_decay` d, a layer that has
    k layers above it learns with lr * d**k; the net tells its layers by `depth(parameter name)` and `num_layers`.

    Raises:
        InputError: when `layer_decay` is outside 0..1, or not 1 for a net that does not tell its layers.

    Source: layer-wise decay as in Clark et al. 2020, ELECTRA, appendix B.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"task.layer_decay={layer_decay} must lie above 0 and at most be 1 (1: all layers alike)")
    depth = getattr(net, "depth", None)
    if layer_decay != 1 and depth is None:
        raise InputError(f"task.layer_decay={layer_decay} wants a net with numbered layers; {type(net).__name__} has none")
    num_layers = getattr(net, "num_layers", 0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            above = 0 if depth is None or layer_decay == 1 else num_layers + 1 - depth(name)
            key = (lr * layer_decay**above, weight_decay if parameter.ndim >= 2 else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": group_lr, "weight_decay": group_decay}
        for (group_lr, group_decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def configure(
    module: LightningModule, net: nn.Module, make_optimizer: MakeOptimizer, schedule: Schedule, *, layer_decay: float = 1.0
) -> Any:
    """What a LightningModule's `configure_optimizers` returns: the optimizer, its schedule counted in optimizer steps.

    Raises:
        InputError: for a learning rate or weight decay that is no finite number of 0 or more.
    """
    settings = make_optimizer.keywords
    defaults = inspect.signature(make_optimizer.func).parameters
    lr, weight_decay = (settings.get(key, defaults[key].default) for key in ("lr", "weight_decay"))
    for key, value in (("lr", lr), ("weight_decay", weight_decay)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"optimizer.{key}={value} must be a finite number of 0 or more")
    given: dict[str, Any] = {}
    # one kernel for the whole update; not under fp16, whose scaler Lightning cannot combine with clipping and a fused update
    if "fused" in defaults and "fused" not in settings and module.trainer.precision != "16-mixed":
        given["fused"] = True
    groups = parameter_groups(net, lr=lr, weight_decay=weight_decay, layer_decay=layer_decay)
    optimizer = make_optimizer(groups, **given)
    total_steps = count_steps(module.trainer, module.trainer.datamodule.steps_per_epoch)  # type: ignore[attr-defined]
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
