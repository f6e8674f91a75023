"""Which data a run trains on: `resume=auto` trains other data in a new run, `resume=RUN` refuses it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

import arclight
from arclight.callbacks.data_identity import differences, identity_of
from arclight.errors import InputError, OtherDataError
from arclight.testing.module_suite import QUICK, StopAfter, StoppedError
from tests.arclight.conftest import MakeConf
from tests.arclight.small_project.regression import TableInfo

KNOWN = {
    "sizes": {"train": 8, "val": 2},
    "data_info": {"kind": "a.B", "classes": ("cat", "dog"), "mean": (0.1, 0.2)},
    "fingerprint": "abc",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"sizes": {"train": 9, "val": 2}}, ["8 samples in train, now 9"]),
        ({"sizes": {}, "data_info": None, "fingerprint": None}, []),
        ({"data_info": {"classes": ["cat", "emu"]}}, ["classes ['cat', 'dog'], now ['cat', 'emu']"]),
        ({"data_info": {"mean": [0.1, 0.3]}}, []),  # depends on the machine
        ({"fingerprint": "xyz"}, ["as many samples, but with other content"]),
        ({"data_info": {"classes": ["cat"] * 40}}, [f"classes ['cat', 'dog'], now {str(['cat'] * 40)[:57]}..."]),
    ],
)
def test_differences(changes: dict[str, Any], expected: list[str]) -> None:
    assert differences(KNOWN, {**KNOWN, **changes}) == expected


def test_what_a_checkpoint_of_an_older_version_lacks_is_equal() -> None:
    assert differences({}, KNOWN) == []


def test_a_data_module_offers_its_identity() -> None:
    data = SimpleNamespace(sizes={"train": 3, "test": 9}, data_info=TableInfo(num_features=4), fingerprint=lambda: "abc")
    assert identity_of(data) == {
        "sizes": {"train": 3},  # that of the test is not known in training
        "data_info": {"kind": "tests.arclight.small_project.regression.TableInfo", "num_features": 4},
        "fingerprint": "abc",
    }
    assert identity_of(None) == {"sizes": {}, "data_info": None, "fingerprint": None}


OPTIONS = {
    "data/rows": {"_target_": f"{__name__}.Rows", "root": "???"},
    "model/boring": {"_target_": "lightning.pytorch.demos.boring_classes.BoringModel"},
}
COMMAND = ["model=boring", "data=rows", "trainer.max_epochs=2", *QUICK]


class Table(Dataset[torch.Tensor]):
    """As many rows as its directory says, of the value that it says."""

    def __init__(self, root: str) -> None:
        size, value = Path(root).read_text().split()
        self.rows = torch.full((int(size), 32), float(value))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.rows[row]


class Rows(LightningDataModule):
    """A data module that knows nothing of the engine."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Table(self.root), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


@pytest.fixture
def conf(make_conf: MakeConf) -> Path:
    return make_conf(OPTIONS, data="rows", model="boring")


def start(root: str, *more: str, stop_after: int | None = None) -> Any:
    StopAfter.num_batches = stop_after
    try:
        return arclight.run([*COMMAND, f"data.root={root}", *more])
    finally:
        StopAfter.num_batches = None


@pytest.mark.with_report
@pytest.mark.usefixtures("conf")
@pytest.mark.parametrize(
    ("content", "difference"),
    [("16 1", "12 samples in train, now 16"), ("12 2", "as many samples, but with other content")],
)
def test_other_data_is_not_joined(content: str, difference: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("first").write_text("12 1")
    Path("moved").write_text("12 1")
    Path("other").write_text(content)
    with pytest.raises(StoppedError):
        start("first", stop_after=4)
    (earlier,) = Path("outputs").glob("*/*")
    (earlier / "report.html").write_text("of the run that was stopped")
    files = [file for file in earlier.iterdir() if file.is_file() and file.name not in ("train.log", ".lock")]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    with pytest.raises(OtherDataError, match=f"last.ckpt was trained on other data: {difference}. .* resume_with_changes=true"):
        start("other", f"resume={earlier}")
    new = start("other", "resume=auto")
    assert new.folder.resolve() != earlier.resolve()
    assert f"resume=auto starts a new run, {new.folder}: " in (new.folder / "train.log").read_text()
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    resumed = start("moved", "resume=auto")
    assert resumed.folder.resolve() == earlier.resolve()
    assert resumed.results["steps"] == 6


@pytest.mark.usefixtures("conf")
def test_changes_may_be_allowed_and_an_end_that_has_passed_is_not() -> None:
    Path("first").write_text("12 1")
    Path("other").write_text("12 2")
    run = start("first")
    results = (run.folder / "results.json").read_bytes()
    with pytest.raises(InputError, match="trainer.max_epochs=1: the run has done 2 already"):
        start("first", f"resume={run.folder}", "trainer.max_epochs=1", "resume_with_changes=true")
    assert (run.folder / "results.json").read_bytes() == results
    resumed = start("other", f"resume={run.folder}", "trainer.max_epochs=3", "resume_with_changes=true")
    assert resumed.results["epochs"] == 3
    assert "resumed on other data: as many samples, but with other content" in (run.folder / "train.log").read_text()
