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

    facts: hardware.Facts
    plan: dict[str, hardware.Choice]
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
    facts = hardware.probe(environment)
    missing = list(find_missing(facts, environment))
    choices: dict[str, hardware.Choice] = {}
    try:
        choices = hardware.plan(facts, {})
    except InputError as mistake:
        missing.append(f"no plan: {mistake}")
    accelerator = choices["accelerator"].value if choices else "cpu"
    trials = run_trials(facts, accelerator)
    missing += [f"{trial.name}: {trial.problem}" for trial in trials if not trial.is_right]
    return Findings(facts, choices, tuple(trials), tuple(missing))


def find_missing(facts: hardware.Facts, environment: Mapping[str, str]) -> Iterator[str]:
    """What a training run could want and does not find here."""
    yield from facts.problems
    if not facts.has_compiler:
        yield "no C++ compiler, or no headers of Python: hardware.compile=true will not work (Debian: g++ and python3-dev)"
    if facts.gpus and not facts.has_triton:
        yield "no package triton: hardware.compile=true will not work on the GPU (pip install triton)"
    if not is_logged_in_to_wandb(environment):
        yield "not logged in to W&B: runs are kept offline, in their folders (wandb login; or tracker=csv)"
    if shutil.which("git", path=environment.get("PATH")) is None:
        yield "no git: environment.json will not say which code a run was made with"
    elif not is_in_repository(CONF.parent):
        yield f"{CONF.parent} is no git repository: environment.json will not say which code a run was made with (git init)"
    port = environment.get("MASTER_PORT", str(DEFAULT_PORT))
    if facts.launch.kind == "none" and not is_free(port):
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
    plan = {name: f"{choice.value} ({choice.reason})" for name, choice in findings.plan.items()}
    return "\n".join(
        [
            "Machine",
            *columns(describe(findings.facts)),
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


def describe(facts: hardware.Facts) -> dict[str, str]:
    """The facts in words."""
    launch = facts.launch
    lines = {
        "system": facts.system,
        "CPU": f"{facts.cpu_name}, {facts.num_cores} usable cores, {', '.join(facts.instruction_sets) or 'no vectors'}",
        "memory": f"{facts.memory_bytes / 1e9:.1f} GB",
        "torch": f"built for {facts.torch_build}",
        "GPUs": "Apple" if facts.has_mps else "none",
    }
    if facts.gpus:
        lines["GPUs"] = str(len(facts.gpus))
    for index, gpu in enumerate(facts.gpus):
        support = [name for name in ("fp16", "bf16", "tf32") if getattr(gpu, f"has_{name}")]
        kind = gpu.architecture or f"capability {gpu.capability[0]}.{gpu.capability[1]}"
        lines[f"GPU {index}"] = f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, {kind}, {', '.join(support) or 'fp32 only'}"
    if len(facts.gpus) > 1:
        links = ", ".join(f"{first}-{second}" for first, second in facts.peer_links)
        lines["peer links"] = links or "none: gradients go through the host's memory"
    lines["torch.compile"] = "compiler found" if facts.has_compiler else "no compiler"
    if facts.omp_num_threads:
        lines["OMP_NUM_THREADS"] = str(facts.omp_num_threads)
    if launch.kind == "none":
        lines["launcher"] = "none: this process starts the others of a run itself"
    else:
        lines["launcher"] = (
            f"{launch.kind}: rank {launch.rank} of {launch.world_size}, local rank {launch.local_rank} of "
            f"{launch.local_world_size}, node {launch.node_rank} of {launch.num_nodes}, restarts {launch.restart_count}"
        )
    return lines
