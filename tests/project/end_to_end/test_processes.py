"""One command, any number of processes: same numbers, no process twice, no hang (arclight.callbacks.gradient_order)."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import arclight
from arclight.callbacks.throughput import Throughput
from arclight.checkpoint import contents
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.metrics.records import read_predictions
from arclight.runs.run import Run
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

pytestmark = pytest.mark.processes

TRAIN = str(CONF.parent / "train.py")
TWO = ["strategy=ddp_cpu", "trainer.devices=2"]
COMMON = ["precision=fp32", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
IMAGES = [*TINY_IMAGES, "model=cnn", "model.hidden=16", "data.num_val=17", "data.num_test=33", *COMMON]
TEXT = [*TINY_TEXT, "model.dropout=0.0", "data.num_val=15", "data.num_test=17", "data.batch_size=16", *COMMON]
FOUR_PARTS = ["data.max_batch_per_device=2"]  # of a batch of 16 on two processes


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def curve(run: Run) -> list[float]:
    with (run.folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def weights(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = contents.load_checkpoint(contents.last_checkpoint(run.folder))["state_dict"]
    return state


def same_numbers(one: Run, many: Run, score: str) -> None:
    assert curve(many) == pytest.approx(curve(one), rel=1e-3, abs=1e-4)
    assert many.results["steps"] == one.results["steps"] == len(curve(one))
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(many)[name], weight, rtol=1e-3, atol=1e-4)
    counts = [json.loads((run.folder / "scores.json").read_text())["confusion"]["counts"] for run in (one, many)]
    assert counts[0] == counts[1]
    assert many.results[f"test/{score}"] == one.results[f"test/{score}"]
    labels = [[(row.index, row.predicted) for row in read_predictions(run.folder / "predictions.jsonl")] for run in (one, many)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize(
    ("overrides", "placing", "score"),
    [
        (IMAGES, [*TWO, *FOUR_PARTS], "accuracy"),
        (TEXT, [*TWO, *FOUR_PARTS], "f1"),
        (TEXT, [*TWO, "strategy=fsdp", "trainer.accelerator=cpu"], "f1"),
    ],
    ids=["cnn, four parts", "tagger, four parts", "tagger, fsdp"],
)
def test_two_processes_train_and_count_like_one(overrides: list[str], placing: list[str], score: str) -> None:
    placing = [setting for setting in placing if not ("strategy=fsdp" in placing and setting == "strategy=ddp_cpu")]
    one, two = arclight.run(overrides), arclight.run([*overrides, *placing])
    same_numbers(one, two, score)
    assert two.results["status"] == "finished"
    assert two.score == pytest.approx(one.score)
    assert type(two.model) is type(one.model)
    assert len(list(Path("outputs").glob("*/*"))) == 2


def test_torchrun_starts_the_processes_of_one_run() -> None:
    one = arclight.run(IMAGES)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [sys.executable, *torchrun, TRAIN, *IMAGES, "trainer.accelerator=cpu"], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    (folder,) = [folder for folder in Path("outputs").glob("*/*") if folder != one.folder]
    same_numbers(one, Run(folder), "accuracy")
    assert ended.stdout.count("Report:") == 1


def test_all_processes_of_a_run_have_the_seed_that_the_first_draws() -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    overrides = [*IMAGES, "trainer.max_epochs=1", "seed=null"]
    ended = subprocess.run(
        [sys.executable, *torchrun, TRAIN, *overrides, "trainer.accelerator=cpu"], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    (folder,) = Path("outputs").glob("*/*")
    first = Run(folder)
    assert first.results["seed"] == first.config["seed"]
    second = arclight.run([*overrides[:-1], f"seed={first.config['seed']}", *TWO])
    same_numbers(first, second, "accuracy")
    third = arclight.run([*overrides, *TWO])
    assert third.results["seed"] == third.config["seed"] != first.config["seed"]


def test_a_multirun_starts_each_run_once_and_continues_after_a_failure() -> None:
    watched = subprocess.Popen(
        [sys.executable, TRAIN, "-m", *IMAGES, *TWO, "seed=1,-1,2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started: set[tuple[int, str]] = set()
    while watched.poll() is None:
        started |= {(process.pid, rank) for process, rank in ranks_of(watched.pid)}
        time.sleep(0.05)
    out, err = watched.communicate()
    assert watched.returncode == 1, err
    assert Counter(rank for _, rank in started) == {"0": 3, "1": 3}  # of the run with the input error, too
    (multirun,) = Path("outputs/multirun").iterdir()
    results = {file.parent.name: json.loads(file.read_text()) for file in multirun.glob("*/results.json")}
    assert {name: result["status"] for name, result in results.items()} == {
        **{"0-synthetic_images-cnn": "finished", "1-synthetic_images-cnn": "failed", "2-synthetic_images-cnn": "finished"},
    }
    assert (
        results["1-synthetic_images-cnn"]["error"]
        == "seed=-1 must be a whole number from 0 to 4294967295, or null, which draws one (set by seed=-1)"
    )
    assert "Traceback" not in err
    assert "error: seed=-1 must be a whole number" in err
    table = out[out.index("3 runs") :]
    assert all(words in table for words in ("seed=-1", "finished", "failed"))


def ranks_of(pid: int) -> list[tuple[psutil.Process, str]]:
    """The processes of a run that this process has started, each with its rank."""
    found = []
    try:
        for process in psutil.Process(pid).children():
            if "arclight.launch.process" in process.cmdline():
                found.append((process, process.environ()["RANK"]))
    except (psutil.Error, KeyError):
        pass
    return found


def longer(overrides: list[str], epochs: int) -> list[str]:
    return [*(setting for setting in overrides if not setting.startswith("trainer.max_epochs")), f"trainer.max_epochs={epochs}"]


def test_a_process_that_dies_ends_the_run_which_can_be_resumed() -> None:
    # three, whose sums have an order
    three = ["strategy=ddp_cpu", "trainer.devices=3", "data.batch_size=15"]
    long = [*longer(IMAGES, 20), "callbacks=none", *three]
    whole = arclight.run(long)
    watched = subprocess.Popen([sys.executable, TRAIN, *long], stderr=subprocess.PIPE, text=True)
    while watched.poll() is None:
        saved = [file for file in Path("outputs").glob("*/*/checkpoints/last.ckpt") if whole.folder not in file.parents]
        if saved and (second := [process for process, rank in ranks_of(watched.pid) if rank == "1"]):
            second[0].kill()
            break
        time.sleep(0.02)
    _, err = watched.communicate(timeout=60)
    assert watched.returncode == 1
    assert f"error: process 1 of 3 (pid {second[0].pid}) was ended by SIGKILL; the others were stopped\n" in err
    (folder,) = [folder for folder in Path("outputs").glob("*/*") if folder != whole.folder]
    assert json.loads((folder / "results.json").read_text())["status"] == "failed"
    again = arclight.run([*long, "resume=auto"])
    assert again.folder.resolve() == folder.resolve()
    for name, weight in weights(whole).items():
        assert torch.equal(weights(again)[name], weight), name
    assert again.results["epochs"] == 20
    assert curve(again) == curve(whole)


@pytest.mark.parametrize("overrides", [[*IMAGES, "model.dropout=0.5"], [*TEXT, "model.dropout=0.3"]], ids=["images", "text"])
def test_a_resumed_run_equals_one_that_never_stopped(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    long = [*longer(overrides, 4), "callbacks=[early_stopping,weight_averaging]"]
    whole = arclight.run(long)
    with monkeypatch.context() as patched:
        stop_in_epoch(2, patched)
        with pytest.raises(ZeroDivisionError):
            arclight.run(long)
    again = arclight.run([*long, "resume=auto"])
    assert len(list(Path("outputs").glob("*/*"))) == 2
    for name, weight in weights(whole).items():
        assert torch.equal(weights(again)[name], weight), name
    numbers = [
        {key: value for key, value in run.results.items() if key.startswith(("val/", "test/"))} for run in (whole, again)
    ]
    assert numbers[0] == numbers[1]
    assert curve(again) == curve(whole)


STEADY = [  # no dropout and no batch norm; sums of other parts differ in the last digits of fp64 only
    *(*TINY_IMAGES, "precision=fp64", *COMMON[1:], "optimizer=sgd", "optimizer.lr=0.02", "callbacks=none"),
    *("trainer.accelerator=cpu", "checkpoint.every_steps=3", "data.num_train=640", "data.num_val=16", "data.num_test=16"),
]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Returns the losses and the last weights of a run that nothing stopped."""
    with contextlib.chdir(tmp_path_factory.mktemp("steady")):
        whole = arclight.run(STEADY)
        return curve(whole), weights(whole)


