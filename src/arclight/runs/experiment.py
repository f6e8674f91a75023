"""A run from its start to its end: processes meet, fit, test, leave results. Read this file and you know the program."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from arclight import hardware, preflight
from arclight.checkpoint.contents import is_checkpoint, last_checkpoint, load_weights, newest_intact, restore
from arclight.checkpoint.last_checkpoint import cost_of_saves
from arclight.config.compose import RunConfig, flatten
from arclight.config.instantiate import build
from arclight.console.terminal import open_console, silence_lightning
from arclight.data.datamodule import DataModule
from arclight.distributed import rendezvous
from arclight.distributed.environment import is_main_process
from arclight.distributed.signals import Interrupted, Interruption
from arclight.errors import InputError
from arclight.hardware import memory
from arclight.loggers.factory import close_loggers
from arclight.metrics.error_analysis import most_confident_errors
from arclight.metrics.predictions import Predictions
from arclight.modules.supervised import Scores
from arclight.report.report import write_report
from arclight.runs import resume, run_directory
from arclight.runs.build import RunComponents, build_components, count_parameters, monitor_of, plan_for
from arclight.runs.dry_run import run_dry_run
from arclight.runs.run import Run
from arclight.runs.run_directory import HARMLESS
from arclight.runs.summary import print_results, print_run_summary

SEEN_S, POLL_S = 20, 0.1  # how long a new file may take to be seen on another machine, and between two looks

log = logging.getLogger(__name__)


def run(run_config: RunConfig) -> Run:
    """Trains, tests the best checkpoint, and leaves the run folder; every process of the run calls this.

    A folder that holds a checkpoint already is that of a run to go on with.

    Raises:
        InputError: for a mistake in the config or the data, or when the processes of the run are not alike.
    """
    hardware_info = hardware.probe()
    try:
        preflight.check(run_config, hardware_info)
        return rendezvous_and_train(run_config, hardware_info)
    except InputError:
        if hardware_info.launch.rank == 0:  # the others' mistake may come before the first has written there
            resume.discard(run_config.folder)
        with contextlib.suppress(OSError):  # what Hydra made for a process that is not the first; empty, or shared and kept
            run_config.folder.rmdir()
        raise


def rendezvous_and_train(run_config: RunConfig, hardware_info: hardware.HardwareInfo) -> Run:
    """As `run`, once the processes of the run have met and agree on what they do and where."""
    accelerator = plan_for(run_config.settings, hardware_info)["accelerator"].value
    backend = "nccl" if accelerator in ("cuda", "gpu") else "gloo"
    with rendezvous.join(
        hardware_info.launch, backend=backend, timeout_s=run_config.settings["hardware"]["timeout_s"]
    ) as peers:
        peers.compare({**dict(flatten(run_directory.collect_versions())), **common(run_config.settings)})
        agreed = replace(run_config, folder=Path(peers.hear("folder", str(run_config.folder))))
        if agreed.folder != run_config.folder:
            run_directory.discard_unless_trained(run_config.folder)
            check_shared_file_system(agreed.folder)
        interruption = Interruption(is_one_of_many=hardware_info.launch.world_size > 1)
        with resume.locked(agreed.folder), run_directory.log_to_file(agreed.folder), interruption.listening():
            if run_config.preflight == "full":
                return run_dry_run(agreed, hardware_info, interruption)
            return train_and_test(agreed, hardware_info, interruption)


def check_shared_file_system(folder: Path) -> None:
    """Raises InputError when this machine does not see the run folder that the first process has made."""
    for _ in range(int(SEEN_S / POLL_S)):
        if (folder / "overrides.txt").exists():
            return
        time.sleep(POLL_S)  # file systems that machines share are slow to show new files
    raise InputError(f"{socket.gethostname()} does not see {folder}: all machines of a run need outputs/ on one file system")


def common(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that all processes of a run must share; where data lies may differ from machine to machine."""
    return {key: value for key, value in flatten(settings) if not key.startswith(("logger.", "data.root", "data.cache"))}


def train_and_test(run_config: RunConfig, hardware_info: hardware.HardwareInfo, interruption: Interruption) -> Run:
    """As `run`; whatever happens, the folder and the trackers say how it ended."""
    console = open_console(quiet=not is_main_process())
    results: dict[str, Any] = {"status": "running", "data": run_config.data, "model": run_config.model}
    results |= {"seed": run_config.settings["seed"], "monitor": monitor_of(run_config.settings)}
    loggers: list[Logger] = []
    for problem in hardware_info.problems if is_main_process() else ():
        log.warning(problem)
    with run_directory.restore_on_error(run_config.folder) as no_errors:
        run_directory.write_inputs(run_config, hardware_info)
        run_directory.write_json(run_config.folder / "results.json", results)
        results["status"] = "failed"
        try:
            ckpt_path = newest_intact(run_config.folder)
            parts = build_components(
                run_config, hardware_info, loggers, console, interruption=interruption, ckpt_path=ckpt_path
            )
            no_errors()
            if commit := getattr(parts.module.net, "blueprint", {}).get("revision"):
                run_directory.add_to_environment(run_config.folder, {"pretrained": {"commit": commit}})
            print_run_summary(console, parts, run_config)
            fit(parts, results, ckpt_path)
            scores = test(parts, results, run_config.folder)
            results["status"] = "finished"
        except (KeyboardInterrupt, SystemExit) as stopped:
            results["status"] = "interrupted"
            if isinstance(stopped, Interrupted):
                results["signal"] = stopped.signal.name
            raise
        finally:
            results["time/total_s"] = time.monotonic() - run_config.started
            with contextlib.ExitStack() as ending:  # done from the last to the first, also where results.json cannot be written
                ending.callback(close_loggers, loggers, status=results["status"])
                ending.callback(report, run_config.folder)  # before: it may be one of the artifacts
                leave_results(results, run_config.folder)
    print_results(console, results, scores, run_config.folder)
    return Run(run_config.folder, results=results, model=parts.module)


