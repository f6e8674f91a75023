"""Where trackers say that a run can be looked at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

from arclight.loggers.factory import tensorboard
from arclight.loggers.fault_tolerant import FaultTolerantLogger
from arclight.loggers.links import links

RUN = Path("outputs/synthetic_images-cnn/2026-01-31_12-00-00")


def stub(kind: str, **attributes: Any) -> Any:
    """A logger that has the name and the attributes of one whose package need not be there."""
    return type(kind, (DummyLogger,), attributes)()


@pytest.mark.parametrize(
    ("logger", "place"),
    [
        (stub("TrackedByWandb", experiment=SimpleNamespace(offline=True)), f"wandb leet {RUN}/wandb"),
        (
            stub("TrackedByWandb", experiment=SimpleNamespace(offline=False, url="https://wandb.ai/x/y/runs/1")),
            "https://wandb.ai/x/y/runs/1",
        ),
        (
            stub("TrackedByMlflow", _tracking_uri="http://host:5000/", experiment_id="7", run_id="ab"),
            "http://host:5000/#/experiments/7/runs/ab",
        ),
        (stub("Other", save_dir="elsewhere"), "elsewhere"),
        (stub("Nameless", save_dir=None), ""),
    ],
)
def test_a_tracker(logger: Any, place: str) -> None:
    assert links([FaultTolerantLogger(logger, "it", RUN)]) == [("it", place)]


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = stub("TrackedByMlflow", _tracking_uri=f"sqlite:///{tmp_path}/outputs/mlflow.db", experiment_id="1", run_id="2")
    loggers = {"csv": CSVLogger(RUN, name="", version=""), "tensorboard": tensorboard(RUN), "mlflow": store}
    assert links([FaultTolerantLogger(logger, name, RUN) for name, logger in loggers.items()]) == [
        ("csv", f"{RUN}/metrics.csv"),
        ("tensorboard", "tensorboard --logdir outputs/synthetic_images-cnn"),
        ("mlflow", "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"),
    ]


def test_one_that_has_failed_says_so() -> None:
    class Gone(DummyLogger):
        @property
        def save_dir(self) -> str:
            raise OSError("the server is gone")

    assert links([FaultTolerantLogger(Gone(), "mine", RUN)]) == [("mine", "has failed: see train.log")]


def test_a_logger_of_the_user() -> None:
    assert links([stub("Own", save_dir="there")]) == [("Own", "there")]
