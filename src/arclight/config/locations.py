"""Where a project's conf/ and its packages are, and where its runs are written."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import OmegaConf

from arclight.distributed.environment import detect_launch
from arclight.errors import InputError

CONF_VARIABLE = "ARCLIGHT_CONF"
OUTPUTS = Path("outputs")  # of runs
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}  # 1.4 deprecates it


def find_conf() -> Path:
    """Returns the conf/ directory of the project: of the program that was started, else of the working directory.

    In this order: the directory that ARCLIGHT_CONF names (a launcher passes it to its processes), conf/ beside the program
    (`train.py`), conf/ in the working directory or above it, conf/ of the checkout that this package is in.
    """
    if named := os.environ.get(CONF_VARIABLE):
        return Path(named).absolute()
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    starts = [] if program is None else [Path(program).resolve().parent]
    starts += [Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[3]]
    return next((start / "conf" for start in starts if (start / "conf" / "train.yaml").is_file()), starts[-1] / "conf")


def read_conf(name: str) -> dict[str, Any]:
    """Returns the content of a file of conf/, read once; empty where there is none."""
    return _read_conf(CONF / name)


@functools.lru_cache
def _read_conf(file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError:
        return {}


def make_packages_importable(conf: Path) -> None:
    """Adds the directory of conf/ to the import path, and src/ in it where its packages are not installed.

    `python train.py` and `python -m arclight` find packages beside train.py anyway, but not from a directory below.
    """
    packages = [file.parent for file in (conf.parent / "src").glob("*/__init__.py")]
    if any(importlib.util.find_spec(package.name) is None for package in packages):
        sys.path.append(str(conf.parent / "src"))
    if (conf / "train.yaml").is_file() and str(conf.parent) not in sys.path:
        sys.path.append(str(conf.parent))


def conf_state() -> frozenset[tuple[Path, int]]:
    """Returns the files of conf/ with their modification times in ns: what is read from them holds until it changes."""
    return frozenset((file, file.stat().st_mtime_ns) for file in CONF.rglob("*.yaml") if file.is_file())


CONF = find_conf()
make_packages_importable(CONF)


@functools.lru_cache
def unique_dir(path: str) -> str:
    """Returns `path`, or the first of `path_2`, `path_3`, ... that does not exist; within one process always the same.

    Of processes that something else started together (torchrun, srun), the first chooses; the others get a temporary directory.
    """
    launch = detect_launch(os.environ)
    if launch.rank or launch.node_rank:
        return tempfile.mkdtemp(prefix="arclight-")
    return str(next(other for other in alternatives(Path(path)) if not other.exists()))


def alternatives(path: Path) -> Iterator[Path]:
    """Yields `path`, `path_2`, `path_3`, ... without end."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}_{number}")


# with the cache, a job elsewhere gets the value of this process
getattr(OmegaConf, "register_new_resolver" if VERSION_BASE else "register_resolver")("unique_dir", unique_dir, use_cache=True)


def find_run(run: str, outputs: Path = OUTPUTS) -> Path:
    """Returns the run directory for RUN: a directory, that of a checkpoint, or the newest one for `latest`.

    Raises:
        InputError: when there is none.
    """
    if run == "latest":
        folders = [file.parent for file in [*outputs.glob("*/*/config.yaml"), *outputs.glob("*/*/*/config.yaml")]]
        if not folders:
            raise InputError(f"latest: {outputs.resolve()} holds no run; start one with `python train.py`")
        return max(folders, key=lambda folder: (folder / "config.yaml").stat().st_mtime)
    path = Path(run)
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{run} is not a run directory (no config.yaml); see {outputs}/, or use `latest`, the newest one")
    return folder


@contextmanager
def report_unwritable_outputs() -> Iterator[None]:
    """Context manager that turns the error of a directory under outputs/ that cannot be made into an InputError."""
    try:
        yield
    except OSError as error:
        if not Path(str(error.filename)).absolute().is_relative_to(OUTPUTS.absolute()):
            raise
        raise InputError(
            f"{error.filename} cannot be written ({error.strerror}): runs are written to {OUTPUTS}/; start where you may write"
        ) from error
