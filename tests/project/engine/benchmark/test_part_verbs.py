"""What is typed reaches the benchmarks of the parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.__main__ import main
from arclight.benchmark import growth, inference, loader, measurement
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, read_result
from arclight.hardware.peak_measurement import MeasuredPeaks

MACHINE = MeasuredPeaks("cpu", "made up", 2, {"fp32": 1e11}, 1e10)


def made(name: str, keys: tuple[str, ...]) -> Result:
    hardware_info = gather_facts(MACHINE, {}, {"sizes": [1, 4], "task": "images"}, num_rounds=1)
    return Result(name, hardware_info, (Case("1 x", {"num_samples": 8}, {key: Figure((1.0,), "s") for key in keys}),))


def test_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    requested: list[Any] = []
    keys = ("batches", "samples", "copy_share")
    monkeypatch.setattr(loader, "measure_loader", lambda wish, tell: requested.append(wish) or made("loader-x", keys))
    file = tmp_path / "a.json"
    main(["benchmark", "loader", "--against", "dataloader", "--workers", "4,0", "--batch-size", "8", "--output", str(file)])
    assert (requested[0].against_dataloader, requested[0].workers, requested[0].overrides) == (
        True,
        (0, 4),
        ("data.batch_size=8",),
    )
    assert read_result(file).benchmark == "loader-x"
    assert "share of copy speed" in capsys.readouterr().out


def test_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    requested: list[Any] = []
    keys = ("samples", "latency", "latency_p95", "peak_share")
    monkeypatch.setattr(inference, "measure_inference", lambda wish, tell: requested.append(wish) or made("inference-x", keys))
    options = ["--model", "resnet18", "--batch-sizes", "8,2", "--without", "compile"]
    main(["benchmark", "inference", *options, "--output", str(tmp_path / "a.json")])
    assert (requested[0].model, requested[0].sizes, requested[0].skip) == ("resnet18", (2, 8), ("compile",))
    assert "p95, ms" in capsys.readouterr().out


def test_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    requested: list[Any] = []
    keys = ("prepare_each", "load_each", "train_each")
    monkeypatch.setattr(growth, "measure_growth", lambda wish, tell: requested.append(wish) or made("growth-x", keys))
    main(["benchmark", "growth", "--sizes", "1,3", "--samples", "9", "--task", "text", "--output", str(tmp_path / "a.json")])
    assert (requested[0].task, requested[0].sizes, requested[0].num_samples) == ("text", (1, 3), 9)
    assert "preparing, us a sample" in capsys.readouterr().out


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", "table", str(measurement.RESULTS)])
    assert "| way to train | images/s | real tokens/s |" in capsys.readouterr().out
