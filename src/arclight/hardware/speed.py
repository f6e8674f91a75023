"""Settings that change how fast a run is and not what it learns, and `put_into_effect`, which hands them to torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError
from arclight.hardware.choice import Choice, granted, wish_for
from arclight.hardware.facts import VOLTA, Facts, Gpu
from arclight.hardware.precision import uses_tensor_cores


def put_into_effect(choices: Mapping[str, Choice]) -> None:
    """Sets what torch keeps for the whole process: precision of fp32 products, search of cuDNN, threads.

    Lightning's Trainer is given no `benchmark`, so that this is the only place that sets it.
    """
    import torch

    matmul_precision = choices["matmul_precision"].value
    torch.set_float32_matmul_precision(matmul_precision)
    torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"  # torch's default lets convolutions use TF32 in "fp32"
    torch.backends.cudnn.benchmark = choices["cudnn_benchmark"].value
    torch.set_num_threads(choices["threads"].value)


def choose_cudnn_benchmark(
    accelerator: str, gpus: tuple[Gpu, ...], wishes: Mapping[str, Any], has_fixed_shapes: bool
) -> Choice:
    """Whether cuDNN tries all its algorithms on the first batch of each shape and keeps the fastest."""
    wish = read_switch(wishes, "cudnn_benchmark")
    if wish is None and isinstance(wishes.get("benchmark"), bool):  # Lightning's own name for it
        wish = wishes["benchmark"]
    if wish and not gpus:
        raise InputError(f"hardware.cudnn_benchmark=true: cuDNN is of GPUs, and this run is on {accelerator}; take auto")
    if wish and wishes.get("deterministic"):
        raise InputError(
            "hardware.cudnn_benchmark=true lets the clock choose algorithms, and trainer.deterministic wants the same ones "
            "in every run; take hardware.cudnn_benchmark=auto"
        )
    if wish is not None:
        return granted(wish)
    if not gpus:
        return Choice(False, "cuDNN is of GPUs")
    if wishes.get("deterministic"):
        return Choice(False, "the same algorithms in every run, as trainer.deterministic wants")
    if has_fixed_shapes:
        return Choice(True, "every batch has the same shape: one search at the start is enough")
    return Choice(False, "batches may differ in shape, and each new shape would be searched again")


def choose_channels_last(
    accelerator: str, gpus: tuple[Gpu, ...], wishes: Mapping[str, Any], precision: str, matmul_precision: str
) -> Choice:
    """Whether images lie in memory with their channels innermost; does nothing for text."""
    wish = read_switch(wishes, "channels_last")
    if wish is not None:
        return granted(wish)
    if accelerator == "cpu":
        return Choice(True, "convolutions on the CPU are faster so")
    if uses_tensor_cores(gpus, precision, matmul_precision):
        return Choice(True, "tensor cores read images so")
    if any(gpu.architecture for gpu in gpus):
        return Choice(False, "ROCm reads images so only under PYTORCH_MIOPEN_SUGGEST_NHWC=1")
    return Choice(False, "no tensor cores take part" if gpus else "nothing gained on this device")


def choose_compile(facts: Facts, accelerator: str, gpus: tuple[Gpu, ...], wishes: Mapping[str, Any]) -> Choice:
    """Whether torch.compile turns the net into kernels of its own; never by itself."""
    wish = read_switch(wishes, "compile")
    if wish is None:
        return Choice(
            False, "takes 20 s and more before the first step, which short runs do not earn back; hardware.compile=true"
        )
    if wish and not facts.has_compiler:
        raise InputError(
            "hardware.compile=true wants a C++ compiler and Python's headers (Debian, Ubuntu: g++ and python3-dev), which are "
            "not here; install them or take hardware.compile=false"
        )
    if wish and gpus:
        if not facts.has_triton:
            raise InputError("hardware.compile=true wants the package triton on GPUs: pip install triton")
        if any(not gpu.architecture and gpu.capability < VOLTA for gpu in gpus):
            names = ", ".join(sorted({gpu.name for gpu in gpus if gpu.capability < VOLTA}))
            raise InputError(f"hardware.compile=true wants GPUs from compute capability 7.0 on, and {names} is older")
    return granted(wish)


def choose_threads(facts: Facts, num_local: int, wishes: Mapping[str, Any]) -> Choice:
    """Threads of each process's arithmetic, so that all processes of this node together have one for each core."""
    wish = read_count(wishes, "threads")
    if wish is not None:
        return granted(wish)
    # torchrun sets 1 itself when it starts several processes and the user has not said; then it is nobody's wish
    is_of_torchrun = facts.launch.kind == "torchrun" and facts.launch.local_world_size > 1 and facts.omp_num_threads == 1
    if facts.omp_num_threads and not is_of_torchrun:
        return Choice(facts.omp_num_threads, "OMP_NUM_THREADS says so", is_wish=True)
    return share_of_cores(facts, num_local)


def choose_workers(facts: Facts, num_local: int, wishes: Mapping[str, Any]) -> Choice:
    """Threads of each process that decode image files; a data set's own num_workers goes before it."""
    wish = read_count(wishes, "workers")
    return share_of_cores(facts, num_local) if wish is None else granted(wish)


def share_of_cores(facts: Facts, num_local: int) -> Choice:
    """One process's part of the cores, at least 1."""
    reason = f"{facts.num_cores} cores" + (f" for {num_local} processes" if num_local > 1 else "")
    return Choice(max(1, facts.num_cores // num_local), reason)


def read_switch(wishes: Mapping[str, Any], name: str) -> bool | None:
    """A wish that is true, false or auto.

    Raises:
        InputError: for anything else.
    """
    wish = wish_for(wishes, name)
    if wish is not None and not isinstance(wish, bool):
        raise InputError(f"hardware.{name}={wish} must be true, false or auto")
    return wish


def read_count(wishes: Mapping[str, Any], name: str) -> int | None:
    """A wish that is a whole number of 1 or more, or auto.

    Raises:
        InputError: for anything else.
    """
    wish = wish_for(wishes, name)
    if wish is not None and (isinstance(wish, bool) or not isinstance(wish, int) or wish < 1):
        raise InputError(f"hardware.{name}={wish} must be a whole number of 1 or more, or auto")
    return wish
