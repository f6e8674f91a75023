"""Composes conf/ and the command line into one plain config, and reports all that is wrong with them in one message."""

from __future__ import annotations

import copy
import functools
import json
import os
import shlex
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
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from arclight.config import locations
from arclight.config.known_names import message_of_hydra, unfit_groups, why_not_composed
from arclight.config.locations import OUTPUTS, find_run, report_unwritable_outputs
from arclight.config.other_templates import translate_overrides
from arclight.config.overrides.start_settings import start_errors
from arclight.config.redaction import LEFT_OUT
from arclight.config.renamed import rename_overrides, rename_settings
from arclight.console.interrupt import report_interrupt
from arclight.console.output import tolerate_broken_output
from arclight.console.terminal import printable
from arclight.distributed.environment import detect_launch
from arclight.errors import InputError, ProcessError

HOW_TO_START = ("resume", "resume_with_changes", "preflight")  # keys that do not change what is trained
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)

# `${data_info:num_classes}` stays as it is when the config is composed; `groups.resolve_late` replaces it
OmegaConf.register_new_resolver("data_info", lambda name: f"${{data_info:{name}}}", replace=True)


@dataclass(frozen=True)
class RunConfig:
    """One run's config: every interpolation resolved, plain dicts, lists, numbers and strings only.

    `data` and `model` are the options chosen there, `folder` is the run directory, `new_folder` that of a new run if
    `resume=auto` has found another; `started` is when the run began by time.monotonic; `resume` is "none", "auto" or a RUN.
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
    new_folder: Path | None = None

    def to_json(self) -> str:
        """Returns the text that is passed to the processes of a run; `from_json` is the inverse."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Returns the config that `to_json` wrote."""
        plain = json.loads(text)
        folders = {name: plain[name] and Path(plain[name]) for name in ("folder", "new_folder")}
        return cls(**{**plain, **folders, "overrides": tuple(plain["overrides"])})


def compose(overrides: Sequence[str]) -> RunConfig:
    """Returns the config that `python train.py OVERRIDES...` runs with.

    Raises:
        InputError: when a name or value in the overrides is wrong, or a mandatory value is missing.
    """
    overrides = translate_overrides(rename_overrides(overrides, is_reported=True))
    with explain_config_errors(overrides), compose_with_hydra(overrides) as config:
        folder = OUTPUTS / str(config.name) / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        if any(text.startswith("hydra.run.dir=") for text in overrides):
            folder = Path(config.hydra.run.dir)
        return to_run_config(config, folder, started=time.monotonic())


