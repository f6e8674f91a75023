"""Two machines under torchrun, simulated by two network namespaces: same result as one process, and loss of a machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import arclight
from arclight.checkpoint import contents
from arclight.config.locations import CONF
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES

ADDRESSES = ("10.231.7.1", "10.231.7.2")  # in a network of these two namespaces only
IMAGES = [*TINY_IMAGES, "model=cnn", "model.hidden=16", "data.num_train=256", "precision=fp32", "trainer.max_epochs=4"]
# SGD: Adam would amplify the rounding differences between one and two processes
SETTINGS = [
    *IMAGES,
    "optimizer=sgd",
    "optimizer.lr=0.01",
    "trainer.accelerator=cpu",
    "callbacks=none",
    "logger=csv",
    "hardware.timeout_s=30",
]
# short timeouts: when a silent machine counts as lost, how long to wait for more than the minimum
RENDEZVOUS = "last_call_timeout=15,keep_alive_interval=1,keep_alive_max_attempt=3,join_timeout=60,read_timeout=30"
LIMIT_S = 80


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout


def missing_requirement() -> str:
    """Returns why network namespaces do not work here; empty if they do."""
    if sys.platform != "linux" or not shutil.which("ip") or not shutil.which("unshare") or os.geteuid():
        return "needs Linux, `ip` and `unshare`, and the rights of root"
    name = f"arclight{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "delete", name)
    except subprocess.SubprocessError as error:
        return f"no network namespaces here: {error}"
    return ""


class Machine:
    """A network namespace with its own host name, which resolves to the loopback address, as on Debian."""

    def __init__(self, rank: int, work: Path) -> None:
        self.name, self.rank, self.work = f"arclight{os.getpid()}n{rank}", rank, work
        self.files = Path("/etc/netns") / self.name  # `ip netns exec` mounts them over those in /etc
        self.started: list[subprocess.Popen[bytes]] = []

    def build(self) -> None:
        ip("netns", "add", self.name)
        self.files.mkdir(parents=True)
        (self.files / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        (self.files / "resolv.conf").write_text("")
        ip("-n", self.name, "link", "set", "lo", "up")

    def connect(self) -> None:
        ip("-n", self.name, "address", "add", f"{ADDRESSES[self.rank]}/24", "dev", "wire")
        ip("-n", self.name, "link", "set", "wire", "up")

    def start(self, num_nodes: str) -> subprocess.Popen[bytes]:
        torchrun = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", num_nodes, "--nproc-per-node", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-id", "drill"),
            *("--rdzv-conf", f"{RENDEZVOUS},is_host={int(self.rank == 0)}", "--local-addr", ADDRESSES[self.rank]),
            *("--max-restarts", "2", str(CONF.parent / "train.py"), *SETTINGS),
        ]
        inside = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]
        # torch 2.13 does not send the address of the shared store to a machine that joins later
        environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with (self.work / f"machine{self.rank}.log").open("ab") as log:
            self.started.append(subprocess.Popen([*inside, *torchrun], cwd=self.work, env=environment, stdout=log, stderr=log))
        return self.started[-1]

    def kill(self) -> None:
        """Kills all processes at once, like the loss of a machine."""
        for pid in ip("netns", "pids", self.name).split():
            os.kill(int(pid), signal.SIGKILL)
        for process in self.started:
            process.wait(timeout=10)

    def remove(self) -> None:
        if self.name in ip("netns", "list").split():
            self.kill()
            ip("netns", "delete", self.name)
        shutil.rmtree(self.files, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _skip_without_namespaces() -> None:
    if reason := missing_requirement():
        pytest.skip(reason)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    both = [Machine(rank, tmp_path) for rank in (0, 1)]
    try:
        for machine in both:
            machine.build()
        ends = [("name", "wire", "netns", machine.name) for machine in both]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for machine in both:
            machine.connect()
        yield both
    finally:
        for machine in both:
            machine.remove()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Returns the directories of uninterrupted runs, by number of processes."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("undisturbed"))
    try:
        two = ["strategy=ddp_cpu", "trainer.devices=2"]
        return {num: arclight.run([*SETTINGS, *more]).folder.resolve() for num, more in ((1, []), (2, two))}
    finally:
        os.chdir(before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = contents.load_checkpoint(contents.last_checkpoint(folder))["state_dict"]
    return state


def assert_alike(folder: Path, other: Path, *, tolerance: float) -> None:
    for name, weight in weights(other).items():
        torch.testing.assert_close(weights(folder)[name], weight, rtol=tolerance, atol=tolerance, msg=name)


def end(machines: list[Machine], statuses: Sequence[int]) -> Path:
    """Waits for the last process of each machine, checks the exit statuses and returns the run directory."""
    limit = time.monotonic() + LIMIT_S
    logs = [(machine.work / f"machine{machine.rank}.log") for machine in machines]
    ended = [machine.started[-1].wait(timeout=max(1, limit - time.monotonic())) for machine in machines]
    assert ended == list(statuses), "\n".join(log.read_text()[-3000:] for log in logs)
    (folder,) = machines[0].work.glob("outputs/*/*")
    results = json.loads((folder / "results.json").read_text())
    assert (results["status"], results["epochs"]) == ("finished", 4)
    return folder


def wait_for_epoch(machines: list[Machine]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not list(machines[0].work.glob("outputs/*/*/checkpoints/last.ckpt")):
        assert time.monotonic() < limit, (machines[0].work / "machine0.log").read_text()[-3000:]
        time.sleep(0.05)


pytestmark = pytest.mark.processes


def test_two_machines_equal_one_process(machines: list[Machine], undisturbed: dict[int, Path]) -> None:
    for machine in machines:
        machine.start("2")
    folder = end(machines, (0, 0))
    assert_alike(folder, undisturbed[1], tolerance=1e-3)
    assert_alike(folder, undisturbed[2], tolerance=0)


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "stays away"])
def test_resumes_after_the_loss_of_a_machine(machines: list[Machine], undisturbed: dict[int, Path], returns: bool) -> None:
    num_nodes = "2" if returns else "1:2"
    for machine in machines:
        machine.start(num_nodes)
    wait_for_epoch(machines)
    machines[1].kill()
    if returns:
        machines[1].start(num_nodes)
    folder = end(machines, (0, 0 if returns else -signal.SIGKILL))
    lines = (machines[0].work / "machine0.log").read_text() + (machines[0].work / "machine1.log").read_text()
    assert lines.count("epoch 1/4") == 1
    if returns:
        assert_alike(folder, undisturbed[2], tolerance=0)
    else:
        assert_alike(folder, undisturbed[1], tolerance=1e-3)
