from __future__ import annotations

from arclight import config
from arclight.evaluation.changes import UNSET, Change, changes, defaults_of


def test_only_what_was_changed_is_there() -> None:
    composed = config.compose(["data=shapes", "model=cnn", "optimizer.lr=0.125", "tracker=csv"])
    found = {change.key: change for change in changes(composed.settings, data="shapes", model="cnn")}
    assert found["optimizer.lr"].value == 0.125
    assert found["tracker.wandb.project"] == Change("tracker.wandb.project", "arclight", UNSET)
    assert {key.partition(".")[0] for key in found} <= {"optimizer", "tracker"}


def test_options_that_conf_does_not_have() -> None:
    assert changes({"seed": 1}, data="nothing", model="cnn") == []
    assert changes({"seed": 1}, data="", model="cnn") == []
    assert defaults_of("x,y=1", "cnn") == {}


def test_a_setting_that_must_be_given_is_no_obstacle() -> None:
    assert defaults_of("image_folder", "cnn")["data"]["root"] == "???"
