"""The verbs: the command line becomes a measurement, a table and a file; an error is one message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arclight.__main__ import main
from arclight.benchmark import inference, scaling
from arclight.hardware import peak_measurement
from tests.project.engine.benchmark.test_training_step import TINY_IMAGES


@pytest.fixture(autouse=True)
def _small_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})


@pytest.mark.processes
def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[list[str]] = []

    def train(overrides: list[str], *, num_threads: int) -> dict[str, Any]:
        commands.append(overrides)
        batch_size = int(next(o for o in reversed(overrides) if o.startswith("data.batch_size=")).partition("=")[2])
        return {"train/step_ms": 10.0, "train/samples_per_s": 100.0 * batch_size, "train/tflops": 0.01}

    monkeypatch.setattr(scaling.measure_jobs, "__kwdefaults__", {"train": train})
    file = tmp_path / "scaling.json"
    options = ["--device", "cpu", "--devices", "2,1", "--repeats", "2", "--batch-size", "8", "--output", str(file)]
    main(["benchmark", "scaling", *options, "model=small_cnn", "data=synthetic_images"])
    plain = json.loads(file.read_text())
    assert len(commands) == 2 * len(plain["cases"])
    assert plain["benchmark"] == "scaling-synthetic_images-small_cnn"
    one = next(case for case in plain["cases"] if case["settings"]["kind"] == "one")
    flops = plain["machine"]["flops"]  # of the precision that the plan chooses, bf16 on a CPU that has it
    assert 1e10 / one["figures"]["peak_share"]["median"] == pytest.approx(flops.get("bf16", flops["fp32"]))
    shown = capsys.readouterr().out
    assert "efficiency" in shown
    assert f"result: {file}" in shown


@pytest.mark.processes
def test_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "precision.json"
    options = ["--device", "cpu", "--repeats", "1", "--without", "compile", "--output", str(file)]
    main(["benchmark", "precision", *options, *TINY_IMAGES])
    assert json.loads(file.read_text())["benchmark"] == "precision-synthetic_images-small_cnn"
    assert "fastest: " in capsys.readouterr().out


def test_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[Any] = []

    def measure(options: Any, log: Any) -> None:
        requested.append(options)
        raise SystemExit

    monkeypatch.setattr(inference, "measure", measure)
    with pytest.raises(SystemExit):
        main(["benchmark", "inference", "--batch-sizes", "8,2", "--without", "compile", "model=resnet18"])
    assert (requested[0].sizes, requested[0].skip, requested[0].overrides) == ([2, 8], ["compile"], ["model=resnet18"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["precision", "model=resnet19"], "error: model=resnet19: conf/model/ has no resnet19.yaml. Did you mean"),
        (["precision", "--repeats", "0"], "error: argument --repeats: 0 must be a whole number of 1 or more"),
        (["scaling", "--device", "cpu", "--devices", "1,9999"], "error: trainer.devices=9999: too many processes"),
        (["scaling", "--devices", "two"], "error: argument --devices: two must be a whole number of 1 or more"),
        (["inference", "--batch-sizes", "4,0"], "error: argument --batch-sizes: 0 must be a whole number of 1 or more"),
        (["train", "--output", "nowhere/file.json"], "nowhere/file.json: nowhere does not exist. Create it first"),
    ],
)
def test_an_error_is_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["benchmark", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "arclight", "benchmark", "scaling", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "transformers"}
