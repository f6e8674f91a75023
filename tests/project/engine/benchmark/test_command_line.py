"""The verbs: what is typed becomes a measurement, a table and a file; mistakes are one message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arclight.__main__ import main
from arclight.benchmark import scaling
from arclight.benchmark.measurement import read_result
from arclight.benchmark.train_process import Trained
from arclight.hardware import peak_measurement
from tests.project.engine.benchmark.test_scaling import COMMUNICATION

TINY = ["model=small_cnn", "data.num_train=600"]


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_measurement, "LARGEST_MATRIX", {"cpu": 512})
    monkeypatch.setattr(peak_measurement, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(peak_measurement, "NUM_IMAGES", {"cpu": 1})


@pytest.mark.processes
def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[list[str]] = []

    def train(overrides: list[str], *, num_threads: int) -> Trained:
        commands.append(overrides)
        batch_size = int(next(o for o in overrides if o.startswith("data.batch_size=")).partition("=")[2])
        results = {"train/step_ms": 10.0, "train/samples_per_s": 100.0 * batch_size}
        return Trained(results, COMMUNICATION if "strategy=ddp_cpu" in overrides else {})

    monkeypatch.setattr(scaling, "train", train)
    file = tmp_path / "scaling.json"
    options = ["--device", "cpu", "--devices", "2,1", "--repeats", "2", "--batch-size", "8", "--table", "--output", str(file)]
    main(["benchmark", "scaling", *options, *TINY])
    result = read_result(file)
    assert len(commands) == 2 * len(result.cases)
    assert result.benchmark == "scaling-synthetic_images-small_cnn"
    peaks = {case.name: case.figures["flops"].median * 1e9 / case.figures["peak_share"].median for case in result.cases}
    flops = result.facts["machine"]["flops"]
    one = next(case.name for case in result.cases if case.settings["kind"] == "one")
    assert peaks["untuned"] == pytest.approx(flops["fp32"])
    assert peaks[one] == pytest.approx(flops.get("bf16", flops["fp32"]))  # what the plan takes on a CPU that has it
    told = capsys.readouterr().out
    assert "time in communication" in told
    assert "one device, library-tuned" in told
    assert f"result: {file}" in told


@pytest.mark.processes
def test_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "precision.json"
    options = ["--model", "small_cnn", "--device", "cpu", "--repeats", "1", "--batch-size", "4", "--without", "compile"]
    main(["benchmark", "precision", "data.num_train=16", *options, "--output", str(file)])
    assert read_result(file).benchmark == "precision-small_cnn"
    assert "best: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["precision", "--model", "resnet19"],
            "error: model=resnet19: conf/model/ has no resnet19.yaml. Did you mean 'resnet18'?",
        ),
        (["precision", "--repeats", "0"], "error: --repeats 0 must be 1 or more"),
        (["scaling", "--device", "cpu", "--devices", "1,9999"], "error: --devices 9999: "),
        (["scaling", "--devices", "two"], "error: --devices two must be whole numbers with commas between them, such as 1,2,4"),
        (["scaling", "--output", "nowhere/file.json"], "error: --output nowhere/file.json: there is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["benchmark", *arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_help_is_given_without_torch() -> None:
    asked = [sys.executable, "-X", "importtime", "-m", "arclight", "benchmark", "scaling", "--help"]
    ended = subprocess.run(asked, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "transformers"}
