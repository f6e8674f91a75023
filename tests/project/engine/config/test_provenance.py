"""Where a key of a config was set: the override, else the file under conf/ that composes last."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from arclight.config import locations
from arclight.config.overrides.errors import find_unknown, join
from arclight.config.provenance import Provenance
from arclight.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "key", "where"),
    [
        (["optimizer.lr=3", "optimizer.lr=4"], "optimizer.lr", "set by optimizer.lr=4"),
        (["optimizer={lr: 3}"], "optimizer.lr", "set by optimizer={lr: 3}"),
        (["+trainer.profiler=simple"], "trainer.profiler", "set by +trainer.profiler=simple"),
        ([], "optimizer.lr", "set in conf/optimizer/adam.yaml"),
        (["optimizer=sgd"], "optimizer.lr", "set in conf/optimizer/sgd.yaml, chosen by optimizer=sgd"),
        (["optimizer=sgd"], "optimizer", "set by optimizer=sgd"),
        (["experiment=demo"], "data.augment.crop", "set in conf/experiment/demo.yaml, chosen by experiment=demo"),
        (
            ["experiment=cifar10_fast_cpu_80"],
            "model.stride",
            "set in conf/experiment/cifar10_fast_cpu.yaml, chosen by experiment=cifar10_fast_cpu_80",
        ),
        (["strategy=ddp_cpu"], "trainer.accelerator", "set in conf/strategy/ddp_cpu.yaml, chosen by strategy=ddp_cpu"),
        (["precision=tf32"], "hardware.matmul_precision", "set in conf/precision/tf32.yaml, chosen by precision=tf32"),
        ([], "seed", "set in conf/train.yaml"),
        ([], "data.nothing", "None"),
    ],
)
def test_what_sets_a_key(overrides: list[str], key: str, where: str) -> None:
    assert str(Provenance(overrides).of(key)) == where


def test_this_machines_own_settings_win_over_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(locations.CONF, tmp_path / "conf")
    (tmp_path / "conf" / "local" / "default.yaml").write_text("# @package _global_\ndata: {root: /scratch}\n")
    monkeypatch.setattr(locations, "CONF", tmp_path / "conf")
    assert str(Provenance([]).of("data.root")) == "set in conf/local/default.yaml"
    assert str(Provenance(["data.root=x"]).of("data.root")) == "set by data.root=x"


@pytest.mark.parametrize(
    ("message", "key", "placed"),
    [
        ("optimizer.lr='a' must be a number", "optimizer.lr", "optimizer.lr='a' must be a number (set by optimizer.lr=a)"),
        ("seed=-1 is wrong\nmore", "seed", "seed=-1 is wrong (set in conf/train.yaml)\nmore"),
        ("no key here", None, "no key here"),
        ("optimizer.lr=a: no", "optimizer.lr", "optimizer.lr=a: no"),
    ],
)
def test_a_message_says_where_its_key_is_set(message: str, key: str | None, placed: str) -> None:
    assert str(Provenance(["optimizer.lr=a"]).with_place(InputError(message, key=key))) == placed


def test_the_command_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    errors = [
        InputError("precision", key="trainer.precision", suggestions=["trainer.precision=bf16"]),
        InputError("splitseed", key="data.splitseed", suggestions=["data.split_seed"]),
    ]
    overrides = ["trainer.precision=bf17", "+data.splitseed=1", "+data.batchsize=2"]
    assert "Try: " not in str(join(errors, [*overrides[:2], "+data.zebra=2"]))  # the third override would still not compose
    errors.append(InputError("batchsize", key="data.batchsize", suggestions=["data.batch_size"]))
    joined = join(errors, overrides)
    command = "python train.py trainer.precision=bf16 +data.split_seed=1 data.batch_size=2"
    assert str(joined).splitlines()[-1] == f"Try: {command}"
    assert joined.errors[0].key == "trainer.precision"
    assert "Try: " not in str(join([*errors, InputError("no suggestion", key="data.root")], overrides))


def test_keys_that_nothing_takes_are_reported_unless_a_recipe_meets_another_option() -> None:
    settings = {"model": {"_target_": "project.models.cnn.Cnn", "checkpoint": None}}
    assert find_unknown(settings, ["experiment=demo_tagger", "model=cnn"]) == []
    (error,) = find_unknown(settings, ["+model.checkpoint=x"])
    assert str(error).startswith("model.checkpoint: Cnn takes no 'checkpoint'.")
    assert find_unknown({"model": {}}, []) == []
