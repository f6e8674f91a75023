"""Reads and writes the files of a run directory: config, overrides, environment, results, log."""

from __future__ import annotations

import contextlib
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from arclight.config.atomic_file import read_file, read_json, write_atomically
from arclight.config.compose import RunConfig, read_settings
from arclight.config.locations import CONF
from arclight.config.redaction import WithoutSecrets, hide, hide_in_override, without_secrets
from arclight.console import output
from arclight.console.terminal import LIGHTNING, StderrHandler
from arclight.distributed.environment import is_main_process
from arclight.errors import InputError
from arclight.hardware import HardwareInfo

PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "torchmetrics", "hydra-core", "wandb", "numpy", "arclight")
MAX_DIFF_CHARACTERS = 200_000
# Warnings of Lightning 2.6.6 that do not help users of arclight
HARMLESS = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning uses an old API of torch 2.13's pytree
    r"The number of training batches .* is smaller than the logging interval.*",  # the remainder is logged at the end
    r"You requested to overfit but enabled .* dataloader shuffling.*",  # the sampler fixes the order itself
    r"It is recommended to use `self.log\(.*sync_dist=True.*",  # metrics are summed over all processes before they are logged
    r"The `srun` command is available on your system but is not used.*",  # as on every login node of a cluster
    r"Checkpoint directory .* exists and is not empty.*",  # the run resumes
    r"Experiment logs directory .* exists and is not empty.*",  # metrics.csv is beside config.yaml
)


@contextmanager
def log_to_file(folder: Path) -> Iterator[None]:
    """Context manager that writes the log of arclight and Lightning to `train.log`, and warnings to the terminal as well."""
    to_terminal = StderrHandler()
    to_terminal.setLevel(logging.WARNING)
    to_terminal.setFormatter(WithoutSecrets("%(levelname)s: %(message)s"))
    to_file: logging.Handler = logging.NullHandler()
    if is_main_process():
        with explain_write_errors(folder / "train.log"):
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
    for failure in output.failures:  # from before this log
        logging.getLogger(__name__).warning(failure)
    try:
        with output.tolerate_broken_output():
            yield
    except Exception as error:
        info = (type(error), error, error.__traceback__)
        to_file.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the run failed", None, info))
        raise
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        to_file.close()


@contextmanager
def explain_write_errors(file: Path) -> Iterator[None]:
    """Context manager that turns an OSError while writing `file` into an InputError with the reason and the free space."""
    try:
        yield
    except OSError as error:
        parent = next((folder for folder in file.absolute().parents if folder.is_dir()), Path("/"))
        free = shutil.disk_usage(parent).free
        raise InputError(
            f"{file} could not be written ({error.strerror or error}; {free / 1e6:,.1f} MB are free there). Checkpoints are "
            "kept: free some space or fix the permissions, then continue with resume=auto"
        ) from error


