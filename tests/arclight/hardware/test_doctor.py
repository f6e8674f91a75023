"""What doctor finds on this machine, and what it reports as missing."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arclight import hardware
from arclight.__main__ import main
from arclight.distributed.environment import Launch
from arclight.hardware import Decision, HardwareInfo, doctor
from arclight.hardware.doctor import Findings, describe, examine, find_missing, is_logged_in_to_wandb, to_json, to_text
from arclight.hardware.self_tests import SelfTest
from tests.arclight.hardware.test_plan import A100, CPU, MAC, RTX_3090, TORCHRUN

FINDINGS = Findings(CPU, {"devices": Decision(1, "alone")}, (SelfTest("product", passed=True, value=2.0, unit="GFLOP/s"),), ())


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is missing."""
    monkeypatch.setattr(doctor, "is_free", lambda port: True)
    monkeypatch.setattr(doctor, "is_in_repository", lambda folder: True)
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/bin/{name}")
    return {"WANDB_API_KEY": "something"}


READY = replace(CPU, has_compiler=True)


def test_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("arclight.hardware.peak_measurement.BLOCK_S", 1e-6)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        *("Machine", "Plan: what `auto` chooses", "Self-tests", "Missing")
    ]
    for name in (
        "CPU",
        "memory",
        "launcher",
        "accelerator",
        "precision",
        "matrix product in fp32",
        "sum over two processes, gloo",
    ):
        assert any(line.strip().startswith(name) for line in lines), name


def test_json_holds_the_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "examine", lambda project: FINDINGS)
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"hardware_info", "plan", "self_tests", "missing"}
    assert found["plan"]["devices"] == {"value": 1, "reason": "alone", "is_user_set": False}
    assert found["hardware_info"]["launch"]["kind"] == "none"
    assert json.loads(to_json(FINDINGS)) == found


def test_text_without_a_plan_and_with_a_failed_self_test() -> None:
    failed = SelfTest("product", passed=False, problem="no such device")
    text = to_text(Findings(CPU, {}, (failed,), ("no plan: because",)))
    assert "  product  FAILED: no such device" in text
    assert "  none  see what is missing" in text
    assert "  - no plan: because" in text
    assert to_text(FINDINGS).endswith("Missing\n  nothing")


def test_a_failed_plan_and_a_failed_self_test_are_missing(monkeypatch: pytest.MonkeyPatch, complete: dict[str, str]) -> None:
    slurm = Launch("slurm", world_size=8, local_world_size=8)
    monkeypatch.setattr(
        hardware, "probe", lambda environment: replace(READY, gpus=A100.gpus[:1], launch=slurm, has_triton=True)
    )
    monkeypatch.setattr(
        doctor, "run_self_tests", lambda hardware_info, accelerator: [SelfTest(accelerator, passed=False, problem="broken")]
    )
    findings = examine(Path(), complete)
    assert findings.plan == {}
    assert findings.missing[0].startswith("no plan: slurm has started 8 processes")
    assert findings.missing[1] == "cpu: broken"


def test_nothing_is_missing(complete: dict[str, str]) -> None:
    assert list(find_missing(READY, Path(), complete)) == []


@pytest.mark.parametrize(
    ("hardware_info", "message"),
    [
        (CPU, "no C++ compiler, or no Python headers"),
        (replace(A100, has_compiler=True), "no package triton"),
        (replace(READY, problems=("the driver is too old",)), "the driver is too old"),
    ],
)
def test_missing_parts_of_the_machine(hardware_info: HardwareInfo, message: str, complete: dict[str, str]) -> None:
    (line,) = find_missing(hardware_info, Path(), complete)
    assert message in line


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("is_free", lambda port: False, "port 29500, for the rendezvous of torchrun, is in use"),
        ("is_in_repository", lambda folder: False, "is not a git repository"),
        ("is_logged_in_to_wandb", lambda environment: False, "not logged in to W&B"),
    ],
)
def test_missing_parts_of_the_environment(
    name: str, answer: Any, message: str, complete: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, name, answer)
    (line,) = find_missing(READY, Path(), complete)
    assert message in line


def test_no_git(complete: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert any(line.startswith("no git: ") for line in find_missing(READY, Path(), complete))


def test_little_shared_memory(complete: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=64_000_000))
    (line,) = find_missing(READY, Path(), complete)
    assert "has 64 MB" in line


def test_a_port_in_use_is_found() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not doctor.is_free(str(port))
    assert doctor.is_free(str(port))
    assert not doctor.is_free("none")


def test_git_repositories_are_detected(tmp_path: Path) -> None:
    assert not doctor.is_in_repository(tmp_path)
    assert not doctor.is_in_repository(tmp_path / "gone")


def test_a_login_is_found_where_wandb_writes_it(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert not is_logged_in_to_wandb(home)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert is_logged_in_to_wandb(home)
    assert not is_logged_in_to_wandb({**home, "NETRC": str(tmp_path / "other")})
    assert is_logged_in_to_wandb({"WANDB_API_KEY": "x"})


def test_descriptions_of_machines() -> None:
    assert describe(RTX_3090)["GPU 1"] == "RTX 3090, 26 GB, capability 8.6, fp16, bf16, tf32"
    assert describe(RTX_3090)["peer links"] == "none: gradients go through the host's memory"
    assert describe(MAC)["GPUs"] == "Apple"
    assert describe(TORCHRUN)["launcher"] == "torchrun: rank 3 of 4, local rank 1 of 2, node 1 of 2, restarts 0"
    assert describe(TORCHRUN)["OMP_NUM_THREADS"] == "1"
