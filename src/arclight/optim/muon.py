"""Muon for convolutional nets: the update of each filter bank is made orthogonal; all else learns by plain SGD."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from arclight.errors import InputError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0, so that few rounds lift even small singular values to near 1
EPSILON = 1e-7


class Muon(Optimizer):
    """Momentum made orthogonal for filters (3 or more dimensions), SGD with Nesterov's momentum for everything else.

    A filter bank (out, in, h, w) counts as a matrix of `out` rows. Its update has singular values near 1 in place of the
    gradient's, so every direction of the bank learns equally fast, whatever the loss's scale is. One object for both, because
    Lightning steps one optimizer by itself.

    Args:
        params: parameters, or groups of them with an `lr` and `weight_decay` of their own.
        lr: of the filters; one step moves each bank by about lr in every direction.
        momentum: of the filters, 0 to below 1.
        weight_decay: of the filters: each step shrinks them by lr * weight_decay. Not with `normalize`, which undoes it.
        normalize: brings each bank to the norm sqrt(out) before every step. For filters followed by a normalisation, whose
            scale acts on nothing but the pace of learning.
        ns_steps: of the iteration that makes updates orthogonal; 3 do for training, 5 come closer.
        sgd_lr: of everything else. A group whose `lr` differs from that above has it multiplied alike.
        sgd_momentum: of everything else, 0 to below 1.
        sgd_weight_decay: of everything else, added to the gradient; not on norms and biases.

    Raises:
        InputError: when a setting is out of its range, `normalize` meets a weight decay, or weights are spread over processes.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/,
        and airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench. What differs: banks of one shape go through
        the iteration together (as in https://github.com/hiverge/cifar10-speedrun), in float32 where there is no GPU.
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
        for name, value in {
            "lr": lr,
            "weight_decay": weight_decay,
            "sgd_lr": sgd_lr,
            "sgd_weight_decay": sgd_weight_decay,
        }.items():
            if not 0 <= value < float("inf"):
                raise InputError(f"optimizer.{name}={value} must be a finite number of 0 or more")
        for name, value in {"momentum": momentum, "sgd_momentum": sgd_momentum}.items():
            if not 0 <= value < 1:
                raise InputError(f"optimizer.{name}={value} must be 0 or more and below 1")
        if ns_steps < 1:
            raise InputError(f"optimizer.ns_steps={ns_steps} must be 1 or more")
        if normalize and weight_decay:
            raise InputError(
                f"optimizer.weight_decay={weight_decay} has no effect with optimizer.normalize=true, which sets the norm of "
                "each filter bank anew; leave one of the two out"
            )
        groups: list[dict[str, Any]] = []
        for parameters, factor in by_factor(params, lr):
            rest = {"lr": sgd_lr * factor, "momentum": sgd_momentum, "orthogonal": False}
            filters = {"lr": lr * factor, "momentum": momentum, "weight_decay": weight_decay, "orthogonal": True}
            groups += [
                {"params": [one for one in parameters if one.ndim < 2], **rest, "weight_decay": 0.0},
                {"params": [one for one in parameters if one.ndim == 2], **rest, "weight_decay": sgd_weight_decay},
                {"params": [one for one in parameters if one.ndim > 2], **filters},
            ]
        super().__init__([group for group in groups if group["params"]], {"normalize": normalize, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; the closure's value."""
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
        """Gradients with Nesterov's momentum; the states hold the running sums."""
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
    """Matrices (N, rows, columns) with the same singular vectors and all singular values near 1.

    A polynomial of odd powers, applied `ns_steps` times, moves every singular value into about 0.7 to 1.2; from where the
    largest is 1 and the smallest a hundredth, five rounds do that.

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


def by_factor(params: Iterable[Any], lr: float) -> list[tuple[list[Tensor], float]]:
    """Parameters, and what the learning rate of their group is to `lr`; groups of one factor become one.

    Raises:
        InputError: when weights are spread over processes.
    """
    given = list(params)
    groups: list[dict[str, Any]] = given if given and isinstance(given[0], dict) else [{"params": given}]
    parameters: dict[float, list[Tensor]] = {}
    for group in groups:
        factor = group.get("lr", lr) / lr if lr else 1.0
        parameters.setdefault(factor, []).extend(group["params"])
    if any(isinstance(one, DTensor) for some in parameters.values() for one in some):
        raise InputError(
            "optimizer=muon wants whole filters on every process, and strategy=fsdp spreads them; take strategy=ddp, or "
            "optimizer=sgd"
        )
    return [(some, factor) for factor, some in parameters.items()]