@pytest.mark.parametrize(
    ("before", "now"),
    [(["data.max_batch_per_device=8"], []), ([], ["data.max_batch_per_device=8"]), (TWO, []), ([], TWO)],
    ids=[
        "parts of 8, then whole batches",
        "whole batches, then parts of 8",
        "two processes, then one",
        "one process, then two",
    ],
)
def test_a_run_killed_inside_an_epoch_resumes_with_other_micro_batches_or_processes(
    before: list[str], now: list[str], steady: tuple[list[float], dict[str, torch.Tensor]]
) -> None:
    killed = subprocess.Popen([sys.executable, TRAIN, *STEADY, *before], stdout=subprocess.DEVNULL)
    while killed.poll() is None and not list(Path("outputs").glob("*/*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    family = [psutil.Process(killed.pid), *psutil.Process(killed.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family)
    killed.wait()
    (folder,) = Path("outputs").glob("*/*")
    assert 0 < contents.steps_done(contents.last_checkpoint(folder)) < 40  # of 40 steps in an epoch
    again = arclight.run([*STEADY, *now, "resume=auto"])
    assert again.folder.resolve() == folder.resolve()
    losses, last_weights = steady
    assert again.results["steps"] == len(losses) == 80
    assert curve(again) == pytest.approx(losses, rel=1e-6)
    for name, weight in last_weights.items():
        torch.testing.assert_close(weights(again)[name], weight, rtol=0, atol=1e-9)


def stop_in_epoch(epoch: int, patched: pytest.MonkeyPatch) -> None:
    """Makes the second step of this epoch fail."""
    real = Throughput.on_train_batch_start

    def fail(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        real(self, trainer, module, batch, batch_idx)
        if trainer.current_epoch == epoch and batch_idx == 1:
            raise ZeroDivisionError

    patched.setattr(Throughput, "on_train_batch_start", fail)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.devices=2", "data.batch_size=15"],
            "is not divisible by 2 processes; nearest sizes: 14 or 16",
        ),
        (["trainer.devices=99", "strategy=ddp_cpu"], "trainer.devices=99"),
        (["trainer.accelerator=gpu", "trainer.devices=2"], "torch finds no GPU"),
    ],
)
def test_an_input_error_of_several_processes_is_reported_once(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arclight.run([*IMAGES, *overrides])
    assert not list(Path("outputs").glob("*/*"))
