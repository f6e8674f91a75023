"""Signals to the process that has started a run, handed on to the processes of the run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

TO_BE_STOPPED = "ARCLIGHT_TO_BE_STOPPED"  # the number of the signal that the run was sent before this process had started


class SignalForwarder:
    """Signals to this process, handed to the processes of the run, which end together; a second Ctrl-C kills them."""

    def __init__(self) -> None:
        self.number = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        kill = bool(self.number) and number == signal.SIGINT
        self.number = self.number or number
        os.environ[TO_BE_STOPPED] = str(self.number)  # those that start only now find it
        for rank in ranks_of_this():
            rank.send_signal(signal.SIGKILL if kill else number)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, the signals come here, not to torch's agent, which would kill the processes after some seconds."""
        from arclight.distributed.signals import HEARD

        if threading.current_thread() is not threading.main_thread():  # Python knows no handlers there
            yield
            return
        before = {number: signal.signal(number, self.hear) for number in HEARD}
        agents_own = os.environ.get("TORCHELASTIC_SIGNALS_TO_HANDLE")
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"
        try:
            yield
        finally:
            os.environ.pop(TO_BE_STOPPED, None)
            os.environ.pop("TORCHELASTIC_SIGNALS_TO_HANDLE")
            if agents_own is not None:
                os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = agents_own
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def ranks_of_this() -> list[psutil.Process]:
    """The processes of the run that this process has started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "arclight.launch.launcher" in child.cmdline():
                found.append(child)
    return found
