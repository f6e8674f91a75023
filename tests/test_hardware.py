"""The plan for machines that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.hardware import Facts, Gpu, accumulation, count_devices, plan, probe, usable_cores

GIB = 2**30
CPU = Facts(num_cores=2, memory_bytes=24 * GIB)
CPU_BF16 = Facts(num_cores=16, memory_bytes=64 * GIB, has_fast_bf16_cpu=True)
MAC = Facts(num_cores=8, memory_bytes=16 * GIB, has_mps=True)


def with_gpus(name: str, capability: tuple[int, int], number: int = 1) -> Facts:
    return Facts(num_cores=16, memory_bytes=128 * GIB, gpus=(Gpu(name, 16 * GIB, capability),) * number)


@pytest.mark.parametrize(
    ("facts", "wishes", "chosen"),
    [
        (CPU, {}, ("cpu", 1, "32-true", "auto")),
        (CPU, {"devices": 2}, ("cpu", 2, "32-true", "ddp")),
        (CPU, {"precision": "bf16-mixed"}, ("cpu", 1, "bf16-mixed", "auto")),
        (CPU, {"num_nodes": 2}, ("cpu", 1, "32-true", "ddp")),
        (CPU_BF16, {}, ("cpu", 1, "bf16-mixed", "auto")),
        (MAC, {}, ("mps", 1, "32-true", "auto")),
        (MAC, {"accelerator": "cpu"}, ("cpu", 1, "32-true", "auto")),
        (with_gpus("GTX 1080", (6, 1)), {}, ("cuda", 1, "32-true", "auto")),
        (with_gpus("V100", (7, 0), 4), {}, ("cuda", 4, "16-mixed", "ddp")),
        (with_gpus("T4", (7, 5)), {}, ("cuda", 1, "16-mixed", "auto")),
        (with_gpus("A100", (8, 0), 8), {}, ("cuda", 8, "bf16-mixed", "ddp")),
        (with_gpus("A100", (8, 0), 8), {"devices": [0, 3]}, ("cuda", [0, 3], "bf16-mixed", "ddp")),
        (with_gpus("H200", (9, 0)), {"devices": "1", "strategy": "ddp"}, ("cuda", "1", "bf16-mixed", "ddp")),
        (with_gpus("A100", (8, 0), 2), {"accelerator": "cpu"}, ("cpu", 1, "32-true", "auto")),
    ],
)
def test_the_plan(facts: Facts, wishes: dict[str, Any], chosen: tuple[Any, ...]) -> None:
    choices = plan(facts, wishes)
    assert tuple(choices[key].value for key in ("accelerator", "devices", "precision", "strategy")) == chosen
    assert all(choice.reason for choice in choices.values())
    assert {key for key, choice in choices.items() if choice.is_wish} == set(wishes) & set(choices)


@pytest.mark.parametrize(
    ("facts", "wishes", "told"),
    [
        (CPU, {"accelerator": "gpu"}, "trainer.accelerator=gpu: this machine has no GPU"),
        (CPU, {"accelerator": "mps"}, "trainer.accelerator=mps: this machine has no Apple GPU"),
        (with_gpus("A100", (8, 0), 2), {"devices": 3}, "trainer.devices=3: this machine has 2 GPUs; take 1 to 2"),
        (CPU, {"devices": 0}, "trainer.devices=0 must be 1 or more, or auto"),
        (CPU, {"devices": "many"}, "trainer.devices=many is neither a number, a list of indices nor auto"),
    ],
)
def test_a_wish_that_cannot_be_had_is_told(facts: Facts, wishes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan(facts, wishes)


def test_devices_are_counted_in_each_of_lightnings_spellings() -> None:
    assert [count_devices(devices) for devices in (3, "3", [0, 2], "0,1,2", "0,")] == [3, 3, 2, 3, 1]


def test_this_machine_can_be_planned_for() -> None:
    facts = probe()
    assert facts.num_cores >= 1
    assert facts.memory_bytes > 0
    assert set(plan(facts, {})) == {"accelerator", "devices", "precision", "strategy"}


def test_a_containers_quota_limits_the_cores(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    free = usable_cores(tmp_path / "missing")
    for text, cores in (("max 100000", free), ("100000 100000", 1), ("50000 100000", 1), ("9900000 100000", free)):
        quota.write_text(text)
        assert usable_cores(quota) == cores


@pytest.mark.parametrize(
    ("batch_size", "world_size", "max_per_device", "parts"),
    [(64, 1, None, 1), (64, 8, None, 1), (64, 1, 16, 4), (64, 2, 16, 2), (60, 1, 16, 4), (7, 1, 3, 7), (64, 1, 100, 1)],
)
def test_the_batch_is_spread_evenly(batch_size: int, world_size: int, max_per_device: int | None, parts: int) -> None:
    assert accumulation(batch_size, world_size, max_per_device) == parts


def test_a_batch_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(
        InputError, match="data.batch_size=30 does not divide over 4 processes; the nearest that do are 28 or 32"
    ):
        accumulation(30, 4, None)
    with pytest.raises(InputError, match="the nearest that do are 4"):
        accumulation(2, 4, None)