@contextmanager
def compose_with_hydra(overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Context manager that gives Hydra's config of these overrides, with its `hydra` node, as `hydra.main` passes it.

    Inside, HydraConfig holds it, from which `name` reads the chosen options. Afterwards it is as before: Lightning takes a
    HydraConfig that is set for a sign that it was started by `hydra.main`.
    """
    if not (locations.CONF / "train.yaml").is_file():
        raise InputError("no conf/train.yaml here or above: start in your project, or set ARCLIGHT_CONF to its conf/")
    config = copy.deepcopy(_composed(tuple(overrides), locations.conf_state()))  # values of ${now:} are stored in it
    config.hydra.runtime.cwd = str(Path.cwd())
    held = HydraConfig.instance()
    before = held.cfg
    held.set_config(config)
    try:
        yield config
    finally:
        held.cfg = before


@functools.lru_cache(maxsize=32)
def _composed(overrides: tuple[str, ...], files: frozenset[tuple[Path, int]]) -> DictConfig:
    """Composes once for these overrides and files of conf/: finding and correcting errors needs the same configs repeatedly."""
    with without_hydra(), initialize_config_dir(str(locations.CONF), **locations.VERSION_BASE):
        try:
            return hydra_compose("train", list(overrides), return_hydra_config=True)
        except CONFIG_ERRORS:
            raise
        except Exception as error:  # Hydra cannot read a file
            raise ConfigCompositionException(why_not_composed(error)) from error


@contextmanager
def without_hydra() -> Iterator[None]:
    """Context manager inside which Hydra can be initialized again, also where `hydra.main` has done so before."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def in_multirun() -> bool:
    """Returns whether this job is one of several of a `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def from_hydra(config: DictConfig) -> RunConfig:
    """Returns the config that `hydra.main` composed, in the directory that it made for this job; an error removes that."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    age_s = 0.0 if in_multirun() else max(0.0, time.time() - psutil.Process().create_time())
    try:
        with explain_config_errors(list(hydra.overrides.task)):
            return to_run_config(config, folder, started=time.monotonic() - age_s)
    except InputError:
        with suppress(OSError):  # only empty ones
            folder.rmdir()
            folder.parent.rmdir()
        raise


def to_run_config(config: DictConfig, folder: Path, *, started: float) -> RunConfig:
    """Returns the config with everything resolved; with `resume=RUN`, the overrides of RUN apply before those of now.

    Raises:
        InputError: for keys that nothing takes or that are missing, and those that say how to start.
    """
    from arclight.config.overrides.errors import find_unknown, join  # compose by means of this module

    hydra = HydraConfig.get()
    overrides = tuple(hydra.overrides.task)
    resume = str(config.get("resume") or "none")
    if resume not in ("none", "auto"):
        all_of_them = with_overrides_of(resume, overrides)
        if len(all_of_them) > len(overrides):
            with compose_with_hydra(all_of_them) as config:
                return to_run_config(config, folder, started=started)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    if config.get("seed") is None:
        require_no_reference_to_seed(OmegaConf.to_container(own, resolve=False))
    settings = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    settings.setdefault("data", {})  # data=none
    plain = rename_settings({str(key): value for key, value in settings.items()}, overrides, is_reported=True)
    if errors := [*unfit_groups(plain), *find_unknown(plain, overrides), *start_errors(plain)]:
        raise join(errors, overrides)
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


def require_no_reference_to_seed(settings: Any) -> None:
    """Raises InputError for a value that refers to a seed that is null, and so is drawn when the run starts."""
    for key, value in flatten(settings):
        if isinstance(value, str) and "${seed}" in value:
            raise InputError(f"seed=null: {key}={value} refers to the seed; set seed to a number", key="seed")


def with_overrides_of(run: str, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that RUN was started with, and after them these, which replace those of the same key.

    Raises:
        InputError: when RUN's overrides leave out a secret, or name classes to build or settings of Hydra, which its author
            chose and not the user: they must be typed.
    """
    before = [text for text in overrides_of(find_run(run)) if key_of(text) not in map(key_of, overrides)]
    if hidden := [key_of(text) for text in before if LEFT_OUT in text]:
        raise InputError(
            f"resume={run}: that run's overrides.txt leaves out {', '.join(hidden)}, which held a secret; "
            f"give it again: {hidden[0]}=..."
        )
    if foreign := [text for text in before if "_target_" in text or text.lstrip("+~").startswith(("hydra.", "hydra/"))]:
        raise InputError(
            f"resume={run}: that run's overrides.txt chooses code to run: {', '.join(foreign)}; if you trust it, type it: "
            f"python train.py resume={run} {shlex.join(foreign)}"
        )
    return [*before, *overrides]


def key_of(override: str) -> str:
    """Returns the key of an override, with its sign."""
    return override.partition("=")[0]


class PlainLoader(yaml.SafeLoader):
    """Loads plain values only, and no aliases: a few lines of those can grow to more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias, which the config of a run never does")
        return super().compose_node(parent, index)


def read_settings(text: str) -> dict[str, Any]:
    """Returns the settings in the text of a run's config.yaml, by their present names.

    Raises:
        ValueError: when it is not YAML of plain values, or holds no keys; the message quotes nothing of it.
    """
    try:
        settings = yaml.load(text, Loader=PlainLoader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or "it is no plain YAML") from error
    if not isinstance(settings, dict):
        raise ValueError(f"dict expected, {type(settings).__name__} found")
    return rename_settings(settings)


def overrides_of(folder: Path) -> tuple[str, ...]:
    """Returns the overrides that the run in this directory was started with; none where the file is missing."""
    try:
        return tuple(rename_overrides((folder / "overrides.txt").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return ()


@contextmanager
def explain_config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Context manager that turns an error of Hydra or OmegaConf into an InputError with everything that is wrong."""
    try:
        yield
    except CONFIG_ERRORS as error:
        from arclight.config.overrides.errors import explain  # composes by means of this module

        raise explain(error, overrides) from error


@contextmanager
def report_errors() -> Iterator[None]:
    """Context manager that ends the program with one message: status 2 for a user's error, 1 for a process that died.

    What Hydra raises before a run has begun is an error of the user, too. ARCLIGHT_DEBUG=1 shows the traceback. Everything else
    keeps it: that is a bug.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main then raises errors instead of printing them
    with tolerate_broken_output(), report_interrupt():
        try:
            with report_unwritable_outputs(), explain_config_errors(sys.argv[1:]):
                yield
        except (InputError, ProcessError) as error:
            if os.environ.get("ARCLIGHT_DEBUG") == "1":
                raise
            print_error(error)
            sys.exit(2 if isinstance(error, InputError) else 1)
        except Exception as error:
            if os.environ.get("ARCLIGHT_DEBUG") == "1" or not (message := message_of_hydra(error)):
                raise
            print_error(InputError(message))
            sys.exit(2)


def print_error(error: Exception) -> None:
    """Prints an error on stderr, after the rank of the process if it is not the first."""
    rank = detect_launch(os.environ).rank
    print(f"{f'process {rank}: ' if rank else ''}error: {printable(str(error))}", file=sys.stderr)


def flatten(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested settings by dotted key."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, settings
