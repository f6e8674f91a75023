"""The programs for other people's scripts and the script for GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arclight.config.locations import CONF
from benchmarks import peer
from benchmarks.readme_tables import read_result

PROGRAMS = CONF.parent / "benchmarks"
GPU = PROGRAMS / "gpu.sh"
# a script such as those that hold the records: reads the laid out files, prints a table, the first run is a warm-up
PEER = """
import sys, torch
code = open(sys.argv[0]).read()
data = torch.load("cifar10/train.pt", map_location="cpu", weights_only=True)
assert data["images"].shape[1:] == (32, 32, 3) and len(data["classes"]) == 10
columns = ["run   ", "epoch", "train_acc", "val_acc", "tta_val_acc", "time_seconds"]
def show(*cells):
    print("".join("|  %s  " % cell for cell in cells) + "|")
show(*columns)
for run in ["warmup", *range(200)]:
    show(str(run), "    0", "   0.5000", " 0.5000", "           ", "      0.1000")
    seconds = "      9.0000" if run == "warmup" else "      2.5000"
    show("      ", " eval", "   0.9000", " 0.9000", "     0.9%03d" % len(data["images"]), seconds)
    print("Mean accuracy after some runs", end="\\r", flush=True)
"""


def start(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{CONF.parent / 'src'}:{CONF.parent}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def test_a_peers_table_is_read() -> None:
    lines = [
        "-" * 40,
        "|  run   |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  total_time_seconds  |",
        "-" * 40,
        "|  0  |  0  |  0.1  |  0.2  |    |  0.3  |",
        "|    |  eval  |  0.1  |  0.2  |  0.9401  |  2.59  |",
        "Proxy parameters: 17",
    ]
    assert list(peer.read_runs(lines)) == [(0.9401, 2.59)]


def test_a_peer_finds_the_images_and_labels_of_the_files(cifar_folder: Path, tmp_path: Path) -> None:
    peer.write_data(cifar_folder, tmp_path / "cifar10")
    written = torch.load(tmp_path / "cifar10" / "test.pt", weights_only=True)
    first = cifar_folder.joinpath("cifar-10-batches-bin", "test_batch.bin").read_bytes()[:3073]
    assert written["labels"][0] == first[0]
    assert written["images"][0, 0, 1].tolist() == [first[2], first[2 + 1024], first[2 + 2048]]
    assert len(torch.load(tmp_path / "cifar10" / "train.pt", weights_only=True)["labels"]) == 200


@pytest.mark.processes
@pytest.mark.parametrize(("code", "message"), [(PEER, None), ("raise SystemExit('no GPU here')", "no GPU here")])
def test_a_peer_is_run_unchanged(code: str, message: str | None, cifar_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "theirs.py"
    script.write_text(code)
    options = ["--data", str(cifar_folder), "--runs", "3", "--output", str(tmp_path / "peer.json")]
    ended = start(sys.executable, "-m", "benchmarks.peer", str(script), *options, folder=tmp_path)
    (case,) = read_result(tmp_path / "peer.json").cases
    if message is None:
        assert ended.returncode == 0, ended.stderr
        assert case.figures["record_s"].values == (2.5, 2.5, 2.5)
        assert case.figures["test/accuracy"].median == pytest.approx(0.9200)
    else:
        assert ended.returncode == 1
        assert message in str(case.missing)
    assert script.read_text() == code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: --data : cifar-10-batches-bin is missing in it"),
        (["--data"], "error: --data needs a value"),
        (["--speed", "9"], "error: unknown option --speed"),
    ],
)
def test_a_wrong_option_is_an_error(options: list[str], message: str, tmp_path: Path) -> None:
    ended = start("bash", str(GPU), *options, folder=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_conll_directory_is_an_error(cifar_folder: Path, tmp_path: Path) -> None:
    ended = start("bash", str(GPU), "--data", str(cifar_folder), "--conll", "nowhere", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "error: --conll nowhere: no such directory\n")


def test_a_python_without_the_packages_is_an_error(cifar_folder: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without site-packages
    python.chmod(0o755)
    ended = start("bash", str(GPU), "--data", str(cifar_folder), "--python", str(python), folder=tmp_path)
    assert ended.returncode == 2
    assert "error: torch lightning" in ended.stderr
    assert f"missing in {python}" in ended.stderr
    assert "install requirements.txt" in ended.stderr


@pytest.mark.processes
def test_what_cannot_be_measured_is_reported(cifar_folder: Path, tmp_path: Path) -> None:
    command = [
        "bash",
        str(GPU),
        "--data",
        str(cifar_folder),
        "--smoke",
        "--only",
        "peers,loader",
        "--budget",
        "0",
        "--python",
        sys.executable,
    ]
    ended = start(*command, folder=tmp_path)
    assert ended.returncode == 1
    summary = json.loads((tmp_path / "gpu-results" / "summary.json").read_text())
    assert [(step["step"], step["status"], step["reason"]) for step in summary["steps"] if step["step"] != "wandb"] == [
        ("peers", "not measured", "no --peer given"),
        ("loader", "not measured", "the budget of 0 s is spent"),
    ]


@pytest.mark.slow
def test_the_script_for_gpus_runs_from_end_to_end(cifar_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="benchmarks/requirements.txt brings it")
    script = tmp_path / "theirs.py"
    script.write_text(PEER)
    command = ["bash", str(GPU), "--data", str(cifar_folder), "--peer", "theirs.py", "--smoke", "--python", sys.executable]
    ended = start(*command, folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    output = tmp_path / "gpu-results"
    names = {path.stem for path in output.glob("*.json")} - {"summary"}
    assert names == {
        *("cifar10_fast", "cifar10_96", "peer-theirs", "tagger", "precision", "scaling", "loader", "inference"),
        *("kernels-images", "kernels-text"),
    }
    fast = read_result(output / "cifar10_fast.json").cases
    assert fast[0].figures["record_s"].median > 0
    assert all(case.missing is None for case in fast)
    assert {case.name for case in read_result(output / "tagger.json").cases} == {
        *("arclight", "tagger_loop_bf16", "hf_trainer_bf16"),
    }
