"""Only settings that change results make two configs different."""

from __future__ import annotations

from arclight.config.differences import differences

SETTINGS = {"seed": 0, "data": {"root": "data", "batch_size": 8}, "trainer": {"devices": 1}, "logger": {"csv": {}}}


def test_settings_without_effect_on_results_are_ignored() -> None:
    now = {**SETTINGS, "data": {"root": "/scratch", "batch_size": 8}, "trainer": {"devices": 8}, "logger": {"wandb": {}}}
    assert differences(SETTINGS, now) == {}


def test_other_differences_are_listed_with_both_values() -> None:
    now = {**SETTINGS, "seed": 1, "data": {"root": "data"}, "optimizer": {"lr": 0.1}}
    assert differences(SETTINGS, now) == {"data.batch_size": (8, None), "optimizer.lr": (None, 0.1), "seed": (0, 1)}


def test_secrets_are_not_compared() -> None:
    key = "a" * 40
    with_key, without_key = ({"model": {"api_key": value}} for value in (key, "<left out>"))
    assert differences(with_key, with_key) == {}
    assert key not in str(differences(with_key, without_key))
