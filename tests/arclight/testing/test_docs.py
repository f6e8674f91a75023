"""docs/bring_your_own.md, step by step: what a reader types works. The suite is of arclight.testing."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import arclight
from arclight.__main__ import main
from arclight.testing import ModuleSuite
from tests.arclight.conftest import MakeConf

pytestmark = pytest.mark.with_report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "bring_your_own.md"
BIRDS = {
    "birds/__init__.py": "",
    "birds/module.py": """
import torch
from lightning.pytorch import LightningModule

class BirdModule(LightningModule):
    def __init__(self, lr: float, hidden: int):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))
        self.log("val_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)
""",
    "birds/data.py": """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class BirdData(LightningDataModule):
    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size = batch_size

    def dataset(self, size, seed):
        features = torch.randn(size, 8, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(features, (features.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.dataset(200, 0), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.dataset(40, 1), batch_size=self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.dataset(40, 2), batch_size=self.batch_size)
""",
}


def blocks(language: str) -> list[str]:
    """Returns the code of a language in the page, without the indentation of lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in code.splitlines()) for indent, code in found]


def commands(program: str) -> list[list[str]]:
    """Returns the arguments of the page's commands that start a program."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith(program)]
    return [shlex.split(line.removeprefix(program)) for line in lines]


@pytest.fixture(autouse=True)
def birds(make_conf: MakeConf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's package, and the two files of the page, in the directory that the test works in."""
    conf = make_conf({}, data="none", model="birds")
    for name, text in BIRDS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    model, data = (block for block in blocks("yaml") if block.startswith("_target_: birds.") and "net:" not in block)
    (conf / "model" / "birds.yaml").write_text(model, encoding="utf-8")
    (conf / "data" / "birds.yaml").write_text(data, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "birds"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_commands_of_one_process(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, resume = [command for command in commands("python train.py") if "strategy=ddp_cpu" not in command]
    run = arclight.run([*train, "logger=csv"])
    assert run.results["monitor"] == "val/acc"
    assert run.results["test/acc"] > 0.7
    assert arclight.run([*resume, "logger=csv"]).folder != run.folder  # the first has finished
    for command in commands("python -m arclight"):
        main(command)
    printed = capsys.readouterr().out
    assert re.search(r"test/acc +[01]\.\d{3}", printed)
    assert "report.html" in printed


@pytest.mark.processes
def test_the_command_of_two_processes(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(birds))
    (command,) = [command for command in commands("python train.py") if "strategy=ddp_cpu" in command]
    assert arclight.run([*command, "logger=csv"]).results["test/acc"] > 0.7


def test_the_suite_of_the_page_has_the_promised_tests() -> None:
    (code,) = blocks("python")
    names: dict[str, type[ModuleSuite]] = {}
    exec(code, names)  # the page's own code
    suite = names["TestBirds"]
    assert issubclass(suite, ModuleSuite)
    assert len([name for name in dir(suite) if name.startswith("test_")]) == 5


def test_the_other_files_of_the_page_are_yaml() -> None:
    import yaml

    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks("yaml"))
