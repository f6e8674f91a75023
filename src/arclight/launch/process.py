"""One process of a run that the launcher has started: it receives the composed config and ends with the launcher."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.distributed.environment import OWN
from arclight.distributed.parent import end_with
from arclight.errors import InputError

if TYPE_CHECKING:
    from arclight.config.compose import RunConfig  # a second, in which Ctrl-C would print a traceback

PROCESS = "arclight.launch.process"  # the module that is run
# variables of the processes of a run: its config, the signal that the run received before the process was started, the launcher
RUN_CONFIG, PENDING_SIGNAL, PARENT = OWN, "ARCLIGHT_TO_BE_STOPPED", "ARCLIGHT_LAUNCHER_PID"
NEW_RUN_DIR = "new_run_dir"  # file that names the run directory where it is not that of the config
INPUT_ERROR = 2  # exit status of a process that an InputError ended


def train_in_this_process() -> None:
    """Main function of each started process."""
    if os.environ.get(PENDING_SIGNAL):
        return
    # outside the directories of the attempts: a restart (hardware.max_restarts) does not fix an input error
    input_error_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "input_error"
    if input_error_file.exists():
        write_error_file(input_error_file.read_text(encoding="utf-8"))
        sys.exit(INPUT_ERROR)
    from arclight.distributed.signals import Interrupted
    from arclight.runs.experiment import run as train

    try:
        train(given_config())
    except Interrupted:
        pass  # all processes have ended together; with another exit status torch's agent would restart them
    except InputError as error:
        input_error_file.write_text(str(error), encoding="utf-8")
        write_error_file(str(error))
        sys.exit(INPUT_ERROR)
    except Exception as error:
        write_error_file(f"{type(error).__name__}: {error}")
        raise


def given_config() -> RunConfig:
    """Returns the config of the launcher; after a restart, in the directory of the run that these processes have started."""
    from arclight.config.compose import RunConfig
    from arclight.runs.resume import NEW_RUN_DIR_FILE

    run_config = RunConfig.from_json(os.environ[RUN_CONFIG])
    file = Path(os.environ.get(NEW_RUN_DIR_FILE, os.devnull))
    return replace(run_config, folder=Path(file.read_text(encoding="utf-8")), new_folder=None) if file.is_file() else run_config


def write_error_file(text: str) -> None:
    """Writes the reason of a failure where torch's agent reads it."""
    content = {"message": {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the run handles it: no traceback of each process
    end_with(int(os.environ[PARENT]))
    train_in_this_process()
