"""conf/ and the command line composed into one plain config, and what is wrong with them told in one message."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from arclight.config import locations
from arclight.config.locations import OUTPUTS, find_run
from arclight.config.redaction import LEFT_OUT
from arclight.config.renamed import rename_overrides, rename_settings
from arclight.distributed.environment import detect_launch
from arclight.errors import InputError, ProcessError

HOW_TO_START = ("resume", "resume_with_changes", "preflight")  # keys that say nothing of what is trained
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
PREFLIGHTS = ("quick", "full", "none")


@dataclass(frozen=True)
class RunConfig:
    """One run's config: every interpolation resolved, plain dicts, lists, numbers and strings only.

    `data` and `model` are the options chosen in those groups; `folder` is where the run is to live; `started` is when it began,
    by time.monotonic, which never jumps: the start of the process on the command line, the call from Python or in a grid.
    `resume` says which run to go on with: "none", "auto" or a RUN; `resume_with_changes` lets its config be another one now.
    `preflight` is "quick", "full" or "none".
    """

    settings: dict[str, Any]
    overrides: tuple[str, ...]
    data: str
    model: str
    folder: Path
    started: float
    resume: str = "none"
    resume_with_changes: bool = False
    preflight: str = "quick"

    def to_json(self) -> str:
        """As text that the processes of a run are started with; `from_json` is its inverse."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """What `to_json` wrote."""
        plain = json.loads(text)
        return cls(**{**plain, "folder": Path(plain["folder"]), "overrides": tuple(plain["overrides"])})


def compose(overrides: Sequence[str]) -> RunConfig:
    """The config that `python train.py OVERRIDES...` runs with.

    Raises:
        InputError: when a name or value in the overrides is wrong, or a mandatory value is missing.
    """
    overrides = rename_overrides(overrides, is_reported=True)
    with explain_config_errors(overrides), compose_with_hydra(overrides) as config:
        wanted = OUTPUTS / str(config.name) / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        return to_run_config(config, wanted, started=time.monotonic())


@contextmanager
def compose_with_hydra(overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Hydra's config of these overrides, with its `hydra` node, as `hydra.main` would hand it over.

    Inside, HydraConfig holds it, from which `name` reads the chosen options; afterwards it is as it was: Lightning takes a
    HydraConfig that is set for a sign that it was started by `hydra.main`.
    """
    if not (locations.CONF / "train.yaml").is_file():
        raise InputError("no conf/train.yaml here or above: start in your project, or set ARCLIGHT_CONF to its conf/")
    with hydra_set_aside(), initialize_config_dir(str(locations.CONF), version_base="1.3"):
        config = hydra_compose("train", list(overrides), return_hydra_config=True)
    held = HydraConfig.instance()
    before = held.cfg
    held.set_config(config)
    try:
        yield config
    finally:
        held.cfg = before


