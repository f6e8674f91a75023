"""The files of a run folder: what went in (config, overrides, environment), what came out (results, scores, log)."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from arclight.config.atomic_file import write_atomically
from arclight.config.compose import RunConfig, read_settings
from arclight.config.locations import CONF
from arclight.config.redaction import WithoutSecrets, hide, hide_in_override, without_secrets
from arclight.console.terminal import LIGHTNING, StderrHandler
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError
from arclight.hardware import HardwareInfo
from arclight.report.page import whole

PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "torchmetrics", "hydra-core", "wandb", "numpy", "arclight")
INPUTS = ("config.yaml", "overrides.txt", "environment.json")
MAX_DIFF_CHARACTERS = 200_000
# Warnings of Lightning 2.6.6 that say nothing to a user of ours
HARMLESS = (
    r".*isinstance\(treespec, LeafSpec\).*",  # it asks torch 2.13's trees in the old way
    r"The number of training batches .* is smaller than the logging interval.*",  # what is left over is logged at the end
    r"You requested to overfit but enabled .* dataloader shuffling.*",  # the order is fixed then; nothing needs turning off
    r"It is recommended to use `self.log\(.*sync_dist=True.*",  # scores come of sums over all processes and are alike on each
    r"The `srun` command is available on your system but is not used.*",  # processes are started with or without it
    r"Checkpoint directory .* exists and is not empty.*",  # the run goes on
    r"The `srun` command is available on your system but is not used.*",  # as on every login machine of a cluster
    r"Experiment logs directory .* exists and is not empty.*",  # the run folder is new; metrics.csv lies beside config.yaml
)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Inside, what arclight and Lightning say goes to `train.log`; what is a warning or worse, to the terminal as well."""
    to_terminal = StderrHandler()
    to_terminal.setLevel(logging.WARNING)
    to_terminal.setFormatter(WithoutSecrets("%(levelname)s: %(message)s"))
    to_file: logging.Handler = logging.NullHandler()
    if is_main_process():
        with written(folder / "train.log"):
            folder.mkdir(parents=True, exist_ok=True)
            to_file = LogFile(folder / "train.log", encoding="utf-8")
        to_file.setFormatter(WithoutSecrets("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("arclight", *LIGHTNING)]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [to_terminal, to_file], False
        logger.setLevel(logging.INFO)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    try:
        yield
    except Exception as error:
        to_file.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the run failed", None, as_info(error)))
        raise
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        to_file.close()


@contextmanager
def written(file: Path) -> Iterator[None]:
    """Inside, this file of a run is written; what the disk refuses is told in one message.

    Raises:
        InputError: naming the file, what the disk says, and how much is free there.
    """
    try:
        yield
    except OSError as error:
        there = next((folder for folder in file.absolute().parents if folder.is_dir()), Path("/"))
        free = shutil.disk_usage(there).free
        raise InputError(
            f"{file} could not be written ({error.strerror or error}; {free / 1e6:,.1f} MB are free there); what is saved "
            "stays: make room or make it writable, then go on with resume=auto"
        ) from error


class LogFile(logging.FileHandler):
    """`train.log`; what its disk does not take is told once and lost, and never costs the run."""

    is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.is_broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        self.is_broken = True
        error = sys.exc_info()[1]
        print(f"WARNING: {self.baseFilename} could not be written ({error}): it holds nothing from here on", file=sys.stderr)  # noqa: T201

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is left of the line that did not fit
            super().close()


def as_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """The error as logging wants it."""
    return type(error), error, error.__traceback__


@dataclass(frozen=True)
class Run:
    """What a run leaves: `results` as in results.json, and its folder.

    `score` is the best value of the task's monitored metric, which sweeps steer by; nan when nothing was validated. `load`
    gives `model`, the LightningModule with its best weights.
    """

    results: dict[str, Any]
    folder: Path
    load: Callable[[], Any]

    @property
    def score(self) -> float:
        value = self.results.get(str(self.results.get("monitor")))
        return math.nan if value is None else float(value)

    @functools.cached_property
    def model(self) -> Any:
        return self.load()


def settings_of(folder: Path) -> dict[str, Any]:
    """The config that a run was made with; empty where its file is half written or damaged."""
    try:
        return read_settings((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def results_of(folder: Path) -> dict[str, Any]:
    """What results.json holds; nothing where it is not there, as on any machine of a run but its first."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_int=whole)
    except (OSError, ValueError, RecursionError):
        return {}
    return results if isinstance(results, dict) else {}


def status_of(folder: Path) -> str:
    """How a run ended, as results.json has it; "running" while nothing has written how."""
    return str(results_of(folder).get("status", "running"))


def launch_of(folder: Path) -> str:
    """The name of the launch that a run was made in last, such as the number of its SLURM job; empty where it had none."""
    try:
        written = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return str(written["hardware"]["launch"]["run_id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def mark_ended(folder: Path, status: str, message: str = "") -> None:
    """Makes results.json say how a run ended where its own process could not."""
    folder.mkdir(parents=True, exist_ok=True)
    error = {"error": hide(message)} if message else {}
    write_json(folder / "results.json", {**results_of(folder), "status": status, **error})


def write_inputs(run_config: RunConfig, hardware_info: HardwareInfo) -> None:
    """config.yaml (resolved), overrides.txt (one a line) and environment.json, all without secrets."""
    if not is_main_process():
        return
    folder = run_config.folder
    config = yaml.safe_dump(without_secrets(run_config.settings), sort_keys=False, allow_unicode=True)
    put(folder / "config.yaml", config)
    make_newest(folder / "config.yaml")
    put(folder / "overrides.txt", "".join(f"{hide_in_override(override)}\n" for override in run_config.overrides))
    write_json(folder / "environment.json", environment(hardware_info))


@contextmanager
def restore_on_error(folder: Path) -> Iterator[Callable[[], None]]:
    """Inside, a mistake that is found before the call that this gives leaves what the run was before: a resume gone wrong.

    A mistake is an InputError. A folder that held no run is not touched.
    """
    held = {folder / name for name in (*INPUTS, "results.json", "report.html") if is_main_process()}
    before = {file: (file.read_bytes(), file.stat()) for file in held if file.is_file()}
    try:
        yield before.clear
    except InputError:
        for file, (content, of_file) in before.items():
            with contextlib.suppress(OSError):  # the disk; the mistake is what is told
                write_atomically(file, content)
                os.utime(file, ns=(of_file.st_atime_ns, of_file.st_mtime_ns))  # `latest` and resume=auto sort by it
        raise


def add_to_environment(folder: Path, hardware_info: Mapping[str, Any]) -> None:
    """Adds to environment.json what is known only once the model is there."""
    if is_main_process():
        path = folder / "environment.json"
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **hardware_info})


def make_newest(config: Path) -> None:
    """Sees to it that no run nearby is newer by the time of its config, by which `latest` and resume=auto choose.

    A clock that was set back would have them take an older run.
    """
    around = config.parent.parent
    others = {*around.glob("*/config.yaml"), *around.parent.glob("*/*/config.yaml")} - {config}
    newest = max((other.stat().st_mtime_ns for other in others), default=0)
    if newest >= config.stat().st_mtime_ns:
        os.utime(config, ns=(newest + 1_000_000, newest + 1_000_000))


def put(file: Path, text: str) -> None:
    """Writes a small file, in place whole or not at all; raises as `written`."""
    with written(file):
        write_atomically(file, text)


def discard_unless_trained(folder: Path) -> None:
    """Removes the folder of a run that a mistake stopped before its first checkpoint: the message says all that it holds."""
    if not any(folder.glob("checkpoints/*.ckpt")):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run's folder is there, too
            folder.parent.rmdir()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The content as JSON, in place whole or not at all; a number that JSON lacks (nan, inf) becomes null."""
    if not is_main_process():
        return
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()}
    put(path, json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def environment(hardware_info: HardwareInfo) -> dict[str, Any]:
    """Versions, git commit and uncommitted changes of the project, hardware; without secrets."""
    return {
        "system": platform.platform(),
        "command": [hide_in_override(argument) for argument in sys.argv],
        **versions(),
        "git": {
            "commit": ask_git(["rev-parse", "HEAD"]),
            "diff": hide(ask_git(["diff", "HEAD"]), is_code=True)[:MAX_DIFF_CHARACTERS],
        },
        "hardware": asdict(hardware_info),
    }


def versions() -> dict[str, Any]:
    """Of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), "packages": {name: importlib.metadata.version(name) for name in PACKAGES}}


def ask_git(arguments: list[str]) -> str:
    """What git says of the project; empty where there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=CONF.parent, capture_output=True, text=True, timeout=10, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