def leave_results(results: dict[str, Any], folder: Path) -> None:
    """Writes results.json; that it cannot be written hides no other reason for which the run ends."""
    reason = sys.exception()
    try:
        run_directory.write_json(folder / "results.json", results)
    except InputError as unwritten:
        if reason is None:
            raise
        log.warning("%s", unwritten)


def fit(parts: RunComponents, results: dict[str, Any], ckpt_path: Path | None) -> None:
    """Trains, from a checkpoint on if there is one; adds to the results what is known then, also when it is cut short."""
    began = time.monotonic()
    try:
        with memory.report_out_of_memory():
            parts.trainer.fit(parts.module, parts.data, ckpt_path=ckpt_path, weights_only=True)
    finally:
        results |= {
            **parts.epochs.best,
            "time/fit_s": time.monotonic() - began,
            **cost_of_saves(parts.trainer),
            "memory/peak_mb": memory.peak_bytes(parts.trainer.strategy.root_device) / 1e6,
            "epochs": parts.trainer.current_epoch,
            "steps": parts.trainer.global_step,
            "parameters": count_parameters(parts.module),
            **({} if parts.module.compiled is None else {"compile": parts.module.compiled.outcome}),
        }
    if parts.throughput.first.micro_batches:
        results["advice"] = parts.throughput.advice()
    results |= parts.throughput.results(parts.trainer)  # not above: the processes add up, and one that failed would not answer


def test(parts: RunComponents, results: dict[str, Any], folder: Path) -> Scores:
    """Scores the best checkpoint on the test split, which nothing has touched before; the last where none was best."""
    best, last = folder / "checkpoints" / "best.ckpt", last_checkpoint(folder)
    if kept := [path for path in (best, last) if is_checkpoint(path)]:
        # not by the trainer's ckpt_path: weight averaging would put the weights of the moment back over the averages
        load_weights(parts.module, kept[0])
    parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    scores = parts.module.scores
    assert scores is not None
    results |= {f"test/{name}": value for name, value in scores.numbers.items()}
    results |= {f"test/f1/{name}": value for name, value in scores.per_class.items()}
    run_directory.write_json(folder / "scores.json", scores.to_plain())
    assert parts.module.predictions is not None
    if is_main_process():
        with run_directory.explain_write_errors(folder / "predictions.jsonl"):
            parts.module.predictions.write(folder / "predictions.jsonl")
        show_examples(parts.data, parts.module.predictions, folder)
    return scores


def show_examples(data: DataModule, predictions: Predictions, folder: Path) -> None:
    """Leaves what the report shows of the data: its portrait, and the mistakes that the model was most sure of."""
    wrong = most_confident_errors(predictions)
    try:
        looks = data.examples("test", [error.index for error in wrong])
        shown = [{**look, **asdict(error)} for look, error in zip(looks, wrong, strict=True)]
        run_directory.write_json(folder / "mistakes.json", {"mistakes": shown})
        run_directory.write_json(folder / "data.json", data.dataset_summary())
    except InputError as unwritten:  # the disk
        log.warning("%s", unwritten)
    except Exception:  # data of a kind that cannot be shown never costs the run
        log.exception("mistakes.json and data.json could not be written")


def evaluate(run_or_checkpoint: str, overrides: dict[str, Any], *, split: str = "test") -> Scores:
    """Scores a trained model again, with the data settings it was trained with unless some are overridden.

    Args:
        run_or_checkpoint: run folder, checkpoint file, or `latest`.
        overrides: settings of the data, such as {"root": "elsewhere"}.
        split: "test" or "val".

    Raises:
        InputError: when there is no such run, or the data does not fit its model.
    """
    restored = restore(run_or_checkpoint)
    data: DataModule = build({**restored.settings["data"], **overrides}, "data", {"seed": restored.settings["seed"]})
    data.data_info = restored.data_info
    data.prepare_data()
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"}  # however many processes it was trained in
    requested = {**hardware.requested_settings(restored.settings), **alone}
    hardware_info = hardware.probe()
    try:
        decisions = hardware.plan(hardware_info, requested)
    except InputError as error:  # it was trained elsewhere
        log.warning("%s; scored with what this machine has", error)
        decisions = hardware.plan(hardware_info, alone)
    hardware.apply_backend_settings(decisions)
    with silence_lightning(HARMLESS):
        trainer = Trainer(
            **hardware.for_trainer(decisions),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loop = {"test": trainer.test, "val": trainer.validate}[split]
        loop(restored.module, datamodule=data, verbose=False)
    assert restored.module.scores is not None
    return restored.module.scores


@rank_zero_only
def report(folder: Path) -> None:
    """Writes report.html; a report that cannot be made is told and never costs the run."""
    try:
        with run_directory.explain_write_errors(folder / "report.html"):
            write_report(folder)
    except InputError as unwritten:
        log.warning("%s; `python -m arclight report %s` writes it then", unwritten, folder)
    except Exception:
        log.exception("report.html could not be written")
