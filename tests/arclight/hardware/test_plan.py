"""Plans for other machines (tests arclight.hardware.devices, arclight.hardware.precision and arclight.hardware.decision)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from arclight.distributed.environment import Launch
from arclight.errors import InputError
from arclight.hardware import Gpu, HardwareInfo, check_settings, count_devices, for_trainer, plan, probe

GIB = 2**30
CPU = HardwareInfo(num_cores=2, memory_bytes=24 * GIB, instruction_sets=("avx2",))
CPU_BF16 = HardwareInfo(
    num_cores=16, memory_bytes=64 * GIB, instruction_sets=("avx2", "avx512_bf16", "amx_bf16"), has_compiler=True
)
GRAVITON = HardwareInfo(num_cores=8, memory_bytes=16 * GIB, instruction_sets=("neon", "bf16", "sve_bf16"))
MAC = HardwareInfo(num_cores=8, memory_bytes=16 * GIB, system="Darwin", instruction_sets=("neon", "bf16"), has_mps=True)


def with_gpus(name: str, capability: tuple[int, int], number: int = 1, memory: int = 16, **hardware_info: Any) -> HardwareInfo:
    gpus = (Gpu(name, memory * GIB, capability),) * number
    links = tuple((first, second) for first in range(number) for second in range(first + 1, number))
    return HardwareInfo(**{"num_cores": 16, "memory_bytes": 128 * GIB, "gpus": gpus, "peer_links": links} | hardware_info)


GTX_1080 = with_gpus("GTX 1080", (6, 1), memory=8)
V100 = with_gpus("V100", (7, 0), 4)
T4 = with_gpus("T4", (7, 5))
RTX_3090 = with_gpus("RTX 3090", (8, 6), 2, memory=24, peer_links=())
A100 = with_gpus("A100", (8, 0), 8, memory=80, num_cores=128)
H100 = with_gpus("H100", (9, 0), memory=80, has_compiler=True, has_triton=True)
H200 = with_gpus("H200", (9, 0), memory=141)
MI300 = HardwareInfo(
    num_cores=96, memory_bytes=512 * GIB, gpus=(Gpu("MI300X", 192 * GIB, (9, 4), "gfx942"),) * 8, torch_build="rocm 7.0"
)
MIXED = replace(A100, gpus=(*A100.gpus[:1], *T4.gpus))
SLURM = replace(A100, launch=Launch("slurm", rank=9, local_rank=1, world_size=16, local_world_size=8, node_rank=1, num_nodes=2))
ONE_TASK_A_NODE = replace(A100, launch=Launch("slurm", rank=1, world_size=2, node_rank=1, num_nodes=2))
TORCHRUN = replace(
    CPU, launch=Launch("torchrun", 3, 1, world_size=4, local_world_size=2, node_rank=1, num_nodes=2), omp_num_threads=1
)
MPI = replace(CPU_BF16, launch=Launch("mpi", rank=2, local_rank=2, world_size=4, local_world_size=4))
CONTAINER = HardwareInfo(num_cores=3, memory_bytes=4 * GIB, instruction_sets=("avx2",), omp_num_threads=2)

# machine, requested -> accelerator, devices, num_nodes, precision, strategy, matmul_precision, channels_last, threads
MACHINES: dict[str, tuple[HardwareInfo, dict[str, Any], tuple[Any, ...]]] = {
    "laptop": (CPU, {}, ("cpu", 1, 1, "32-true", "auto", "highest", True, 2)),
    "laptop, two processes": (CPU, {"devices": 2}, ("cpu", 2, 1, "32-true", "ddp", "highest", True, 1)),
    "laptop, emulated bf16": (CPU, {"precision": "bf16-mixed"}, ("cpu", 1, 1, "bf16-mixed", "auto", "highest", True, 2)),
    "laptop, by hand on two nodes": (CPU, {"num_nodes": 2}, ("cpu", 1, 2, "32-true", "ddp", "highest", True, 2)),
    "CPU with AMX": (CPU_BF16, {}, ("cpu", 1, 1, "bf16-mixed", "auto", "highest", True, 16)),
    "Graviton": (GRAVITON, {}, ("cpu", 1, 1, "bf16-mixed", "auto", "highest", True, 8)),
    "Mac": (MAC, {}, ("mps", 1, 1, "32-true", "auto", "highest", False, 8)),
    "Mac on its CPU": (MAC, {"accelerator": "cpu"}, ("cpu", 1, 1, "32-true", "auto", "highest", True, 8)),
    "Mac by the name of GPU": (MAC, {"accelerator": "gpu"}, ("mps", 1, 1, "32-true", "auto", "highest", False, 8)),
    "GTX 1080": (GTX_1080, {}, ("cuda", 1, 1, "32-true", "auto", "highest", False, 16)),
    "V100 x 4": (V100, {}, ("cuda", 4, 1, "16-mixed", "ddp", "highest", True, 4)),
    "T4": (T4, {}, ("cuda", 1, 1, "16-mixed", "auto", "highest", True, 16)),
    "RTX 3090 x 2": (RTX_3090, {}, ("cuda", 2, 1, "bf16-mixed", "ddp", "high", True, 8)),
    "A100 x 8": (A100, {}, ("cuda", 8, 1, "bf16-mixed", "ddp", "high", True, 16)),
    "two of the A100": (A100, {"devices": [0, 3]}, ("cuda", [0, 3], 1, "bf16-mixed", "ddp", "high", True, 64)),
    "A100, fp32": (A100, {"devices": "1", "precision": 32}, ("cuda", "1", 1, 32, "auto", "highest", False, 128)),
    "A100, tf32": (
        A100,
        {"devices": 1, "precision": "32-true", "matmul_precision": "high"},
        ("cuda", 1, 1, "32-true", "auto", "high", True, 128),
    ),
    "A100 on its CPU": (A100, {"accelerator": "cpu"}, ("cpu", 1, 1, "32-true", "auto", "highest", True, 128)),
    "A100 beside T4": (MIXED, {}, ("cuda", 2, 1, "16-mixed", "ddp", "highest", True, 64)),
    "A100 alone of the two": (MIXED, {"devices": [0]}, ("cuda", [0], 1, "bf16-mixed", "auto", "high", True, 128)),
    "H100": (H100, {"devices": -1}, ("cuda", 1, 1, "bf16-mixed", "auto", "high", True, 16)),
    "H200, ddp": (H200, {"devices": "1", "strategy": "ddp"}, ("cuda", "1", 1, "bf16-mixed", "auto", "high", True, 16)),
    "MI300X x 8": (MI300, {}, ("cuda", 8, 1, "bf16-mixed", "ddp", "highest", False, 12)),
    "SLURM": (SLURM, {}, ("cuda", 8, 2, "bf16-mixed", "ddp", "high", True, 16)),
    "SLURM, set again": (SLURM, {"devices": 8, "num_nodes": 2}, ("cuda", 8, 2, "bf16-mixed", "ddp", "high", True, 16)),
    "SLURM, one task a node": (ONE_TASK_A_NODE, {"devices": 4}, ("cuda", 4, 2, "bf16-mixed", "ddp", "high", True, 32)),
    "torchrun": (TORCHRUN, {}, ("cpu", 2, 2, "32-true", "ddp", "highest", True, 1)),
    "MPI": (MPI, {}, ("cpu", 4, 1, "bf16-mixed", "ddp", "highest", True, 4)),
    "container": (CONTAINER, {}, ("cpu", 1, 1, "32-true", "auto", "highest", True, 2)),
}
KEYS = ("accelerator", "devices", "num_nodes", "precision", "strategy", "matmul_precision", "channels_last", "threads")


@pytest.mark.parametrize(("hardware_info", "requested", "chosen"), MACHINES.values(), ids=MACHINES)
def test_the_plan(hardware_info: HardwareInfo, requested: dict[str, Any], chosen: tuple[Any, ...]) -> None:
    decisions = plan(hardware_info, requested)
    assert tuple(decisions[key].value for key in KEYS) == chosen
    assert all(decision.reason for decision in decisions.values())
    left_open = {key for key, value in requested.items() if value == -1}
    by_environment = {"threads"} if hardware_info is CONTAINER else set()
    assert {key for key, decision in decisions.items() if decision.is_user_set} == set(requested) - left_open | by_environment
    assert set(for_trainer(decisions)) == {"accelerator", "devices", "num_nodes", "precision", "strategy"}


def test_auto_and_null_leave_the_choice_to_the_plan() -> None:
    silent = plan(A100, {})
    assert plan(A100, dict.fromkeys(silent, "auto")) == silent
    assert plan(A100, dict.fromkeys(silent)) == silent


def test_this_machine_can_be_planned_for() -> None:
    assert plan(probe({}), {})["devices"].value >= 1


@pytest.mark.parametrize(
    ("hardware_info", "num_parameters", "chosen"),
    [
        (A100, 110_000_000, ("ddp", "bf16-mixed")),
        (A100, 4_000_000_000, ("ddp", "bf16-mixed")),  # 64 GB of states, 80 % of 80 GiB are 68.7 GB
        (A100, 5_000_000_000, ("fsdp", "bf16-mixed")),
        (V100, 1_000_000_000, ("fsdp", "32-true")),  # fsdp has no gradient scaler
        (H200, 20_000_000_000, ("auto", "bf16-mixed")),  # no other process to shard over
        (CPU, 5_000_000_000, ("auto", "32-true")),
        (SLURM, 5_000_000_000, ("fsdp", "bf16-mixed")),
    ],
)
def test_a_net_too_large_for_a_gpu_is_sharded(
    hardware_info: HardwareInfo, num_parameters: int, chosen: tuple[str, str]
) -> None:
    decisions = plan(hardware_info, {}, num_parameters)
    assert (decisions["strategy"].value, decisions["precision"].value) == chosen


def test_reasons_name_what_decided() -> None:
    assert "the GPUs have no peer links" in plan(RTX_3090, {})["strategy"].reason
    assert "peer links" not in plan(A100, {})["strategy"].reason
    assert "2 x A100 and T4" in plan(MIXED, {})["accelerator"].reason
    assert "80 GB, over 80% of a GPU's memory: sharded over 8 processes" in plan(A100, {}, 5 * 10**9)["strategy"].reason
    assert "too much for this GPU: use several" in plan(H200, {}, 20 * 10**9)["strategy"].reason
    emulated = plan(CPU, {"precision": "bf16-true"})["precision"]
    assert emulated.reason == "set by user; this CPU has no bf16 instructions, without which bf16 is slower than fp32"
    assert "started by torchrun on this node" in plan(TORCHRUN, {})["devices"].reason


def test_strategies_pass_through() -> None:
    for strategy in ("fsdp", "deepspeed_stage_2", {"_target_": "lightning.pytorch.strategies.DDPStrategy"}):
        assert plan(CPU, {"devices": 2, "strategy": strategy})["strategy"].value == strategy
    assert plan(CPU, {"strategy": "fsdp"})["devices"].value == 1  # fsdp with one process is allowed


def test_fsdp_on_cpus_has_contiguous_images() -> None:
    assert plan(CPU, {"devices": 2, "strategy": "fsdp"})["channels_last"].value is False
    assert plan(CPU, {"strategy": "fsdp", "channels_last": True})["channels_last"].value is True
    assert plan(A100, {"strategy": "fsdp"})["channels_last"].value is True


SHARDED = {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy"}
BAD: list[tuple[HardwareInfo, dict[str, Any], str]] = [
    (CPU, {"accelerator": "gpu"}, "trainer.accelerator=gpu: torch finds no GPU on this machine. Try: trainer=cpu"),
    (
        replace(CPU, problems=("the driver is too old",)),
        {"accelerator": "cuda"},
        r"\(the driver is too old\). Try",
    ),
    (CPU, {"accelerator": "mps"}, "trainer.accelerator=mps: torch finds no Apple GPU on this machine"),
    (CPU, {"accelerator": "gpus"}, "trainer.accelerator=gpus is not an accelerator of Lightning. Did you mean 'gpu'?"),
    (CPU, {"strategy": "ddp_spawn"}, "trainer.strategy=ddp_spawn: arclight starts the processes itself.* Try: strategy=ddp"),
    (CPU, {"strategy": "ddp_notebook"}, "trainer.strategy=ddp_notebook: arclight starts the processes itself"),
    (CPU, {"threads": 100_000}, "hardware.threads=100000 must be 1 to 64"),
    (CPU, {"workers": 100_000}, "hardware.workers=100000 must be 1 to 64"),
    # devices
    (with_gpus("A100", (8, 0), 2), {"devices": 3}, "trainer.devices=3: this machine has 2 GPUs; use 1 to 2"),
    (A100, {"devices": [0, 9]}, r"trainer.devices=\[0, 9\]: GPUs of this machine have the indices 0 to 7"),
    (A100, {"devices": "1,1"}, "trainer.devices=1,1: GPUs .* name each at most once"),
    (A100, {"devices": "0,x"}, "trainer.devices=0,x is neither a number, a list of indices nor auto"),
    (CPU, {"devices": 0}, "trainer.devices=0 must be 1 or more, or auto"),
    (CPU, {"devices": "many"}, "trainer.devices=many is neither a number, a list of indices nor auto"),
    (CPU, {"devices": 17}, "too many processes for 2 cores; at most 8 per core, 16 here"),
    (CPU, {"devices": [0, 1]}, r"trainer.devices=\[0, 1\]: CPU cores have no indices; give the number of processes"),
    (MAC, {"devices": 2}, "trainer.devices=2: there is one Apple GPU. Try: trainer.devices=1"),
    # the launcher's processes
    (SLURM, {"devices": 4}, "trainer.devices=4, but slurm has started 8 processes on this node; leave trainer.devices at auto"),
    (TORCHRUN, {"devices": 3}, "trainer.devices=3, but torchrun has started 2 .* let torchrun start 3"),
    (TORCHRUN, {"num_nodes": 1}, "trainer.num_nodes=1, but torchrun has started this run on 2"),
    (ONE_TASK_A_NODE, {"num_nodes": 3}, "trainer.num_nodes=3, but slurm has started this run on 2; leave .* let slurm start 3"),
    (replace(SLURM, gpus=A100.gpus[:1]), {}, "slurm has started 8 processes on this node, and this one sees 1 of its GPUs"),
    (
        replace(TORCHRUN, launch=Launch("torchrun", world_size=3, local_world_size=2, num_nodes=2)),
        {},
        "the same number on each",
    ),
    (CPU, {"num_nodes": 0}, "trainer.num_nodes=0 must be a whole number of 1 or more, or auto"),
    # precision
    (
        V100,
        {"precision": "bf16-mixed"},
        r"precision=bf16-mixed: V100 \(compute capability 7.0\) has no bf16. Try: precision=fp16",
    ),
    (GTX_1080, {"precision": "bf16"}, "precision=bf16: GTX 1080 .* has no bf16. Try: precision=fp32"),
    (GTX_1080, {"precision": "16-mixed"}, "GTX 1080 .* has no tensor cores for fp16. Try: precision=fp32"),
    (MIXED, {"precision": "bf16-true"}, "T4 .* has no bf16"),
    (CPU, {"precision": 16}, "trainer.precision=16: CPUs do not train in fp16. Try: precision=auto"),
    (MAC, {"precision": "64-true"}, "trainer.precision=64-true: Apple GPUs have no fp64"),
    (MAC, {"precision": "bf16-mixed"}, "bf16 on Apple GPUs needs macOS 14 or newer"),
    (CPU, {"precision": "transformer-engine"}, "Transformer Engine needs an NVIDIA GPU"),
    (
        CPU,
        {"precision": "bf16-mixd"},
        "precision=bf16-mixd is not a precision of Lightning. Did you mean 'bf16-mixed'?",
    ),
    (
        V100,
        {"precision": "16-mixed", "strategy": "fsdp"},
        "precision=16-mixed does not work with strategy=fsdp, only 32-true",
    ),
    (CPU, {"precision": "64-true", "strategy": SHARDED}, "precision=64-true does not work with strategy=fsdp"),
    # strategy
    (MAC, {"strategy": "ddp"}, "trainer.strategy=ddp: there is one Apple GPU"),
    (MAC, {"strategy": SHARDED}, "there is one Apple GPU, and torch has no collectives for it. Try: strategy=auto"),
    (CPU, {"strategy": "dpp"}, "trainer.strategy=dpp is not a strategy of Lightning. Did you mean 'ddp'?"),
    (CPU, {"sync_batchnorm": True}, "trainer.sync_batchnorm=true needs NVIDIA GPUs, and this run is on cpu"),
]


@pytest.mark.parametrize(("hardware_info", "requested", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_unsupported_settings_are_reported(hardware_info: HardwareInfo, requested: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(hardware_info, requested)


def test_devices_are_counted_in_each_notation_of_lightning() -> None:
    assert [count_devices(devices) for devices in (3, "3", [0, 2], "0,1,2", "0,")] == [3, 3, 2, 3, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 3}, r"hardware.timeout: there is no such setting. Did you mean 'timeout_s'\?"),
        ({"timeout_s": 0}, "hardware.timeout_s=0 must be a number of seconds above 0"),
        ({"timeout_s": "long"}, "hardware.timeout_s=long must be a number of seconds above 0"),
        ({"max_restarts": -1}, "hardware.max_restarts=-1 must be a whole number of 0 or more"),
        ({"max_restarts": 1.5}, "hardware.max_restarts=1.5 must be a whole number of 0 or more"),
    ],
)
def test_wrong_hardware_settings_are_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_settings(settings)
