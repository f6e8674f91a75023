from __future__ import annotations

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from arclight.config import locations
from arclight.config.compose import compose
from arclight.report.config_diff import UNSET, Change, changed_settings, default_settings


def test_only_what_was_changed_is_there() -> None:
    composed = compose(["data=synthetic_images", "model=cnn", "optimizer.lr=0.125", "logger=csv"])
    found = {change.key: change for change in changed_settings(composed.settings, data="synthetic_images", model="cnn")}
    assert found["optimizer.lr"].value == 0.125
    assert set(found) == {"optimizer.lr"}


def test_a_setting_that_one_side_lacks() -> None:
    settings = {**compose(["data=synthetic_images", "model=cnn"]).settings, "more": {"on": True}}
    del settings["seed"]
    assert changed_settings(settings, data="synthetic_images", model="cnn") == [
        Change("more.on", UNSET, True),
        Change("seed", 0, UNSET),
    ]


def test_options_that_conf_does_not_have() -> None:
    assert changed_settings({"seed": 1}, data="nothing", model="cnn") == []
    assert changed_settings({"seed": 1}, data="", model="cnn") == []
    assert default_settings("x,y=1", "cnn") == {}


def test_a_setting_that_must_be_given_is_no_obstacle() -> None:
    assert default_settings("image_folder", "cnn")["data"]["root"] == "???"


def test_inside_of_hydra_main() -> None:
    with initialize_config_dir(str(locations.CONF), **locations.VERSION_BASE):
        assert GlobalHydra.instance().is_initialized()
        assert default_settings("synthetic_images", "cnn")["data"]
