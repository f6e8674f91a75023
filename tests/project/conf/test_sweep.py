"""scripts/sweep.yaml: the commands of W&B's agent compose, and its metric is one that the runs log."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from arclight import hardware
from arclight.config.compose import RunConfig, compose
from arclight.config.locations import CONF
from arclight.preflight.config_checks import check_config
from arclight.runs.build import monitor_of

SWEEP: dict[str, Any] = yaml.safe_load((CONF.parent / "scripts" / "sweep.yaml").read_text())


def values_of(parameter: dict[str, Any]) -> list[Any]:
    """Returns every value of a list, or both ends of a range."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def agent_command(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the command that W&B's agent starts for these values."""
    from wandb import wandb_agent

    started: list[list[str]] = []

    class Process:
        def __init__(self, *, command: list[str], env: dict[str, str], forward_signals: bool) -> None:
            assert env["WANDB_RUN_ID"] == "run1"
            started.append(command)

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    monkeypatch.setenv("WANDB_RUN_ID", "")  # the agent sets these: restore them after the test
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_DIR", str(Path.cwd()))
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
    agent._sweep_command = list(SWEEP["command"])
    arguments = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"type": "run", "run_id": "run1", "program": SWEEP["program"], "args": arguments})
    return started[0]


@pytest.fixture(scope="module")
def composed_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunConfig]]:
    """Returns the fewest configs that cover every value of every parameter."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("sweep"))
        yield compose_all(monkeypatch)


def compose_all(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    columns = {key: values_of(parameter) for key, parameter in SWEEP["parameters"].items()}
    made = []
    for row in itertools.zip_longest(*columns.values()):
        values = {key: columns[key][0] if value is None else value for key, value in zip(columns, row, strict=True)}
        command = agent_command(values, monkeypatch)
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        composed = compose(command[3:])
        for key, value in values.items():
            node: Any = composed.settings
            for part in key.split("."):
                node = node[part]
            assert node == pytest.approx(value), key
        made.append(composed)
    return made


def test_every_value_composes_and_can_be_built(composed_all: list[RunConfig]) -> None:
    assert (CONF.parent / SWEEP["program"]).is_file()
    for composed in composed_all:
        assert check_config(composed.settings, hardware.probe()) == []
        assert "wandb" in composed.settings["logger"]


def test_its_metric_is_logged_and_monitored(composed_all: list[RunConfig]) -> None:
    from project.lightning_modules.image_classifier import ImageClassifier

    assert SWEEP["metric"]["name"] == monitor_of(ImageClassifier).metric
    assert SWEEP["metric"]["goal"] == {"max": "maximize", "min": "minimize"}[ImageClassifier.monitor.mode]
    assert SWEEP["project"] == composed_all[0].settings["logger"]["wandb"]["project"]
    assert SWEEP["early_terminate"]["min_iter"] < composed_all[0].settings["trainer"]["max_epochs"]


def test_it_is_a_valid_sweep() -> None:
    assert json.dumps(SWEEP)  # sent as JSON to the server
    assert SWEEP["method"] in ("bayes", "random", "grid")
    for key, parameter in SWEEP["parameters"].items():
        assert set(parameter) in ({"values"}, {"distribution", "min", "max"}), key
        assert all(isinstance(value, int | float) for value in values_of(parameter)), key
