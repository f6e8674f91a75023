"""One training step of a config on a real batch, the FLOPs in it, and settings of torch that change its speed."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor
from torch.optim import Optimizer

from arclight.benchmark.command_line import Log
from arclight.benchmark.measurement import Figure
from arclight.callbacks.flops import count_useful
from arclight.checkpoint.contents import build_module
from arclight.config.compose import compose_with_hydra, explain_config_errors, to_run_config
from arclight.config.groups import module_group
from arclight.config.instantiate import parameters_of
from arclight.errors import InputError, first_line
from arclight.hardware.peak_measurement import DTYPES, float32_precision, seconds_of
from arclight.interfaces import DataInfo, loss_in, num_positions, num_samples, training_step_args, unit_counts, work_units
from arclight.runs.build import build_data

NUM_BATCHES = 50  # of which the one of median size is measured
NUM_WARMUP = 3  # calls before anything is measured: compilers, allocators and cuDNN's search
ONE_OPTIMIZER = "this benchmark takes modules with one optimizer that needs no trainer; benchmark train takes all"
SWITCHES = ("cudnn_benchmark", "channels_last", "compile")

Call = TypeVar("Call", bound=Callable[[], object])


@dataclass(frozen=True)
class Backend:
    """One combination of settings; the defaults are the plain one, which every device offers."""

    precision: str = "fp32"  # of DTYPES; float32 throughout, while torch's own default lets convolutions use TF32
    cudnn: bool = True
    cudnn_benchmark: bool = False
    channels_last: bool = False  # memory format of images and filters
    compile: bool = False

    @property
    def name(self) -> str:
        """What differs from the plain combination."""
        differences = [self.precision] if self.precision != "fp32" else []
        differences += ["cudnn off"] if not self.cudnn else []
        differences += [switch.replace("_", " ") for switch in SWITCHES if getattr(self, switch)]
        return " + ".join(differences) or "plain"


@contextmanager
def applied(backend: Backend) -> Iterator[None]:
    """Context manager that sets the process-wide settings of the backend and restores them afterwards."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    cudnn.enabled, cudnn.benchmark = backend.cudnn, backend.cudnn_benchmark
    try:
        with float32_precision(backend.precision):
            yield
    finally:
        cudnn.enabled, cudnn.benchmark = before


def autocast(backend: Backend, device: torch.device) -> torch.autocast:
    """Returns the context of the forward pass, as Lightning's mixed precision has it."""
    is_mixed = DTYPES[backend.precision] != torch.float32
    return torch.autocast(device.type, DTYPES[backend.precision], enabled=is_mixed, cache_enabled=False)


def warm_up(
    makers: Mapping[str, Callable[[], Call]], device: torch.device, log: Log
) -> tuple[dict[str, Call], dict[str, float], dict[str, str]]:
    """Makes every call and calls it; returns calls, seconds of each first one, and errors of those that failed, by name."""
    calls: dict[str, Call] = {}
    first_s: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, make in makers.items():
        log(f"first calls: {name}")
        try:
            call = make()
            first_s[name] = seconds_of(call, 1, device)
            seconds_of(call, NUM_WARMUP - 1, device)
            calls[name] = call
        except Exception as error:  # whatever a compiler or a kernel raises: the others can still be measured
            failed[name] = f"failed: {type(error).__name__}: {first_line(error)}"
    return calls, first_s, failed


class Work(NamedTuple):
    """What a batch holds: samples, tokens without padding, positions with padding (both 0 where it does not say)."""

    samples: int
    tokens: int
    positions: int

    def figures(self, flops: float | None, peak: float, calls_per_s: Sequence[float]) -> dict[str, Figure]:
        """Returns the rates of samples, tokens and FLOPs in each round, and the fraction of the peak FLOP/s."""
        rates: dict[str, tuple[float, str]] = {"samples": (self.samples, "1/s"), "tokens": (self.tokens, "1/s")}
        if flops is not None:
            rates |= {"flops": (flops / 1e9, "GFLOP/s"), "peak_share": (flops / peak, "")}
        return {
            name: Figure(tuple(amount * rate for rate in calls_per_s), unit) for name, (amount, unit) in rates.items() if amount
        }


@dataclass(frozen=True)
class Sample:
    """A config, the metadata of its data, and one training batch of it.

    `flops` are those of the matrix products and convolutions of one step, forward and backward, padding left out; None where
    they cannot be counted.
    """

    overrides: tuple[str, ...]
    settings: dict[str, Any]
    data_info: DataInfo | None
    batch: Any
    work: Work
    flops: float | None


def with_defaults(overrides: Sequence[str], defaults: Mapping[str, str]) -> list[str]:
    """Returns the overrides after the defaults that they leave in force: `data=...` drops the defaults below `data`, too."""
    given = {key_of(override) for override in overrides}
    used = [f"{key}={value}" for key, value in defaults.items() if key not in given and key.partition(".")[0] not in given]
    return [*used, *overrides]


