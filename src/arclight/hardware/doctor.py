"""`python -m arclight doctor`: the hardware, what `auto` chooses on it and why, short self-tests, and what is missing."""

from __future__ import annotations

import json
import netrc
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from arclight import hardware
from arclight.distributed.rendezvous import DEFAULT_PORT
from arclight.errors import InputError
from arclight.hardware.self_tests import SelfTest, run_self_tests

ENOUGH_SHARED_MEMORY_BYTES = 2**30
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - read only
WANDB_HOST = "api.wandb.ai"


@dataclass(frozen=True)
class Findings:
    """The results of doctor; each line of `missing` says what is missing and what it is for or how to get it."""

    hardware_info: hardware.HardwareInfo
    plan: dict[str, hardware.Decision]
    self_tests: tuple[SelfTest, ...]
    missing: tuple[str, ...]


def examine(project: Path, environment: Mapping[str, str] = os.environ) -> Findings:
    """Returns the findings for the project in this directory, after a few seconds of self-tests; raises as `probe`."""
    hardware_info = hardware.probe(environment)
    missing = list(find_missing(hardware_info, project, environment))
    decisions: dict[str, hardware.Decision] = {}
    try:
        decisions = hardware.plan(hardware_info, {})
    except InputError as error:
        missing.append(f"no plan: {error}")
    accelerator = decisions["accelerator"].value if decisions else "cpu"
    self_tests = run_self_tests(hardware_info, accelerator)
    missing += [f"{test.name}: {test.problem}" for test in self_tests if not test.passed]
    return Findings(hardware_info, decisions, tuple(self_tests), tuple(missing))


def find_missing(hardware_info: hardware.HardwareInfo, project: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Yields what a training run may need and this machine does not have."""
    yield from hardware_info.problems
    if not hardware_info.has_compiler:
        yield "no C++ compiler, or no Python headers: hardware.compile=true will not work (Debian: g++ and python3-dev)"
    if hardware_info.gpus and not hardware_info.has_triton:
        yield "no package triton: hardware.compile=true will not work on the GPU (pip install triton)"
    if not is_logged_in_to_wandb(environment):
        yield "not logged in to W&B: its runs stay offline, in their run directories (wandb login, or logger=csv)"
    if shutil.which("git", path=environment.get("PATH")) is None:
        yield "no git: environment.json will not name the commit of a run"
    elif not is_in_repository(project):
        yield f"{project} is not a git repository: environment.json will not name the commit of a run (git init)"
    port = environment.get("MASTER_PORT", str(DEFAULT_PORT))
    if hardware_info.launch.kind == "none" and not is_free(port):
        yield f"port {port}, for the rendezvous of torchrun, is in use (set MASTER_PORT to another)"
    if SHARED_MEMORY.is_dir() and (size := shutil.disk_usage(SHARED_MEMORY).total) < ENOUGH_SHARED_MEMORY_BYTES:
        yield f"{SHARED_MEMORY} has {size / 1e6:.0f} MB, too little for processes that share memory (docker run --shm-size=8g)"


def is_logged_in_to_wandb(environment: Mapping[str, str]) -> bool:
    """Returns whether W&B has a key, in the environment or where `wandb login` writes it, without reading the key."""
    if environment.get("WANDB_API_KEY"):
        return True
    home = Path(environment.get("HOME", str(Path.home())))
    files = [Path(environment["NETRC"])] if "NETRC" in environment else [home / ".netrc", home / "_netrc"]
    for file in files:
        try:
            if WANDB_HOST in netrc.netrc(str(file)).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def is_in_repository(directory: Path) -> bool:
    """Returns whether the directory is in a git repository with a commit."""
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=directory, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return git.returncode == 0


def is_free(port: str) -> bool:
    """Returns whether a process could listen on the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(port)))
        except (OSError, ValueError, OverflowError):
            return False
    return True


def to_json(findings: Findings) -> str:
    """Returns the findings as JSON."""
    return json.dumps(asdict(findings), indent=2, ensure_ascii=False)


def to_text(findings: Findings) -> str:
    """Returns the findings for the terminal, in four sections."""
    sections = {
        "Machine": columns(describe(findings.hardware_info)),
        "Plan: what `auto` chooses": columns(
            {name: f"{decision.value} ({decision.reason})" for name, decision in findings.plan.items()}
            or {"none": "see what is missing"}
        ),
        "Self-tests": columns(
            {
                test.name: f"{test.value:,.1f} {test.unit}" if test.passed else f"FAILED: {test.problem}"
                for test in findings.self_tests
            }
        ),
        "Missing": [f"  - {line}" for line in findings.missing] or ["  nothing"],
    }
    return "\n\n".join("\n".join([title, *lines]) for title, lines in sections.items())


def columns(lines: Mapping[str, str]) -> list[str]:
    """Returns lines of names and texts, aligned."""
    width = max(map(len, lines), default=0)
    return [f"  {name:{width}}  {text}" for name, text in lines.items()]


def describe(info: hardware.HardwareInfo) -> dict[str, str]:
    """Returns the hardware info in words, by name."""
    launch, links = info.launch, ", ".join(f"{first}-{second}" for first, second in info.peer_links)
    lines = {
        "system": info.system,
        "CPU": f"{info.cpu_name}, {info.num_cores} usable cores, {', '.join(info.instruction_sets) or 'no SIMD instructions'}",
        "memory": f"{info.memory_bytes / 1e9:.1f} GB",
        "torch": f"built for {info.torch_build}",
        "GPUs": str(len(info.gpus) or ("Apple" if info.has_mps else "none")),
    }
    for index, gpu in enumerate(info.gpus):
        support = [name for name in ("fp16", "bf16", "tf32") if getattr(gpu, f"has_{name}")]
        kind = gpu.architecture or f"capability {gpu.capability[0]}.{gpu.capability[1]}"
        lines[f"GPU {index}"] = f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, {kind}, {', '.join(support) or 'fp32 only'}"
    if len(info.gpus) > 1:
        lines["peer links"] = links or "none: gradients go through the host's memory"
    lines["torch.compile"] = "compiler found" if info.has_compiler else "no compiler"
    if info.omp_num_threads:
        lines["OMP_NUM_THREADS"] = str(info.omp_num_threads)
    lines["launcher"] = (
        "none: this process starts the others of a run"
        if launch.kind == "none"
        else f"{launch.kind}: rank {launch.rank} of {launch.world_size}, local rank {launch.local_rank} of "
        f"{launch.local_world_size}, node {launch.node_rank} of {launch.num_nodes}, restarts {launch.restart_count}"
    )
    return lines
