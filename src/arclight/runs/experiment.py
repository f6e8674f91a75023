"""A run from start to end: rendezvous, fit, test, results. Read this file to know the program."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from arclight import hardware, preflight
from arclight.callbacks.loss_logging import LossLogging
from arclight.checkpoint.contents import is_checkpoint, last_checkpoint, load_weights, newest_intact
from arclight.checkpoint.last_checkpoint import cost_of_saves
from arclight.config.compose import RunConfig, flatten
from arclight.config.hardware_plan import plan_hardware
from arclight.console.terminal import open_console
from arclight.data.exact_loader import end_workers
from arclight.distributed import rendezvous
from arclight.distributed.environment import is_main_process
from arclight.distributed.signals import Interrupted, Interruption, handle_signals
from arclight.errors import InputError, OtherDataError
from arclight.hardware import memory
from arclight.interfaces import standard_name
from arclight.loggers.factory import close_loggers
from arclight.metrics.error_analysis import most_confident_errors
from arclight.metrics.predictions import Predictions
from arclight.modules.supervised import Scores
from arclight.preflight.trainer_checks import explain_trainer_errors
from arclight.report.report import write_report
from arclight.runs import resume, run_directory
from arclight.runs.build import (
    RunComponents,
    build_components,
    can_test,
    configured_monitor,
    count_parameters,
    monitor_in_results,
)
from arclight.runs.dry_run import run_dry_run
from arclight.runs.run import Run
from arclight.runs.run_directory import explain_write_errors, write_json
from arclight.runs.summary import print_interrupted, print_results, print_run_summary

TIMEOUT_S = 600  # how long processes wait for each other, where the config does not say
SHARED_FILE_TIMEOUT_S, POLL_S = 20, 0.1  # how long a new file may take to appear on another machine

log = logging.getLogger(__name__)


def run(run_config: RunConfig) -> Run:
    """Trains, tests the best checkpoint and writes the run directory; every process of the run calls this.

    A run directory that holds a checkpoint is resumed.

    Raises:
        InputError: for an error in the config or the data, or when the processes of the run differ.
    """
    hardware_info = hardware.probe()
    try:
        preflight.check(run_config, hardware_info)
        return rendezvous_and_train(run_config, hardware_info)
    except InputError:
        if hardware_info.launch.rank == 0:  # another process may fail before the first has written there
            resume.discard(run_config.folder)
        with contextlib.suppress(OSError):  # made by Hydra for a process that is not the first; kept if it is not empty
            run_config.folder.rmdir()
        raise


def rendezvous_and_train(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> Run:
    """As `run`, once the processes have met and agree on config, versions and run directory."""
    accelerator = plan_hardware(run_config.settings, hardware_info)["accelerator"].value
    backend = "nccl" if accelerator in ("cuda", "gpu") else "gloo"
    timeout_s = run_config.settings["hardware"].get("timeout_s", TIMEOUT_S)
    with rendezvous.join(hardware_info.launch, backend=backend, timeout_s=timeout_s) as peers:
        peers.require_equal(dict(flatten(run_directory.collect_versions())) | shared_settings(run_config.settings))
        agreed = with_folder_and_seed(run_config, peers)
        if agreed.folder != run_config.folder:
            resume.discard(run_config.folder)
            check_shared_file_system(agreed.folder)
        try:
            return train_in_directory(agreed, hardware_info)
        except OtherDataError as other_data:
            reason = str(other_data)
            starts_new_run = peers.rank == 0 and agreed.new_folder is not None
            new_folder = peers.broadcast(str(resume.start_new_run(agreed)) if starts_new_run else "")
            if not new_folder:
                raise
        return train_in_directory(replace(agreed, folder=Path(new_folder), new_folder=None), hardware_info, note=reason)


def train_in_directory(run_config: RunConfig, hardware_info: hardware.HardwareInfo, *, note: str = "") -> Run:
    """As `run`, with the run directory locked; `note` is the reason for a new run in place of an earlier one."""
    interruption = Interruption(is_one_of_many=hardware_info.launch.world_size > 1)
    folder = run_config.folder
    with resume.locked(folder), run_directory.log_to_file(folder), handle_signals(interruption.handle):
        if note and is_main_process():
            log.warning("resume=auto starts a new run, %s: %s", folder, note)
        if run_config.preflight == "full":
            return run_dry_run(run_config, hardware_info, interruption)
        return train_and_test(run_config, hardware_info, interruption)


def with_folder_and_seed(run_config: RunConfig, peers: rendezvous.Peers) -> RunConfig:
    """Returns the config with the run directory of the first process, and its seed where none is set (`seed=null`)."""
    names = ("seed", "seed_is_drawn")
    given = {name: run_config.settings[name] for name in names if name in run_config.settings}
    folder, seed = peers.broadcast([str(run_config.folder), given])
    return replace(run_config, folder=Path(folder), settings={**run_config.settings, **seed})


def check_shared_file_system(folder: Path) -> None:
    """Raises InputError when this machine does not see the run directory that the first process created."""
    for _ in range(int(SHARED_FILE_TIMEOUT_S / POLL_S)):
        if (folder / "overrides.txt").exists():
            return
        time.sleep(POLL_S)  # network file systems show new files late
    raise InputError(f"{socket.gethostname()} does not see {folder}: all machines of a run need outputs/ on one file system")


def shared_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that all processes must share; the data may lie elsewhere, and the first one draws a seed."""
    is_drawn = settings.get("seed") is None or settings.get("seed_is_drawn")
    own = ("logger.", "data_root", "data.root", "data.cache", *(("seed",) if is_drawn else ()))
    return {key: value for key, value in flatten(settings) if not key.startswith(own)}


