"""Forwards signals from the process that started a run to the processes of the run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

PENDING_SIGNAL = "ARCLIGHT_TO_BE_STOPPED"  # the signal that the run received before this process was started
AGENT_SIGNALS = "TORCHELASTIC_SIGNALS_TO_HANDLE"


class SignalForwarder:
    """Forwards signals to the processes of the run, which stop together; a second Ctrl-C kills them."""

    def __init__(self) -> None:
        self.number = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        kill = bool(self.number) and number == signal.SIGINT
        self.number = self.number or number
        os.environ[PENDING_SIGNAL] = str(self.number)  # for processes that are just being started
        for process in started_processes():
            process.send_signal(signal.SIGKILL if kill else number)

    @contextmanager
    def forward_signals(self) -> Iterator[None]:
        """Context manager that handles signals in place of torch's agent, which would kill the processes after some seconds."""
        from arclight.distributed.signals import handle_signals

        agent_signals = os.environ.get(AGENT_SIGNALS)
        if threading.current_thread() is threading.main_thread():
            os.environ[AGENT_SIGNALS] = "SIGHUP,SIGQUIT"
        try:
            with handle_signals(self.handle):
                yield
        finally:
            for name, value in ((PENDING_SIGNAL, None), (AGENT_SIGNALS, agent_signals)):
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def started_processes() -> list[psutil.Process]:
    """Returns the processes of the run that this process has started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "arclight.launch.launcher" in child.cmdline():
                found.append(child)
    return found
