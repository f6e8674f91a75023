"""Switches stand only where they are meant to, and a setting is named by what differs from the plain one."""

from __future__ import annotations

import pytest
import torch

from arclight.benchmark.training_step import Backend, applied, autocast


def switches() -> tuple[str, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32


@pytest.mark.parametrize(
    ("backend", "inside"),
    [
        (Backend(), ("highest", True, False, False)),
        (Backend(precision="tf32"), ("high", True, False, True)),
        (Backend(precision="bf16", cudnn_benchmark=True), ("highest", True, True, False)),
        (Backend(cudnn=False), ("highest", False, False, False)),
    ],
)
def test_switches_stand_inside_only(backend: Backend, inside: tuple[str, bool, bool, bool]) -> None:
    before = switches()
    with applied(backend):
        assert switches() == inside
    assert switches() == before


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_have_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(Backend(precision=precision), torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_names() -> None:
    assert Backend().name == "plain"
    assert Backend(cudnn=False).name == "cudnn off"
    assert Backend(precision="bf16", channels_last=True, compile=True).name == "bf16 + channels last + compile"
