"""What machine this is: `probe` asks the system and the drivers and starts nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from arclight.distributed.environment import Launch, detect_launch, number
from arclight.hardware.limits import ROOT, read_lines, usable_cores, usable_memory

ALONE = Launch()
VOLTA, AMPERE = (7, 0), (8, 0)
# AMD's architectures with matrix instructions for bf16, by the beginning of their names: MI100 to MI350, RDNA 3 and 4
ROCM_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
FAST_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# what arithmetic can use, by torch's name and by that of /proc/cpuinfo
INSTRUCTION_SETS = {
    **{name: name for name in ("avx2", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")},
    **{"amx_fp16": "amx_fp16", "avx512_f": "avx512f"},
    **{"neon": "asimd", "fp16_arith": "asimdhp", "bf16": "bf16", "sve": "sve", "sve2": "sve2", "sve_bf16": "svebf16"},
}


@dataclass(frozen=True)
class Gpu:
    """One device of CUDA or ROCm and what its tensor cores multiply.

    `capability` is CUDA's compute capability, such as (8, 0) for an A100; `architecture` is ROCm's name, such as "gfx942", and
    empty for CUDA.
    """

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    architecture: str = ""
    has_fp16: bool = field(init=False)
    has_bf16: bool = field(init=False)
    has_tf32: bool = field(init=False)

    def __post_init__(self) -> None:
        of_rocm = self.architecture.startswith(ROCM_WITH_BF16)
        support = {
            "has_fp16": of_rocm if self.architecture else self.capability >= VOLTA,
            "has_bf16": of_rocm if self.architecture else self.capability >= AMPERE,
            # Source: allowTF32CuBLAS in torch's ATen/Context.cpp; ROCm wants HIPBLASLT_ALLOW_TF32 besides, which nobody sets
            "has_tf32": not self.architecture and self.capability >= AMPERE,
        }
        for name, value in support.items():
            object.__setattr__(self, name, value)  # the way into a frozen dataclass


@dataclass(frozen=True)
class HardwareInfo:
    """What there is; plain data, so that `dataclasses.asdict` goes into a JSON file.

    Args:
        num_cores: cores that this process may use, by affinity and the container's quota.
        memory_bytes: memory that it may use, the container's limit included.
        system: "Linux", "Darwin" or "Windows".
        cpu_name: what the CPU calls itself.
        instruction_sets: those of INSTRUCTION_SETS that the CPU has, by torch's names.
        gpus: the devices of CUDA or ROCm that this process sees.
        peer_links: pairs of GPUs of which each reads the other's memory without the host.
        has_mps: whether torch can use Apple's GPU; `has_mps_bf16` whether that has bf16 (macOS 14 and newer).
        torch_build: what torch was built for: "cpu", "cuda 13.0", "rocm 7.0".
        has_compiler: a C++ compiler and Python's headers, which torch.compile wants; `has_triton` for CUDA besides.
        omp_num_threads: the environment's OMP_NUM_THREADS.
        launch: who started this process.
        problems: what could not be asked, and what the drivers complained of.
    """

    num_cores: int
    memory_bytes: int
    system: str = "Linux"
    cpu_name: str = ""
    instruction_sets: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    peer_links: tuple[tuple[int, int], ...] = ()
    has_mps: bool = False
    has_mps_bf16: bool = False
    torch_build: str = "cpu"
    has_compiler: bool = False
    has_triton: bool = False
    omp_num_threads: int | None = None
    launch: Launch = ALONE
    problems: tuple[str, ...] = ()

    @property
    def has_fast_bf16_cpu(self) -> bool:
        """Whether the CPU has instructions for bf16 that torch uses; elsewhere it emulates them."""
        return self.system == "Linux" and any(name in self.instruction_sets for name in FAST_BF16)


def probe(environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> HardwareInfo:
    """The machine that this process runs on. A driver that fails costs its own fact only, and is named among `problems`.

    Args:
        environment: variables to look at.
        root: where `proc` and `sys` lie.

    Raises:
        InputError: when a variable of the launcher that should be a number is none.
    """
    import psutil

    problems: list[str] = []
    gpus: list[Gpu] = []
    links: list[tuple[int, int]] = []
    apple: dict[str, bool] = {}
    with told("the CUDA driver", problems):
        gpus += ask_gpus()
    with told("peer links between GPUs", problems):
        links += ask_peer_links(len(gpus))
    with told("Apple's GPU", problems):
        apple |= ask_apple()
    build, launch = torch_build(), detect_launch(environment)
    problems += find_contradictions(environment, root, build, launch)
    return HardwareInfo(
        num_cores=usable_cores(root),
        memory_bytes=usable_memory(psutil.virtual_memory().total, root),
        system=platform.system(),
        cpu_name=ask_cpu_name(root),
        instruction_sets=ask_instruction_sets(root),
        gpus=tuple(gpus),
        peer_links=tuple(links),
        torch_build=build,
        has_compiler=has_compiler(environment),
        has_triton=importlib.util.find_spec("triton") is not None,
        omp_num_threads=number(environment, "OMP_NUM_THREADS", default=0) or None,
        launch=launch,
        problems=tuple(problems),
        **apple,
    )


@contextmanager
def told(what: str, problems: list[str]) -> Iterator[None]:
    """Inside, an error or a warning of a driver ends up among the problems and nowhere else."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except Exception as error:  # each driver has classes of its own
            problems.append(f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}")
    problems += [f"{what}: {str(warning.message).splitlines()[0]}" for warning in caught]


