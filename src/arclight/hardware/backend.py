"""Settings that change how fast a run is and not what it learns, and `put_into_effect`, which hands them to torch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from arclight.errors import InputError
from arclight.hardware.decision import Decision, granted, requested_value
from arclight.hardware.hardware_info import VOLTA, Gpu, HardwareInfo
from arclight.hardware.precision import uses_tensor_cores

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # modes of torch.compile that capture CUDA graphs
COMPILE_MODES = ("default", *GRAPH_MODES, "max-autotune-no-cudagraphs")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, as glibc's malloc.h numbers them
STEPS_THAT_PAY = 20_000  # a captured graph saves some 3 ms of launches in a step, and a minute to make it is earned back then


def apply_backend_settings(decisions: Mapping[str, Decision]) -> None:
    """Sets what torch keeps for the whole process: precision of fp32 products, search of cuDNN, threads; and what malloc does.

    Lightning's Trainer is given no `benchmark`, so that this is the only place that sets it.
    """
    import torch

    matmul_precision = decisions["matmul_precision"].value
    torch.set_float32_matmul_precision(matmul_precision)
    torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"  # torch's default lets convolutions use TF32 in "fp32"
    torch.backends.cudnn.benchmark = decisions["cudnn_benchmark"].value
    torch.set_num_threads(decisions["threads"].value)
    if decisions["retain_heap"].value:
        retain_heap()


def retain_heap() -> None:
    """From here on what this process frees stays with it, to be used again.

    glibc gives large blocks, such as the gradient of an embedding, back to the system at once, until it has learnt better: in
    the first hundred steps of a tagger, or some more, each has their pages anew, 11,500 faults and a tenth of its time. Later
    steps gain nothing. Another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)  # no block outside the heap
    mallopt(M_TRIM_THRESHOLD, -1)  # and the heap does not shrink


def choose_cudnn_benchmark(
    accelerator: str, gpus: tuple[Gpu, ...], requested: Mapping[str, Any], has_fixed_shapes: bool
) -> Decision:
    """Whether cuDNN tries all its algorithms on the first batch of each shape and keeps the fastest."""
    wish = read_switch(requested, "cudnn_benchmark")
    if wish is None and isinstance(requested.get("benchmark"), bool):  # Lightning's own name for it
        wish = requested["benchmark"]
    if wish and not gpus:
        raise InputError(f"hardware.cudnn_benchmark=true: cuDNN is of GPUs, and this run is on {accelerator}; take auto")
    if wish and requested.get("deterministic"):
        raise InputError(
            "hardware.cudnn_benchmark=true lets the clock choose algorithms, and trainer.deterministic wants the same ones "
            "in every run; take hardware.cudnn_benchmark=auto"
        )
    if wish is not None:
        return granted(wish)
    if not gpus:
        return Decision(False, "cuDNN is of GPUs")
    if requested.get("deterministic"):
        return Decision(False, "the same algorithms in every run, as trainer.deterministic wants")
    if has_fixed_shapes:
        return Decision(True, "every batch has the same shape: one search at the start is enough")
    return Decision(False, "batches may differ in shape, and each new shape would be searched again")


def choose_channels_last(
    accelerator: str, gpus: tuple[Gpu, ...], requested: Mapping[str, Any], precision: str, matmul_precision: str
) -> Decision:
    """Whether images lie in memory with their channels innermost; does nothing for text."""
    wish = read_switch(requested, "channels_last")
    if wish is not None:
        return granted(wish)
    if accelerator == "cpu":
        return Decision(True, "convolutions on the CPU are faster so")
    if uses_tensor_cores(gpus, precision, matmul_precision):
        return Decision(True, "tensor cores read images so")
    if any(gpu.architecture for gpu in gpus):
        return Decision(False, "ROCm reads images so only under PYTORCH_MIOPEN_SUGGEST_NHWC=1")
    return Decision(False, "no tensor cores take part" if gpus else "nothing gained on this device")


def choose_compile(
    hardware_info: HardwareInfo,
    accelerator: str,
    gpus: tuple[Gpu, ...],
    requested: Mapping[str, Any],
    *,
    has_fixed_shapes: bool,
    num_steps: int | None,
    num_processes: int,
    num_parts: int,
) -> Decision:
    """The mode in which torch.compile turns net and loss into kernels of its own; True is its default mode, False is none.

    By itself only where a GPU then replays one captured graph in every step, and there are steps enough to earn it back.
    """
    wish = read_mode(requested)
    if wish is None:
        return choose_graph(
            hardware_info, gpus, requested, has_fixed_shapes, num_steps, is_shared=num_processes > 1 or num_parts > 1
        )
    if wish is False:
        return granted(wish)
    named = f"hardware.compile={str(wish).lower()}"
    if not hardware_info.has_compiler:
        raise InputError(
            f"{named} wants a C++ compiler and Python's headers (Debian, Ubuntu: g++ and python3-dev), which are "
            "not here; install them or take hardware.compile=false"
        )
    if gpus and not hardware_info.has_triton:
        raise InputError(f"{named} wants the package triton on GPUs: pip install triton")
    if old := sorted({gpu.name for gpu in gpus if not gpu.architecture and gpu.capability < VOLTA}):
        raise InputError(f"{named} wants GPUs from compute capability 7.0 on, and {', '.join(old)} is older")
    if gpus and wish in GRAPH_MODES:
        if num_parts > 1:
            plain = "max-autotune-no-cudagraphs" if wish == "max-autotune" else True
            return granted(plain, "but without graphs: each part of a batch would overwrite the gradients of the one before")
        if not has_fixed_shapes:
            return granted(wish, "but each shape of a batch is captured anew; data.packing=fixed has one")
    return granted(wish)


