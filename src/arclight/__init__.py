"""Engine of a PyTorch Lightning project: runs, hardware, checkpoints, loggers and reports for any LightningModule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arclight.runs.run import Run

if sys.platform == "win32":
    raise ImportError(
        "arclight runs on Linux and macOS; on Windows, run it in WSL 2: https://learn.microsoft.com/windows/wsl/install"
    )

__version__ = "0.2.0"
__all__ = ["load_run", "run"]


def run(overrides: list[str]) -> Run:
    """Trains and tests as `python train.py OVERRIDES...` does, and returns the run.

    Args:
        overrides: Hydra overrides, such as `["experiment=demo", "seed=1"]`.

    Raises:
        InputError: when a name or a value in the overrides, the data or the config is wrong.
        ProcessError: when a process of a run on several devices died.
    """
    from arclight.config import compose  # `import arclight` imports neither torch nor lightning
    from arclight.launch import launcher

    return launcher.run(compose.compose(overrides))


def load_run(run: str | Path) -> Run:
    """Returns a run made earlier: its config, results, curves, model, predictions and most confident errors.

    Args:
        run: a run directory, a checkpoint file in one, or `latest`.

    Raises:
        InputError: when there is no such run.
    """
    from arclight.config.locations import find_run
    from arclight.runs.run import Run

    path = Path(run)
    return Run(find_run(str(run)), path if path.suffix == ".ckpt" else None)