def ask_gpus() -> Iterator[Gpu]:
    """The devices of CUDA or ROCm, in torch's order; asks for their properties only, which makes no context on any."""
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        architecture = str(getattr(properties, "gcnArchName", "")).partition(":")[0] if torch.version.hip else ""
        yield Gpu(properties.name, properties.total_memory, (properties.major, properties.minor), architecture)


def ask_apple() -> dict[str, bool]:
    """What torch can do on Apple's GPU."""
    import torch

    is_there = torch.backends.mps.is_available()
    return {"has_mps": is_there, "has_mps_bf16": is_there and torch.backends.mps.is_macos_or_newer(14, 0)}


def ask_peer_links(num_gpus: int) -> Iterator[tuple[int, int]]:
    """The pairs of GPUs that read each other's memory."""
    import torch

    for first in range(num_gpus):
        for second in range(first + 1, num_gpus):
            if torch.cuda.can_device_access_peer(first, second) and torch.cuda.can_device_access_peer(second, first):
                yield first, second


def torch_build() -> str:
    """What torch was built for, with the version: "cpu", "cuda 13.0", "rocm 7.0"."""
    import torch

    if torch.version.hip:
        return f"rocm {torch.version.hip}"
    return f"cuda {torch.version.cuda}" if torch.version.cuda else "cpu"


def ask_cpu_name(root: Path) -> str:
    """What the CPU calls itself; the architecture where it is not told."""
    for line in read_lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def ask_instruction_sets(root: Path) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that the CPU has: by torch, and where torch does not tell, by the kernel."""
    import torch

    # newer than the oldest torch that is supported
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if any(capabilities.get(name) for name in INSTRUCTION_SETS):
        return tuple(name for name in INSTRUCTION_SETS if capabilities.get(name))
    flags: set[str] = set()
    for line in read_lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
    return tuple(name for name, flag in INSTRUCTION_SETS.items() if flag in flags)


def has_compiler(environment: Mapping[str, str]) -> bool:
    """Whether torch.compile finds what it builds with: the C++ compiler of CXX or else of the system, and Python's headers."""
    named = environment.get("CXX", "").split()
    command = named[0] if named else {"Darwin": "clang++", "Windows": "cl"}.get(platform.system(), "g++")
    found = shutil.which(command, path=environment.get("PATH")) is not None
    return found and (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def find_contradictions(environment: Mapping[str, str], root: Path, build: str, launch: Launch) -> Iterator[str]:
    """A driver that this torch cannot use; a job of several tasks whose script, run by sbatch, has started one by itself."""
    if build == "cpu" and ((root / "proc/driver/nvidia/version").exists() or (root / "dev/kfd").exists()):
        yield "this machine has a GPU driver, but this torch is built for CPUs only: install a build for GPUs"
    if launch.kind == "slurm" and launch.world_size > 1 and not any(name.startswith("SLURM_STEP") for name in environment):
        yield "SLURM reserved several tasks, but this process was not started by srun: the others will never come"