@contextmanager
def hydra_set_aside() -> Iterator[None]:
    """Inside, Hydra can be set up anew, also where `hydra.main` has done so before."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def in_multirun() -> bool:
    """Whether this job is one of several of a `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def from_hydra(config: DictConfig) -> RunConfig:
    """The config that `hydra.main` composed, and the folder it made for this job."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    with explain_config_errors(list(hydra.overrides.task)), remove_empty_run_dir(folder):
        age_s = 0.0 if in_multirun() else max(0.0, time.time() - psutil.Process().create_time())
        started = time.monotonic() - age_s
        return to_run_config(config, folder, started=started)


@contextmanager
def remove_empty_run_dir(folder: Path) -> Iterator[None]:
    """Inside, a mistake takes the folder with it that Hydra made for the run."""
    try:
        yield
    except (InputError, OmegaConfBaseException):
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()
        raise


def to_run_config(config: DictConfig, folder: Path, *, started: float) -> RunConfig:
    """Resolves everything; with `resume=RUN`, the overrides that RUN was started with come before those of now.

    Raises:
        InputError: for keys that nothing takes.
    """
    from arclight.config.provenance import explain_unknown  # composes again, by means of this module

    hydra = HydraConfig.get()
    overrides = tuple(hydra.overrides.task)
    resume = str(config.get("resume") or "none")
    if resume not in ("none", "auto"):
        whole = merged(overrides_of(find_run(resume)), overrides)
        if hidden := [override.partition("=")[0] for override in whole if LEFT_OUT in override]:
            raise InputError(
                f"resume={resume}: that run's overrides.txt leaves out {', '.join(hidden)}, which held a secret; "
                f"give it again: {hidden[0]}=..."
            )
        if len(whole) > len(overrides):
            with compose_with_hydra(whole) as config:
                return to_run_config(config, folder, started=started)
    tasks_own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    settings = OmegaConf.to_container(tasks_own, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    plain = rename_settings({str(key): value for key, value in settings.items()}, overrides, is_reported=True)
    if unknown := explain_unknown(plain, overrides):
        raise InputError(unknown)
    if plain["preflight"] not in PREFLIGHTS:
        raise InputError(f"preflight={plain['preflight']} is none of {', '.join(PREFLIGHTS)}")
    choices = hydra.runtime.choices
    return RunConfig(
        settings={key: value for key, value in plain.items() if key not in HOW_TO_START},
        overrides=tuple(override for override in overrides if override.partition("=")[0] not in HOW_TO_START),
        data=str(choices["data"]),
        model=str(choices["model"]),
        folder=folder,
        started=started,
        resume=resume,
        resume_with_changes=bool(plain["resume_with_changes"]),
        preflight=plain["preflight"],
    )


class PlainLoader(yaml.SafeLoader):
    """Plain values only, and none that stand for others: a few lines of those can grow to more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias, which the config of a run never does")
        return super().compose_node(parent, index)


def read_settings(text: str) -> dict[str, Any]:
    """The settings in the text of a run's config.yaml.

    Raises:
        ValueError: when it is no YAML of plain values, or holds no keys; the message quotes nothing of it.
    """
    try:
        settings = yaml.load(text, Loader=PlainLoader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or "it is no plain YAML") from error
    if not isinstance(settings, dict):
        raise ValueError(f"dict expected, {type(settings).__name__} found")
    return rename_settings(settings)


def overrides_of(folder: Path) -> tuple[str, ...]:
    """The overrides that the run of this folder was started with; none where the file is not there."""
    try:
        return tuple(rename_overrides((folder / "overrides.txt").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return ()


def merged(earlier: Sequence[str], later: Sequence[str]) -> list[str]:
    """Both lists of overrides in one; of two for the same key the later counts, as Hydra wants options of a group only once."""
    keys = {override.partition("=")[0] for override in later}
    return [*(override for override in earlier if override.partition("=")[0] not in keys), *later]


@contextmanager
def explain_config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Inside, what Hydra and OmegaConf say of a wrong config becomes an InputError that names all mistakes and the way out."""
    try:
        yield
    except CONFIG_ERRORS as error:
        raise explained(error, overrides) from error


def explained(error: Exception, arguments: Sequence[str]) -> InputError:
    """Returns the error of Hydra or OmegaConf in the user's terms."""
    from arclight.config.override_errors import explain  # composes again, by means of this module

    return InputError(explain(error, arguments))


@contextmanager
def report_errors() -> Iterator[None]:
    """Inside, a mistake of the user ends the program with one message and exit status 2, a process that died with status 1.

    With ARCLIGHT_DEBUG=1 the traceback is shown. Everything else keeps it: it is a bug, and its trace is wanted.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main hands errors on instead of printing them its own way
    try:
        with report_unwritable_outputs():
            try:
                yield
            except CONFIG_ERRORS as error:
                raise explained(error, sys.argv[1:]) from error
    except (InputError, ProcessError) as error:
        if os.environ.get("ARCLIGHT_DEBUG") == "1":
            raise
        tell(error)
        sys.exit(2 if isinstance(error, InputError) else 1)


@contextmanager
def report_unwritable_outputs() -> Iterator[None]:
    """Inside, a folder for runs that cannot be made, by Hydra or by us, becomes an InputError."""
    try:
        yield
    except OSError as error:
        if not Path(str(error.filename)).absolute().is_relative_to(OUTPUTS.absolute()):
            raise
        raise InputError(
            f"{error.filename} cannot be written ({error.strerror}): runs live in {OUTPUTS}/; start where you may write"
        ) from error


def tell(error: Exception) -> None:
    """Prints what went wrong; of several processes, the first needs no name."""
    rank = detect_launch(os.environ).rank
    print(f"{f'process {rank}: ' if rank else ''}error: {error}", file=sys.stderr)


def flatten(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings by dotted key."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, settings
