"""What this machine is, what `auto` takes on it and why, what it does when tried, and what is missing."""

from __future__ import annotations

import json
import netrc
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arclight import hardware
from arclight.config.locations import CONF
from arclight.distributed.rendezvous import DEFAULT_PORT
from arclight.errors import InputError
from arclight.hardware.trials import Trial, run_trials

ENOUGH_SHARED_MEMORY_BYTES = 2**30
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
WANDB_HOST = "api.wandb.ai"


@dataclass(frozen=True)
class Findings:
    """All that the doctor found; `missing` holds what is not there, each with what it is for or the way out."""

    hardware_info: hardware.HardwareInfo
    plan: dict[str, hardware.Decision]
    trials: tuple[Trial, ...]
    missing: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def examine(environment: Mapping[str, str] = os.environ) -> Findings:
    """Looks at everything; takes a few seconds, most of them for the trials.

    Raises:
        InputError: when a variable of the launcher that should be a number is none.
    """
    hardware_info = hardware.probe(environment)
    missing = list(find_missing(hardware_info, environment))
    decisions: dict[str, hardware.Decision] = {}
    try:
        decisions = hardware.plan(hardware_info, {})
    except InputError as error:
        missing.append(f"no plan: {error}")
    accelerator = decisions["accelerator"].value if decisions else "cpu"
    trials = run_trials(hardware_info, accelerator)
    missing += [f"{trial.name}: {trial.problem}" for trial in trials if not trial.is_right]
    return Findings(hardware_info, decisions, tuple(trials), tuple(missing))


def find_missing(hardware_info: hardware.HardwareInfo, environment: Mapping[str, str]) -> Iterator[str]:
    """What a training run could want and does not find here."""
    yield from hardware_info.problems
    if not hardware_info.has_compiler:
        yield "no C++ compiler, or no headers of Python: hardware.compile=true will not work (Debian: g++ and python3-dev)"
    if hardware_info.gpus and not hardware_info.has_triton:
        yield "no package triton: hardware.compile=true will not work on the GPU (pip install triton)"
    if not is_logged_in_to_wandb(environment):
        yield "not logged in to W&B: runs are kept offline, in their folders (wandb login; or logger=csv)"
    if shutil.which("git", path=environment.get("PATH")) is None:
        yield "no git: environment.json will not say which code a run was made with"
    elif not is_in_repository(CONF.parent):
        yield f"{CONF.parent} is no git repository: environment.json will not say which code a run was made with (git init)"
    port = environment.get("MASTER_PORT", str(DEFAULT_PORT))
    if hardware_info.launch.kind == "none" and not is_free(port):
        yield f"port {port} is taken, on which the processes of torchrun meet (MASTER_PORT names another)"
    if SHARED_MEMORY.is_dir() and (size := shutil.disk_usage(SHARED_MEMORY).total) < ENOUGH_SHARED_MEMORY_BYTES:
        yield f"{SHARED_MEMORY} holds {size / 1e6:.0f} MB, little for processes that share memory (docker run --shm-size=8g)"


def is_logged_in_to_wandb(environment: Mapping[str, str]) -> bool:
    """Whether W&B has a key, in the environment or where `wandb login` puts it; the key itself is not looked at."""
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


def is_in_repository(folder: Path) -> bool:
    """Whether git knows the folder."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0


def is_free(port: str) -> bool:
    """Whether a process could listen there; a port that is no number is none."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(port)))
        except (OSError, ValueError, OverflowError):
            return False
    return True


def to_json(findings: Findings) -> str:
    """The findings for other programs."""
    return json.dumps(findings.to_plain(), indent=2, ensure_ascii=False)


def to_text(findings: Findings) -> str:
    """The findings for people, in four sections."""
    trials = {
        trial.name: f"{trial.value:,.1f} {trial.unit}" if trial.is_right else f"FAILED: {trial.problem}"
        for trial in findings.trials
    }
    plan = {name: f"{decision.value} ({decision.reason})" for name, decision in findings.plan.items()}
    return "\n".join(
        [
            "Machine",
            *columns(describe(findings.hardware_info)),
            "",
            "Plan: what `auto` takes",
            *columns(plan or {"none": "see what is missing"}),
            "",
            "Trials",
            *columns(trials),
            "",
            "Missing",
            *([f"  - {line}" for line in findings.missing] or ["  nothing"]),
        ]
    )


def columns(lines: Mapping[str, str]) -> Iterable[str]:
    """Names on the left, as wide as the longest."""
    width = max(map(len, lines), default=0)
    return [f"  {name:{width}}  {text}" for name, text in lines.items()]


def describe(hardware_info: hardware.HardwareInfo) -> dict[str, str]:
    """The facts in words."""
    launch = hardware_info.launch
    lines = {
        "system": hardware_info.system,
        "CPU": f"{hardware_info.cpu_name}, {hardware_info.num_cores} usable cores, "
        f"{', '.join(hardware_info.instruction_sets) or 'no vector instructions'}",
        "memory": f"{hardware_info.memory_bytes / 1e9:.1f} GB",
        "torch": f"built for {hardware_info.torch_build}",
        "GPUs": "Apple" if hardware_info.has_mps else "none",
    }
    if hardware_info.gpus:
        lines["GPUs"] = str(len(hardware_info.gpus))
    for index, gpu in enumerate(hardware_info.gpus):
        support = [name for name in ("fp16", "bf16", "tf32") if getattr(gpu, f"has_{name}")]
        kind = gpu.architecture or f"capability {gpu.capability[0]}.{gpu.capability[1]}"
        lines[f"GPU {index}"] = f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, {kind}, {', '.join(support) or 'fp32 only'}"
    if len(hardware_info.gpus) > 1:
        links = ", ".join(f"{first}-{second}" for first, second in hardware_info.peer_links)
        lines["peer links"] = links or "none: gradients go through the host's memory"
    lines["torch.compile"] = "compiler found" if hardware_info.has_compiler else "no compiler"
    if hardware_info.omp_num_threads:
        lines["OMP_NUM_THREADS"] = str(hardware_info.omp_num_threads)
    if launch.kind == "none":
        lines["launcher"] = "none: this process starts the others of a run itself"
    else:
        lines["launcher"] = (
            f"{launch.kind}: rank {launch.rank} of {launch.world_size}, local rank {launch.local_rank} of "
            f"{launch.local_world_size}, node {launch.node_rank} of {launch.num_nodes}, restarts {launch.restart_count}"
        )
    return lines
