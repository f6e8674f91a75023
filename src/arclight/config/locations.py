"""Where a project's conf/ is, and where its runs live."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from arclight.distributed.environment import detect_launch
from arclight.errors import InputError

OUTPUTS = Path("outputs")  # where runs live


def find_conf() -> Path:
    """Returns the conf/ directory of the project: of the program that was started, else of the working directory.

    Looked for, in this order: the directory that ARCLIGHT_CONF names (a launcher passes it to its processes), conf/ beside the
    program (`train.py`), conf/ in the working directory or above it, conf/ of the checkout that this package lies in.
    """
    if named := os.environ.get("ARCLIGHT_CONF"):
        return Path(named)
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    starts = [] if program is None else [Path(program).resolve().parent]
    cwd = Path.cwd()
    starts += [cwd, *cwd.parents, Path(__file__).resolve().parents[3]]
    return next((start / "conf" for start in starts if (start / "conf" / "train.yaml").is_file()), starts[-1] / "conf")


CONF = find_conf()


@functools.lru_cache
def unique_dir(wanted: str) -> str:
    """`wanted`, or the first of `wanted_2`, `wanted_3`, ... that is not there yet; within one process always the same.

    Of processes that something else started together (torchrun, srun), the first chooses; the others get a place to forget.
    """
    launch = detect_launch(os.environ)
    if launch.rank or launch.node_rank:
        return tempfile.mkdtemp(prefix="arclight-")
    return str(next(path for path in alternatives(Path(wanted)) if not path.exists()))


def alternatives(wanted: Path) -> Iterator[Path]:
    """`wanted`, `wanted_2`, `wanted_3`, ... without end."""
    yield wanted
    for number in itertools.count(2):
        yield wanted.with_name(f"{wanted.name}_{number}")


OmegaConf.register_new_resolver("unique_dir", unique_dir, use_cache=True)  # with the config, a job elsewhere gets the value


def find_run(run: str, outputs: Path = OUTPUTS) -> Path:
    """The run folder that RUN stands for: a folder, that of a checkpoint, or the newest one for `latest`.

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
        raise InputError(
            f"{run} is no run folder: it holds no config.yaml; outputs/ is where runs live, `latest` is the newest"
        )
    return folder