def train_and_test(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption) -> Run:
    """As `run`; however the run ends, results.json and the loggers record it."""
    console, folder = open_console(quiet=not is_main_process()), run_config.folder
    results: dict[str, Any] = {"status": "running", "data": run_config.data, "model": run_config.model}
    results |= {"seed": run_config.settings["seed"], **monitor_in_results(configured_monitor(run_config.settings))}
    loggers: list[Logger] = []
    for problem in hardware_info.problems if is_main_process() else ():
        log.warning(problem)
    with run_directory.restore_on_error(folder) as keep_new_files:
        run_directory.write_inputs(run_config, hardware_info)
        write_json(folder / "results.json", results)
        results["status"] = "failed"
        try:
            ckpt_path = newest_intact(folder)
            components = build_components(
                run_config, hardware_info, loggers, console, interruption=interruption, ckpt_path=ckpt_path
            )
            results |= monitor_in_results(components.monitor)  # a module may choose it when it is built
            components.identity.when_accepted = keep_new_files
            if commit := getattr(getattr(components.module, "net", None), "blueprint", {}).get("revision"):
                run_directory.add_to_environment(folder, {"pretrained": {"commit": commit}})
            print_run_summary(console, components, run_config)
            divergence = fit(components, results, ckpt_path)
            keep_new_files()
            scores = None
            if run_config.settings.get("test") is False:
                load_best_weights(components, folder)
                log.info("not tested: test=false")
            else:
                scores = test(components, results, folder)
            results |= {"status": "finished"} if divergence is None else {"status": "diverged", "error": divergence}
        except (KeyboardInterrupt, SystemExit) as stopped:
            results["status"] = "interrupted"
            if isinstance(stopped, Interrupted):
                results["signal"] = stopped.signal.name
                print_interrupted(console, folder)
            raise
        finally:
            results["time/total_s"] = time.monotonic() - run_config.started
            with contextlib.ExitStack() as ending:  # called last to first, even where results.json cannot be written
                ending.callback(close_loggers, loggers, status=results["status"])
                ending.callback(report, folder)  # before the loggers, which may upload it
                write_results(results, folder)
    print_results(console, results, scores, folder)
    return Run(folder, results=results, model=components.module)


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Writes results.json; a write error is only logged where another error already ends the run."""
    reason = sys.exception()
    try:
        write_json(folder / "results.json", results)
    except InputError as unwritten:
        if reason is None:
            raise
        log.warning("%s", unwritten)


def fit(components: RunComponents, results: dict[str, Any], ckpt_path: Path | None) -> str | None:
    """Trains, from `ckpt_path` if there is one, and adds the outcome to the results, also when training is interrupted.

    Returns what is wrong with the last training loss, None where it is finite.
    """
    trainer, start = components.trainer, time.monotonic()
    compiled = getattr(components.module, "compiled", None)
    try:
        with memory.report_out_of_memory(), explain_trainer_errors():
            trainer.fit(components.module, datamodule=components.data, ckpt_path=ckpt_path, weights_only=True)
    finally:
        end_workers([trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop])
        results |= {
            **components.epochs.best,
            "time/fit_s": time.monotonic() - start,
            **cost_of_saves(trainer),
            "memory/peak_mb": memory.peak_bytes(trainer.strategy.root_device) / 1e6,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "parameters": count_parameters(components.module),
            **({} if compiled is None else {"compile": compiled.outcome}),
        }
    if components.throughput.first.micro_batches:
        results["advice"] = components.throughput.advice()
    results |= components.throughput.results(trainer)  # not above: it is collective, and a failed process would not answer
    return next(callback.divergence for callback in trainer.callbacks if isinstance(callback, LossLogging))  # type: ignore[attr-defined]


def load_best_weights(components: RunComponents, folder: Path) -> None:
    """Loads the weights of the best checkpoint, else of the last, if there is one."""
    best, last = folder / "checkpoints" / "best.ckpt", last_checkpoint(folder)
    if available := [path for path in (best, last) if is_checkpoint(path)]:
        # not by the trainer's ckpt_path: weight averaging would replace the averages with the current weights
        load_weights(components.module, available[0])


def test(components: RunComponents, results: dict[str, Any], folder: Path) -> Scores | None:
    """Tests the best checkpoint, else the last, and writes scores.json, predictions.jsonl and the examples of the report.

    Returns None for a module that does not offer `scores`, or cannot be tested.
    """
    module, data = components.module, components.data
    if not can_test(module, data):
        log.info("not tested: there is no test_step with a test_dataloader")
        return None
    load_best_weights(components, folder)
    with explain_trainer_errors():
        tested = components.trainer.test(module, datamodule=data, verbose=False)
    end_workers([components.trainer.test_loop])
    scores: Scores | None = getattr(module, "scores", None)
    if not isinstance(scores, Scores):
        results |= {standard_name("test", name): float(value) for logged in tested for name, value in logged.items()}
        return None
    results |= {f"test/{name}": value for name, value in scores.metrics.items()}
    results |= {f"test/f1/{name}": value for name, value in scores.per_class.items()}
    write_json(folder / "scores.json", scores.to_plain())
    predictions: Predictions | None = getattr(module, "predictions", None)
    if predictions is not None and is_main_process():
        write_predictions(data, predictions, folder)
        write_examples(data, predictions, folder)
    return scores


def write_predictions(data: Any, predictions: Predictions, folder: Path, *, split: str = "test") -> None:
    """Writes predictions.jsonl, with the fields that the data offers for each sample."""
    path = folder / "predictions.jsonl"
    offered = getattr(data, "sample_fields", None)
    with explain_write_errors(path):
        try:
            predictions.write(path, offered(split, predictions.flat.indices.tolist()) if offered is not None else ())
        except (TypeError, ValueError, LookupError):  # values of a user's data module that JSON cannot hold, or too few
            log.exception("sample_fields of %s failed: predictions.jsonl holds the predictions alone", type(data).__name__)
            predictions.write(path)


def write_examples(data: Any, predictions: Predictions, folder: Path, *, split: str = "test") -> None:
    """Writes what the report shows of the data: the data set summary and the most confident errors."""
    errors = most_confident_errors(predictions)
    try:
        previews = data.previews(split, [error.index for error in errors])
        pictured = [{**preview, **asdict(error)} for preview, error in zip(previews, errors, strict=True)]
        write_json(folder / "mistakes.json", {"mistakes": pictured})
        write_json(folder / "data.json", data.dataset_summary())
    except InputError as unwritten:  # a write error
        log.warning("%s", unwritten)
    except Exception:  # data that cannot be shown never stops the run
        log.exception("mistakes.json and data.json could not be written")


@rank_zero_only
def report(folder: Path) -> None:
    """Writes report.html; an error is logged and never stops the run."""
    try:
        with explain_write_errors(folder / "report.html"):
            write_report(folder)
    except InputError as unwritten:
        log.warning("%s. To write the report later: python -m arclight report %s", unwritten, folder)
    except Exception:
        log.exception("report.html could not be written")
