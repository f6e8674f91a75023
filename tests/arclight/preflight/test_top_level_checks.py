"""Overrides of optimizer and scheduler for a LightningModule that makes its own, and keys at the top of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import arclight
from arclight.config.compose import compose
from arclight.errors import InputError
from arclight.preflight.top_level_checks import top_level_errors, unused_group_errors
from tests.arclight.conftest import MakeConf
from tests.arclight.testing.test_any_module import HERE, OPTIONS

WITH_RATE = {"model/with_rate": {"_target_": f"{HERE}.Regression", "lr": 0.01}}


@pytest.fixture(autouse=True)
def _conf(make_conf: MakeConf) -> Path:
    return make_conf({**OPTIONS, **WITH_RATE}, data="none", model="boring")


def unused(*overrides: str) -> list[str]:
    run_config = compose(overrides)
    return [str(error) for error in unused_group_errors(run_config.settings, run_config.overrides)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model=with_rate", "optimizer.lr=0.1"],
            "optimizer.lr=0.1 has no effect: Regression configures its own optimizer. Its own keys: model.lr",
        ),
        (
            ["model=regression", "optimizer=sgd"],
            "optimizer=sgd has no effect: Regression configures its own optimizer. Its own keys: +model.lr",
        ),
        (
            ["model=gan", "scheduler=cosine"],
            "scheduler=cosine has no effect: Gan configures its own scheduler. Its own keys: +model.latent",
        ),
        (
            ["model=boring", "optimizer.weight_decay=0.1"],
            "optimizer.weight_decay=0.1 has no effect: BoringModel configures its own optimizer. "
            "It takes no settings: change its code",
        ),
        (
            ["model=classifier", "data=images", "scheduler=cosine"],
            "scheduler=cosine has no effect: Classifier configures its own scheduler. "
            "Its own keys: model.scheduler.patience, +model.optimizer",
        ),
    ],
)
def test_a_group_that_the_module_does_not_use(overrides: list[str], message: str) -> None:
    assert unused(*overrides) == [message]


def test_a_group_that_the_module_uses() -> None:
    assert unused("model=classifier", "data=images", "optimizer=sgd", "optimizer.lr=0.1") == []
    assert unused("model=regression", "trainer.max_epochs=1") == []


def test_preflight_says_what_to_type() -> None:
    with pytest.raises(InputError) as raised:
        arclight.run(["model=with_rate", "optimizer.lr=0.1", "logger=none", "precision=fp32"])
    assert str(raised.value) == (
        "optimizer.lr=0.1 has no effect: Regression configures its own optimizer. Its own keys: model.lr "
        "(set by optimizer.lr=0.1)\nTry: python train.py model=with_rate model.lr=0.1 logger=none precision=fp32"
    )


def test_short_names_mean_the_keys_of_the_module() -> None:
    assert compose(["model=with_rate", "trainer.max_epochs=1", "model.lr=0.5"]).settings["model"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data=none", "data.batch_size=3"],
            "data.batch_size=3: data has no key 'batch_size'. With data=none the LightningModule",
        ),
        (["data=boring", "data.batch_size=3"], "data.batch_size=3: data has no key 'batch_size'. It takes no keys."),
    ],
)
def test_a_batch_size_that_nothing_takes(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        compose(overrides)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to 4294967295, or null, which draws one"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"test": "maybe"}, "test=maybe must be true or false"),
        ({"tags": "x"}, "tags=x must be a list: tags=[x]"),
        ({"tags": ["x" * 65]}, "must be a list of texts of 1 to 64 characters"),
        ({"tags": {"x": 1}}, "must be a list of texts of 1 to 64 characters"),
    ],
)
def test_keys_at_the_top(settings: dict[str, Any], message: str) -> None:
    (error,) = top_level_errors({"seed": 0, **settings})
    assert message in str(error)
    assert list(top_level_errors({"seed": None, "test": False, "tags": ["a", 1]})) == []