def key_of(override: str) -> str:
    """Returns the key of an override, without Hydra's signs before it."""
    return override.lstrip("+~").partition("=")[0]


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of `python train.py OVERRIDES...`; creates no run directory.

    Raises:
        InputError: for an error in the overrides.
    """
    with explain_config_errors(overrides), compose_with_hydra(overrides) as config:
        settings = to_run_config(config, Path(), started=0.0).settings
        return {**settings, "seed": settings["seed"] or 0}  # null: a run would draw one


def make_sample(overrides: Sequence[str]) -> Sample:
    """Composes the config, loads its data and returns a training batch of median size.

    Raises:
        InputError: for an error in the overrides, or a training split without a whole batch.
    """
    settings = compose(overrides)
    if not settings["data"]:
        raise InputError("this benchmark needs a data module: name one with data=...", key="data")
    data = build_data(settings, workers=0)
    data.prepare_data()
    data.setup("fit")
    batches = sorted(itertools.islice(data.train_dataloader(), NUM_BATCHES), key=lambda batch: sum(unit_counts(batch).values()))
    if not batches:
        raise InputError(f"data.batch_size={settings['data'].get('batch_size')} is larger than the training split")
    data_info = getattr(data, "data_info", None)
    batch = batches[len(batches) // 2]
    work = Work(num_samples(batch), sum(unit_counts(batch).values()), num_positions(batch))
    per_unit = count_useful(build_module(settings, data_info), batch)
    flops = None if per_unit is None else sum(per_unit[unit] * count for unit, count in work_units(batch).items())
    return Sample(tuple(overrides), settings, data_info, batch, work, flops)


def takes_channels_last(settings: Mapping[str, Any]) -> bool:
    """Returns whether the LightningModule of the config has the option `channels_last`."""
    group = module_group(settings)
    return "channels_last" in parameters_of(settings[group]["_target_"], group)


def silent(module: LightningModule) -> LightningModule:
    """Returns the module, which logs nothing from now on: here is no trainer that would take it."""
    quiet: Any = module
    quiet.log = quiet.log_dict = lambda *arguments, **options: None
    return module


def module_for(sample: Sample, backend: Backend, device: torch.device) -> LightningModule:
    """Returns the module of the config with the backend's memory format, seeded, its net compiled if the backend says so."""
    seed_everything(sample.settings["seed"], verbose=False)
    module = silent(build_module(sample.settings, sample.data_info, channels_last=backend.channels_last)).to(device)
    if backend.compile:
        getattr(module, "net", module).compile()
    return module


def optimizer_of(module: LightningModule, *, is_fused: bool) -> Optimizer:
    """Returns the optimizer of a module, fused where it is made from a config and can be.

    Raises:
        InputError: for a module with several optimizers, or whose optimizer depends on its trainer.
    """
    ours: Any = module
    make = getattr(ours, "make_optimizer", None)
    if isinstance(make, functools.partial):
        fused = {"fused": True} if is_fused and "fused" in inspect.signature(make.func).parameters else {}
        return cast(Optimizer, make(ours.net.parameters(), **fused))
    try:
        configured = module.configure_optimizers()
    except (AttributeError, RuntimeError) as error:
        raise InputError(f"{ONE_OPTIMIZER}; configure_optimizers of {type(module).__name__}: {first_line(error)}") from error
    made = configured[0] if isinstance(configured, list | tuple) else configured
    made = made[0] if isinstance(made, list | tuple) and len(made) == 1 else made
    optimizer = made.get("optimizer") if isinstance(made, Mapping) else made
    if not isinstance(optimizer, Optimizer) or not module.automatic_optimization:
        raise InputError(f"{ONE_OPTIMIZER}, and {type(module).__name__} has others")
    return optimizer


class TrainingStep:
    """Takes one training step on the sample's batch each time it is called, with the settings of the backend.

    `is_frozen` sets the learning rate to 0, so that every step does the same work: a net that has learned its batch computes
    with denormal numbers, which are slow.
    """

    def __init__(self, sample: Sample, backend: Backend, device: torch.device, *, is_frozen: bool = False) -> None:
        self.backend, self.device = backend, device
        self.module = module_for(sample, backend, device).train()
        self.batch = move_data_to_device(sample.batch, device)
        # like training, which never combines a gradient scaler with a fused update
        self.scaler = torch.amp.GradScaler(device.type, enabled=backend.precision == "fp16")
        self.optimizer = optimizer_of(self.module, is_fused=backend.precision != "fp16")
        for group in self.optimizer.param_groups if is_frozen else ():
            group["lr"] = 0.0

    def __call__(self) -> None:
        with applied(self.backend):
            with autocast(self.backend, self.device):
                loss = loss_of(self.module, self.batch)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)


def loss_of(module: LightningModule, batch: Any) -> Tensor:
    """Returns the loss of a training step."""
    return loss_in(module.training_step(*training_step_args(module, batch)))