def choose_graph(
    hardware_info: HardwareInfo,
    gpus: tuple[Gpu, ...],
    requested: Mapping[str, Any],
    has_fixed_shapes: bool,
    num_steps: int | None,
    *,
    is_shared: bool,
) -> Decision:
    """Whether one graph is captured and replayed, without a wish of the user."""
    if not gpus or num_steps is None or num_steps < STEPS_THAT_PAY:
        return Decision(
            False, "takes 20 s and more before the first step, which short runs do not earn back; hardware.compile=true"
        )
    if not has_fixed_shapes:
        return Decision(False, "batches differ in shape, so that no one graph serves all; data.packing=fixed has one shape")
    if is_shared:
        return Decision(
            False, "a captured graph is for one process and batches in one part; hardware.compile=true does without"
        )
    if requested.get("deterministic"):
        return Decision(False, "the same algorithms in every run, as trainer.deterministic wants")
    if not (hardware_info.has_compiler and hardware_info.has_triton) or any(
        gpu.architecture or gpu.capability < VOLTA for gpu in gpus
    ):
        return Decision(False, "wants a C++ compiler, triton and GPUs of CUDA from compute capability 7.0 on")
    return Decision("reduce-overhead", f"{num_steps:,} steps of one shape replay one captured graph")


def choose_retain_heap(hardware_info: HardwareInfo, accelerator: str, requested: Mapping[str, Any]) -> Decision:
    """Whether memory that a step frees stays with the process for the next one."""
    wish = read_switch(requested, "retain_heap")
    if wish and hardware_info.system != "Linux":
        raise InputError(
            f"hardware.retain_heap=true: only Linux's malloc can be told so, and this is {hardware_info.system}; take auto"
        )
    if wish is not None:
        return granted(wish)
    if hardware_info.system != "Linux":
        return Decision(False, "only Linux's malloc can be told so")
    if accelerator == "cpu":
        return Decision(True, "what a step frees the next one needs, without a page fault for each 4 KB")
    return Decision(False, "steps use the device's memory")


def choose_threads(hardware_info: HardwareInfo, num_local: int, requested: Mapping[str, Any]) -> Decision:
    """Threads of each process's arithmetic, so that all processes of this node together have one for each core."""
    wish = read_count(requested, "threads")
    if wish is not None:
        return granted(wish)
    # torchrun sets 1 itself when it starts several processes and the user has not said; then it is nobody's wish
    is_of_torchrun = (
        hardware_info.launch.kind == "torchrun"
        and hardware_info.launch.local_world_size > 1
        and hardware_info.omp_num_threads == 1
    )
    if hardware_info.omp_num_threads and not is_of_torchrun:
        return Decision(hardware_info.omp_num_threads, "OMP_NUM_THREADS says so", is_user_set=True)
    return share_of_cores(hardware_info, num_local)


def choose_workers(hardware_info: HardwareInfo, num_local: int, requested: Mapping[str, Any]) -> Decision:
    """Threads of each process that decode image files; a data set's own num_workers goes before it."""
    wish = read_count(requested, "workers")
    return share_of_cores(hardware_info, num_local) if wish is None else granted(wish)


def share_of_cores(hardware_info: HardwareInfo, num_local: int) -> Decision:
    """One process's part of the cores, at least 1."""
    reason = f"{hardware_info.num_cores} cores" + (f" for {num_local} processes" if num_local > 1 else "")
    return Decision(max(1, hardware_info.num_cores // num_local), reason)


def read_switch(requested: Mapping[str, Any], name: str) -> bool | None:
    """A wish that is true, false or auto.

    Raises:
        InputError: for anything else.
    """
    wish = requested_value(requested, name)
    if wish is not None and not isinstance(wish, bool):
        raise InputError(f"hardware.{name}={wish} must be true, false or auto")
    return wish


def read_mode(requested: Mapping[str, Any]) -> bool | str | None:
    """The wish for `compile`: true, false, a mode of torch.compile, or auto.

    Raises:
        InputError: for anything else.
    """
    wish = requested_value(requested, "compile")
    if wish is None or isinstance(wish, bool):
        return wish
    if wish not in COMPILE_MODES:
        raise InputError(f"hardware.compile={wish} must be true, false, auto, or a mode: {', '.join(COMPILE_MODES)}")
    return True if wish == "default" else str(wish)


def read_count(requested: Mapping[str, Any], name: str) -> int | None:
    """A wish that is a whole number of 1 or more, or auto.

    Raises:
        InputError: for anything else.
    """
    wish = requested_value(requested, name)
    if wish is not None and (isinstance(wish, bool) or not isinstance(wish, int) or wish < 1):
        raise InputError(f"hardware.{name}={wish} must be a whole number of 1 or more, or auto")
    return wish
