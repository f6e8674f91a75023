"""arclight: train, test and look at image classifiers and token taggers.

The floors of the house, from the door down; imports run down only:

    train.py, __main__          what the user types
    launch, grid                the processes of a run, the runs of a grid
    experiment                  config -> data, net, trainer -> fit, test -> results
    resume                      which folder a run lives in, new or gone on with
    loaded_run                  a run from its folder, to look into
    checkpoint                  what a checkpoint holds; model back from a file alone
    training                    LightningModules, optimizers, schedules, callbacks, trackers
    data | models | evaluation  batches | nets | scores and reports
    build | config | spec | hardware    targets | composition | facts of the data | facts of the machine
    errors                      mistakes of the user, told in one message
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.runs.loaded_run import LoadedRun
    from arclight.runs.run_directory import Run

__version__ = "0.1.0"
__all__ = ["load_run", "run"]


def run(overrides: list[str]) -> Run:
    """The run that `python train.py OVERRIDES...` makes: results, model and folder.

    Args:
        overrides: what would stand on the command line, such as `["experiment=demo", "seed=1"]`.

    Raises:
        InputError: when a name or a value in the overrides, the data or the config is wrong.
        ProcessError: when a process of a run on several devices died.
    """
    from arclight.config import compose  # torch and lightning load here, not with the package
    from arclight.launch import launcher

    return launcher.run(compose.compose(overrides))


def load_run(run: str | Path) -> LoadedRun:
    """A run that was made before, to look into: its config, results, curves, model, predictions and mistakes.

    Args:
        run: a run folder, a checkpoint file in one, or `latest`.

    Raises:
        InputError: when there is none.
    """
    from arclight.runs import loaded_run

    return loaded_run.load_run(run)