class LogFile(logging.FileHandler):
    """`train.log`; a disk error is reported once and never stops the run."""

    is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.is_broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        self.is_broken = True
        error = sys.exc_info()[1]
        print(f"WARNING: {self.baseFilename} could not be written ({error}): logging to it stops here", file=sys.stderr)  # noqa: T201

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the rest of the line that did not fit
            super().close()


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the content of config.yaml; empty where it is missing or damaged."""
    try:
        return read_settings(read_file(folder / "config.yaml"))
    except (OSError, ValueError):
        return {}


def read_results(folder: Path) -> dict[str, Any]:
    """Returns the content of results.json; empty where it is missing or damaged."""
    return read_json(folder / "results.json")


def read_status(folder: Path) -> str:
    """Returns how a run ended, or "running"."""
    return str(read_results(folder).get("status", "running"))


def read_launch_id(folder: Path) -> str:
    """Returns the id of the launch that last trained this run, such as its SLURM job; empty where it had none."""
    try:
        return str(read_json(folder / "environment.json")["hardware"]["launch"]["run_id"])
    except (KeyError, TypeError):
        return ""


def write_status(folder: Path, status: str, message: str = "") -> None:
    """Updates the status in results.json for a run whose own process could not."""
    folder.mkdir(parents=True, exist_ok=True)
    error = {"error": hide(message)} if message else {}
    write_json(folder / "results.json", {**read_results(folder), "status": status, **error})


def write_inputs(run_config: RunConfig, hardware_info: HardwareInfo) -> None:
    """Writes config.yaml (resolved), overrides.txt (one per line) and environment.json, all without secrets."""
    if not is_main_process():
        return
    folder = run_config.folder
    config = yaml.safe_dump(without_secrets(run_config.settings), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", config)
    make_newest(folder / "config.yaml")
    write_text(folder / "overrides.txt", "".join(f"{hide_in_override(override)}\n" for override in run_config.overrides))
    write_json(folder / "environment.json", collect_environment(hardware_info))


@contextmanager
def restore_on_error(folder: Path) -> Iterator[Callable[[], None]]:
    """Context manager that restores a run's files when an InputError is raised, as by a resume that is refused.

    Yields a function that turns this off. A directory that held no run is not touched.
    """
    written = ("config.yaml", "overrides.txt", "environment.json", "results.json", "report.html", "metrics.csv")
    names = written if is_main_process() else ()
    before = {file: (file.read_bytes(), file.stat()) for name in names if (file := folder / name).is_file()}
    try:
        yield before.clear
    except InputError:
        for file in [folder / name for name in names if before and folder / name not in before]:
            file.unlink(missing_ok=True)  # written by the resume that is refused
        for file, (content, stat) in before.items():
            with contextlib.suppress(OSError):  # the InputError is reported, not the disk's
                write_atomically(file, content)
                os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # `latest` and resume=auto sort by it
        raise


def add_to_environment(folder: Path, extra: Mapping[str, Any]) -> None:
    """Adds to environment.json what is known only once the model is built."""
    if is_main_process():
        path = folder / "environment.json"
        write_json(path, {**read_json(path), **extra})


def make_newest(config: Path) -> None:
    """Gives config.yaml the newest modification time of the runs nearby, by which `latest` and resume=auto choose.

    Otherwise a clock that was set back makes them choose an older run.
    """
    parent = config.parent.parent
    others = {*parent.glob("*/config.yaml"), *parent.parent.glob("*/*/config.yaml")} - {config}
    newest = max((other.stat().st_mtime_ns for other in others), default=0)
    if newest >= config.stat().st_mtime_ns:
        os.utime(config, ns=(newest + 1_000_000, newest + 1_000_000))


def write_text(file: Path, text: str) -> None:
    """Writes a small file atomically; raises as `explain_write_errors`."""
    with explain_write_errors(file):
        write_atomically(file, text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically from the main process; nan and inf, which JSON has no numbers for, become null."""
    if not is_main_process():
        return
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()}
    write_text(path, json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def collect_environment(hardware_info: HardwareInfo) -> dict[str, Any]:
    """Returns versions, git commit and uncommitted changes of the project, and the hardware, without secrets."""
    return {
        "system": platform.platform(),
        "command": [hide_in_override(argument) for argument in sys.argv],
        **collect_versions(),
        "git": {
            "commit": run_git(["rev-parse", "HEAD"]),
            "diff": hide(run_git(["diff", "HEAD"]), is_code=True)[:MAX_DIFF_CHARACTERS],
        },
        "hardware": asdict(hardware_info),
    }


def collect_versions() -> dict[str, Any]:
    """Returns the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), "packages": {name: importlib.metadata.version(name) for name in PACKAGES}}


def run_git(arguments: list[str]) -> str:
    """Returns git's output in the project's checkout; empty where there is no git or no repository."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=CONF.parent, capture_output=True, text=True, timeout=10, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
