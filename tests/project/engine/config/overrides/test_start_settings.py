"""Keys that say how and where a run starts."""

from __future__ import annotations

from typing import Any

import pytest

from arclight.config.overrides.start_settings import start_errors

RIGHT = {"preflight": "quick", "resume": "none", "resume_with_changes": False, "name": "cifar10-cnn"}


def messages(**changed: Any) -> list[str]:
    return [str(error) for error in start_errors({**RIGHT, **changed})]


@pytest.mark.parametrize("changed", [{}, {"name": "a/b"}, {"name": 5}, {"resume": None}, {"resume": "outputs/a"}])
def test_right_ones(changed: dict[str, Any]) -> None:
    assert messages(**changed) == []


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../b", "", "n" * 300, "a\0b"])
def test_a_run_stays_below_outputs(name: str) -> None:
    assert messages(name=name)[0].startswith(f"name={name} must be a directory below outputs/, of at most 200 characters")


@pytest.mark.parametrize("name", [None, True, ["a"], {"a": 1}])
def test_a_name_is_text(name: Any) -> None:
    assert messages(name=name) == [f"name={name} must be text, the name of a directory below outputs/"]


@pytest.mark.parametrize(("value", "meant"), [("no", "false"), ("yes", "true"), (0, "false"), ("maybe", None), (None, None)])
def test_a_permission_is_true_or_false(value: Any, meant: str | None) -> None:
    (error,) = start_errors({**RIGHT, "resume_with_changes": value})
    assert str(error) == f"resume_with_changes={value} must be true or false"
    assert error.suggestions == (() if meant is None else (f"resume_with_changes={meant}",))


def test_preflight_and_resume() -> None:
    assert messages(preflight="ful") == ["preflight=ful must be one of quick, full, none. Did you mean 'full'?"]
    assert messages(resume=True) == ["resume=True must be auto, none, latest, or a run directory"]
