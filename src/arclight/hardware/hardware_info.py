"""The hardware of this machine: `probe` queries the system and the drivers and starts nothing."""

from __future__ import annotations

import importlib.util
import itertools
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
from arclight.hardware.container_limits import ROOT, read_lines, usable_cores, usable_memory

ALONE = Launch()
VOLTA, AMPERE = (7, 0), (8, 0)
# prefixes of AMD's architectures with matrix instructions for bf16: MI100 to MI350, RDNA 3 and 4
ROCM_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
FAST_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# torch's name -> name in /proc/cpuinfo
INSTRUCTION_SETS = {
    **{name: name for name in ("avx2", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")},
    **{"amx_fp16": "amx_fp16", "avx512_f": "avx512f"},
    **{"neon": "asimd", "fp16_arith": "asimdhp", "bf16": "bf16", "sve": "sve", "sve2": "sve2", "sve_bf16": "svebf16"},
}


@dataclass(frozen=True)
class Gpu:
    """A device of CUDA or ROCm and the precisions of its tensor cores.

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
        on_rocm = self.architecture.startswith(ROCM_WITH_BF16)
        # object.__setattr__, because the dataclass is frozen
        object.__setattr__(self, "has_fp16", on_rocm if self.architecture else self.capability >= VOLTA)
        object.__setattr__(self, "has_bf16", on_rocm if self.architecture else self.capability >= AMPERE)
        # Source: allowTF32CuBLAS in torch's ATen/Context.cpp; ROCm also needs HIPBLASLT_ALLOW_TF32, which nobody sets
        object.__setattr__(self, "has_tf32", not self.architecture and self.capability >= AMPERE)


@dataclass(frozen=True)
class HardwareInfo:
    """What `probe` found; plain data for a JSON file.

    Args:
        num_cores: cores that this process may use, by affinity and the container's quota.
        memory_bytes: memory that it may use, the container's limit included.
        system: "Linux", "Darwin" or "Windows".
        instruction_sets: those of INSTRUCTION_SETS that the CPU has, by torch's names.
        gpus: the devices of CUDA or ROCm that this process sees.
        peer_links: pairs of GPUs that read each other's memory without the host.
        has_mps: whether torch can use an Apple GPU; `has_mps_bf16` whether it has bf16 (macOS 14 or newer).
        torch_build: "cpu", "cuda 13.0", "rocm 7.0".
        has_compiler: a C++ compiler and Python's headers, which torch.compile needs; `has_triton` is for CUDA.
        problems: failed queries, and warnings of drivers.
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
        """Whether the CPU has bf16 instructions that torch uses; others emulate bf16."""
        return self.system == "Linux" and any(name in self.instruction_sets for name in FAST_BF16)


def probe(environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> HardwareInfo:
    """Returns the hardware of this machine. A driver that fails leaves only its own field empty, and is among `problems`.

    Args:
        environment: environment variables.
        root: contains `proc` and `sys`.

    Raises:
        InputError: when a variable of the launcher is not a number.
    """
    import psutil
    import torch

    problems: list[str] = []
    gpus: list[Gpu] = []
    links: list[tuple[int, int]] = []
    with collected_problems("the CUDA driver", problems):
        gpus += query_gpus()
    with collected_problems("peer links between GPUs", problems):
        links += query_peer_links(len(gpus))
    has_mps, launch = torch.backends.mps.is_available(), detect_launch(environment)
    versions = {"rocm": torch.version.hip, "cuda": torch.version.cuda}
    build = next((f"{name} {version}" for name, version in versions.items() if version), "cpu")
    problems += find_contradictions(environment, root, build, launch)
    return HardwareInfo(
        num_cores=usable_cores(root),
        memory_bytes=usable_memory(psutil.virtual_memory().total, root),
        system=platform.system(),
        cpu_name=cpu_name(root),
        instruction_sets=cpu_instruction_sets(root),
        gpus=tuple(gpus),
        peer_links=tuple(links),
        has_mps=has_mps,
        has_mps_bf16=has_mps and torch.backends.mps.is_macos_or_newer(14, 0),
        torch_build=build,
        has_compiler=has_compiler(environment),
        has_triton=importlib.util.find_spec("triton") is not None,
        omp_num_threads=number(environment, "OMP_NUM_THREADS", default=0) or None,
        launch=launch,
        problems=tuple(problems),
    )


@contextmanager
def collected_problems(source: str, problems: list[str]) -> Iterator[None]:
    """Context manager that adds an error or the warnings of a driver to the problems, and hides them otherwise."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except Exception as error:  # each driver has its own classes
            problems.append(f"{source}: {(str(error) or type(error).__name__).splitlines()[0]}")
    problems += [f"{source}: {str(warning.message).splitlines()[0]}" for warning in caught]


def query_gpus() -> Iterator[Gpu]:
    """Yields the devices of CUDA or ROCm in torch's order, without creating a context on any."""
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        architecture = str(getattr(properties, "gcnArchName", "")).partition(":")[0] if torch.version.hip else ""
        yield Gpu(properties.name, properties.total_memory, (properties.major, properties.minor), architecture)


def query_peer_links(num_gpus: int) -> Iterator[tuple[int, int]]:
    """Yields the pairs of GPUs that read each other's memory."""
    from torch.cuda import can_device_access_peer

    for first, second in itertools.combinations(range(num_gpus), 2):
        if can_device_access_peer(first, second) and can_device_access_peer(second, first):
            yield first, second


def read_cpuinfo(root: Path) -> dict[str, str]:
    """Returns what the kernel says of the cores by its names, that of the last core; empty where there is no such file."""
    lines = (line.partition(":") for line in read_lines(root / "proc/cpuinfo"))
    return {name.strip(): value.strip() for name, _, value in lines}


def cpu_name(root: Path = ROOT) -> str:
    """Returns the model of the CPU, or its architecture where the system does not name it."""
    return read_cpuinfo(root).get("model name") or platform.processor() or platform.machine()


def cpu_instruction_sets(root: Path) -> tuple[str, ...]:
    """Returns those of INSTRUCTION_SETS that the CPU has, from torch, else from the kernel."""
    import torch

    # newer than the oldest supported torch
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if any(capabilities.get(name) for name in INSTRUCTION_SETS):
        return tuple(name for name in INSTRUCTION_SETS if capabilities.get(name))
    cpuinfo = read_cpuinfo(root)
    flags = f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".split()
    return tuple(name for name, flag in INSTRUCTION_SETS.items() if flag in flags)


def has_compiler(environment: Mapping[str, str]) -> bool:
    """Returns whether torch.compile finds Python's headers and a C++ compiler, that of CXX or else of the system."""
    cxx = environment.get("CXX", "").split()
    command = cxx[0] if cxx else {"Darwin": "clang++", "Windows": "cl"}.get(platform.system(), "g++")
    found = shutil.which(command, path=environment.get("PATH")) is not None
    return found and (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def find_contradictions(environment: Mapping[str, str], root: Path, build: str, launch: Launch) -> Iterator[str]:
    """Yields problems of a GPU driver that this torch cannot use, and of a SLURM job that was not started by srun."""
    if build == "cpu" and ((root / "proc/driver/nvidia/version").exists() or (root / "dev/kfd").exists()):
        yield "this machine has a GPU driver, but this torch is built for CPUs only: install a build for GPUs"
    if launch.kind == "slurm" and launch.world_size > 1 and not any(name.startswith("SLURM_STEP") for name in environment):
        yield "SLURM reserved several tasks, but this process was not started by srun: the others will not start"
