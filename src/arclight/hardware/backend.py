"""Decisions that change the speed of a run and not its results, and `apply_backend_settings`, which passes them to torch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from arclight.errors import InputError
from arclight.hardware.decision import Decision, Target, user_bool, user_count, user_decision, user_value
from arclight.hardware.hardware_info import VOLTA
from arclight.hardware.precision import precision_name

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # modes of torch.compile that capture CUDA graphs
COMPILE_MODES = ("default", *GRAPH_MODES, "max-autotune-no-cudagraphs")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, from glibc's malloc.h
STEPS_THAT_PAY = 20_000  # a captured graph saves about 3 ms of launches per step and takes about a minute to capture
LEAST_LIMIT, THREADS_PER_CORE = 64, 8  # of threads that a user may set: thousands end a process without a message
DETERMINISTIC = "trainer.deterministic needs the same algorithms in every run"


def apply_backend_settings(decisions: Mapping[str, Decision]) -> None:
    """Applies the process-wide settings of torch (precision of fp32 products, cuDNN, threads) and of malloc.

    Lightning's Trainer gets no `benchmark`, so that this is the only place that sets it.
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
    """Makes glibc's malloc keep freed memory for reuse; does nothing with another C library.

    glibc returns large blocks, such as the gradient of an embedding, to the system at once until its threshold has adapted:
    the first hundred steps of a tagger spend a tenth of their time in 11,500 page faults each. Later steps gain nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)  # no block outside the heap
    mallopt(M_TRIM_THRESHOLD, -1)  # and the heap does not shrink


def choose_cudnn_benchmark(target: Target) -> Decision:
    """Chooses whether cuDNN times its algorithms on the first batch of each shape and keeps the fastest."""
    value, is_deterministic = user_bool(target.requested, "cudnn_benchmark"), target.requested.get("deterministic")
    if value is None and isinstance(target.requested.get("benchmark"), bool):  # Lightning's own name for it
        value = target.requested["benchmark"]
    if value and not target.gpus:
        raise InputError(
            f"hardware.cudnn_benchmark=true: cuDNN needs a GPU, this run is on {target.accelerator}. Try: auto",
            key="hardware.cudnn_benchmark",
        )
    if value and is_deterministic:
        raise InputError(
            f"hardware.cudnn_benchmark=true chooses algorithms by time, and {DETERMINISTIC}. Try: auto",
            key="hardware.cudnn_benchmark",
        )
    if value is not None:
        return user_decision(value)
    if not target.gpus:
        return Decision(False, "GPU only")
    if is_deterministic:
        return Decision(False, DETERMINISTIC)
    if target.has_fixed_shapes:
        return Decision(True, "all batches have one shape, so one search is enough")
    return Decision(False, "batches differ in shape, and each new shape needs a search")


def choose_channels_last(target: Target, precision: str, matmul_precision: str, *, is_sharded: bool) -> Decision:
    """Chooses whether images are stored channels-last; no effect on text."""
    value = user_bool(target.requested, "channels_last")
    if value is not None:
        return user_decision(value)
    if target.accelerator == "cpu" and is_sharded:
        # torch 2.13's oneDNN corrupts memory in the backward pass of channels-last images with contiguous filters
        return Decision(False, "fsdp stores filters in the contiguous format")
    if target.accelerator == "cpu":
        return Decision(True, "faster convolutions on CPUs")
    if any(gpu.architecture for gpu in target.gpus):
        return Decision(False, "ROCm needs PYTORCH_MIOPEN_SUGGEST_NHWC=1 for it")
    is_plain = precision_name(precision) in ("32-true", "64-true") and matmul_precision == "highest"
    if target.gpus and not is_plain and all(gpu.capability >= VOLTA for gpu in target.gpus):
        return Decision(True, "tensor cores read this format")
    return Decision(False, "no tensor cores in use" if target.gpus else "no gain on this device")


def choose_compile(target: Target) -> Decision:
    """Chooses the mode of torch.compile for net and loss; True is its default mode, False is off.

    Without a value from the user only where a GPU replays one captured graph in every step, and there are enough steps.
    Experimental on GPUs, where it has never run.
    """
    value = user_value(target.requested, "compile")
    if value is None:
        return choose_graph(target)
    if value is False:
        return user_decision(value)
    if value is not True and value not in COMPILE_MODES:
        raise InputError(
            f"hardware.compile={value} must be true, false, auto, or a mode: {', '.join(COMPILE_MODES)}", key="hardware.compile"
        )
    setting, gpus = f"hardware.compile={str(value).lower()}", target.gpus
    if not target.hardware_info.has_compiler:
        raise InputError(
            f"{setting} needs a C++ compiler and Python's headers (Debian, Ubuntu: g++ and python3-dev). "
            "Install them, or try: hardware.compile=false",
            key="hardware.compile",
        )
    if gpus and not target.hardware_info.has_triton:
        raise InputError(f"{setting} needs the package triton on GPUs: pip install triton", key="hardware.compile")
    if old := sorted({gpu.name for gpu in gpus if not gpu.architecture and gpu.capability < VOLTA}):
        raise InputError(
            f"{setting} needs GPUs of compute capability 7.0 or newer; {', '.join(old)} is older", key="hardware.compile"
        )
    mode = True if value == "default" else value
    if gpus and mode in GRAPH_MODES:
        if target.accumulation_steps > 1:
            plain = "max-autotune-no-cudagraphs" if mode == "max-autotune" else True
            return user_decision(plain, "without graphs, which would overwrite the gradients of earlier micro-batches")
        if not target.has_fixed_shapes:
            return user_decision(mode, "each batch shape is captured separately; data.packing=fixed has one shape")
    return user_decision(mode)


def choose_graph(target: Target) -> Decision:
    """Chooses whether one graph is captured and replayed, where the user has set nothing."""
    info, gpus, num_steps = target.hardware_info, target.gpus, target.num_steps
    if not gpus or num_steps is None or num_steps < STEPS_THAT_PAY:
        return Decision(
            False, "20 s or more before the first step, not worth it for short runs; turn on: hardware.compile=true"
        )
    if not target.has_fixed_shapes:
        return Decision(False, "batches differ in shape, and a graph has one; data.packing=fixed has one shape")
    if target.world_size > 1 or target.accumulation_steps > 1:
        return Decision(False, "graphs need one process and no accumulation; hardware.compile=true works without graphs")
    if target.requested.get("deterministic"):
        return Decision(False, DETERMINISTIC)
    is_old = any(gpu.architecture or gpu.capability < VOLTA for gpu in gpus)
    if is_old or not (info.has_compiler and info.has_triton):
        return Decision(False, "needs a C++ compiler, triton and NVIDIA GPUs of compute capability 7.0 or newer")
    return Decision("reduce-overhead", f"{num_steps:,} steps of one shape replay one captured graph")


def choose_retain_heap(target: Target) -> Decision:
    """Chooses whether memory that a step frees stays with the process."""
    value, system = user_bool(target.requested, "retain_heap"), target.hardware_info.system
    if value and system != "Linux":
        raise InputError(
            f"hardware.retain_heap=true is for Linux only, and this is {system}. Try: auto", key="hardware.retain_heap"
        )
    if value is not None:
        return user_decision(value)
    if system != "Linux":
        return Decision(False, "Linux only")
    if target.accelerator == "cpu":
        return Decision(True, "reuses freed memory")
    return Decision(False, "steps use the device's memory")


def choose_threads(target: Target) -> Decision:
    """Chooses the threads of each process, so that all processes of this node together have one per core."""
    value, info = user_threads(target, "threads"), target.hardware_info
    if value is not None:
        return user_decision(value)
    # torchrun itself sets 1 when it starts several processes and the user has set nothing
    is_set_by_torchrun = info.launch.kind == "torchrun" and info.launch.local_world_size > 1 and info.omp_num_threads == 1
    if info.omp_num_threads and not is_set_by_torchrun:
        return Decision(info.omp_num_threads, "set by OMP_NUM_THREADS", is_user_set=True)
    return cores_per_process(target)


def choose_workers(target: Target) -> Decision:
    """Chooses the threads of each process that decode image files; num_workers of a data module overrides it."""
    value = user_threads(target, "workers")
    return cores_per_process(target) if value is None else user_decision(value)


def user_threads(target: Target, name: str) -> int | None:
    """Returns a number of threads that the user set, None for auto; raises InputError for more than any machine starts."""
    value, most = user_count(target.requested, name), max(LEAST_LIMIT, THREADS_PER_CORE * target.hardware_info.num_cores)
    if value is not None and value > most:
        raise InputError(f"hardware.{name}={value} must be 1 to {most} on this machine, or auto", key=f"hardware.{name}")
    return value


def cores_per_process(target: Target) -> Decision:
    """Returns the cores for each process of this node, at least 1."""
    cores, processes = target.hardware_info.num_cores, target.num_local
    return Decision(max(1, cores // processes), f"{cores} cores" + (f" for {processes} processes" if processes > 1 else ""))
