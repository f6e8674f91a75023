"""Muon for convolutional nets: orthogonalized updates for filter banks, plain SGD for all other parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from arclight.errors import InputError
from arclight.hardware.plan import is_sharded
from arclight.interfaces import PreflightContext

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0, so that few steps lift even small singular values to near 1
EPSILON = 1e-7


class Muon(Optimizer):
    """Orthogonalized momentum for filters (3 or more dimensions), SGD with Nesterov momentum for everything else.

    A filter bank (out, in, h, w) counts as a matrix of `out` rows. The singular values of its update are near 1 whatever those
    of the gradient are, so every direction of the bank learns equally fast, independent of the scale of the loss. One optimizer
    for both, because Lightning steps one optimizer by itself.

    Args:
        params: parameters, or groups of them with an `lr` and `weight_decay` of their own.
        lr: of the filters; one step moves each bank by about lr in every direction.
        momentum: of the filters, 0 to below 1.
        weight_decay: of the filters: each step shrinks them by lr * weight_decay. Not with `normalize`, which undoes it.
        normalize: scales each bank to the norm sqrt(out) before every step. For filters followed by a normalisation layer,
            where their scale changes only the effective learning rate.
        ns_steps: of the Newton-Schulz iteration; 3 are enough for training, 5 are more exact.
        sgd_lr: of everything else. A group whose `lr` differs from that above has it multiplied alike.
        sgd_momentum: of everything else, 0 to below 1.
        sgd_weight_decay: of everything else, added to the gradient; not on norms and biases.

    Raises:
        InputError: when a setting is out of range, `normalize` is combined with a weight decay, or weights are sharded.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/,
        and airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench. Different here: banks of one shape are
        iterated together (as in https://github.com/hiverge/cifar10-speedrun), and in float32 on CPUs.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.24,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        *,
        normalize: bool = True,
        ns_steps: int = 3,
        sgd_lr: float = 1.0,
        sgd_momentum: float = 0.85,
        sgd_weight_decay: float = 0.0,
    ) -> None:
        rates = {"lr": lr, "weight_decay": weight_decay, "sgd_lr": sgd_lr, "sgd_weight_decay": sgd_weight_decay}
        momenta = {"momentum": momentum, "sgd_momentum": sgd_momentum}
        for name, value in {**rates, **momenta}.items():
            end, allowed = (1.0, "0 or more and below 1") if name in momenta else (math.inf, "a finite number of 0 or more")
            if not 0 <= value < end:
                raise InputError(f"optimizer.{name}={value} must be {allowed}", key=f"optimizer.{name}")
        if ns_steps < 1:
            raise InputError(f"optimizer.ns_steps={ns_steps} must be 1 or more", key="optimizer.ns_steps")
        if normalize and weight_decay:
            raise InputError(
                f"optimizer.weight_decay={weight_decay} has no effect with optimizer.normalize=true, which sets the norm of "
                "each filter bank before every step; leave one of the two out",
                key="optimizer.weight_decay",
            )
        groups: list[dict[str, Any]] = []
        for parameters, factor in group_by_factor(params, lr):
            sgd = {"lr": sgd_lr * factor, "momentum": sgd_momentum, "orthogonal": False}
            filters = {"lr": lr * factor, "momentum": momentum, "weight_decay": weight_decay, "orthogonal": True}
            groups += [
                {"params": [one for one in parameters if one.ndim < 2], **sgd, "weight_decay": 0.0},
                {"params": [one for one in parameters if one.ndim == 2], **sgd, "weight_decay": sgd_weight_decay},
                {"params": [one for one in parameters if one.ndim > 2], **filters},
            ]
        super().__init__([group for group in groups if group["params"]], {"normalize": normalize, "ns_steps": ns_steps})

    @classmethod
    def preflight(cls, settings: Mapping[str, Any], context: PreflightContext) -> Iterator[InputError]:
        """Yields an error where a strategy shards the filters that each update needs as a whole."""
        if "strategy" in context.decisions and is_sharded(context.decisions["strategy"].value):
            yield InputError(
                "optimizer=muon needs whole filters in every process, and strategy=fsdp shards them; take strategy=ddp, or "
                "optimizer=sgd",
                key="optimizer",
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; returns the value of the closure."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            decay = group["weight_decay"]
            if group["orthogonal"]:
                self._step_filters(parameters, self._directions(parameters, group["momentum"], 0.0), group)
            else:
                torch._foreach_add_(parameters, self._directions(parameters, group["momentum"], decay), alpha=-group["lr"])
        return value

    def _directions(self, parameters: list[Tensor], momentum: float, decay: float) -> list[Tensor]:
        """Returns gradients with Nesterov momentum; the optimizer's state holds the running sums."""
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]  # none is None
        if decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
        if not momentum:
            return gradients
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        sums = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, gradients)
        return list(torch._foreach_add(gradients, sums, alpha=momentum))

    def _step_filters(self, filters: list[Tensor], directions: list[Tensor], group: dict[str, Any]) -> None:
        if group["normalize"]:
            norms = torch._foreach_norm(filters)
            for bank, norm in zip(filters, norms, strict=True):
                bank.mul_(len(bank) ** 0.5 / (norm + EPSILON))
        elif group["weight_decay"]:
            torch._foreach_mul_(filters, 1 - group["lr"] * group["weight_decay"])
        pairs = sorted(zip(filters, directions, strict=True), key=lambda pair: tuple(pair[0].shape))
        for shape, same in itertools.groupby(pairs, key=lambda pair: pair[0].shape):
            banks, moves = zip(*same, strict=True)
            stacked = orthogonalize(torch.stack(moves).flatten(2), group["ns_steps"])  # (N, out, in * h * w)
            updates = list(stacked.view(-1, *shape).to(banks[0].dtype).unbind())
            torch._foreach_add_(list(banks), updates, alpha=-group["lr"])


def orthogonalize(matrices: Tensor, ns_steps: int) -> Tensor:
    """Returns matrices (N, rows, columns) with the same singular vectors and all singular values near 1.

    An odd polynomial, applied `ns_steps` times, moves every singular value into about 0.7 to 1.2; five steps are enough if the
    smallest is a hundredth of the largest.

    Source: Newton-Schulz iteration with the coefficients of Jordan et al. 2024 (see Muon).
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT  # the smaller of the two squares is the cheaper one
    x = x / (x.norm(dim=(1, 2), keepdim=True) + EPSILON)  # Frobenius: at least the largest singular value
    for _ in range(ns_steps):
        square = x @ x.mT  # (N, rows, rows)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def group_by_factor(params: Iterable[Any], lr: float) -> list[tuple[list[Tensor], float]]:
    """Returns parameters and the quotient of their group's learning rate and `lr`; groups with equal factors are merged.

    Raises:
        InputError: when weights are sharded.
    """
    given = list(params)
    groups: list[dict[str, Any]] = given if given and isinstance(given[0], dict) else [{"params": given}]
    parameters: dict[float, list[Tensor]] = {}
    for group in groups:
        factor = group.get("lr", lr) / lr if lr else 1.0
        parameters.setdefault(factor, []).extend(group["params"])
    if any(isinstance(one, DTensor) for some in parameters.values() for one in some):
        raise InputError(
            "optimizer=muon needs whole filters on every process, and strategy=fsdp shards them; use strategy=ddp or "
            "optimizer=sgd"
        )
    return [(some, factor) for factor, some in parameters.items()]
