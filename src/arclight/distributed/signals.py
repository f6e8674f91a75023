"""Signals that end a run: heard at any moment, heeded once the step is whole, by all processes after the same one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer  # seconds to import, and who only starts processes needs none of it

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
LONGEST_S = 2.0  # of training between two times that the processes ask each other, where steps are not longer themselves


class Interrupted(SystemExit):
    """A signal has ended the run; the exit status is 128 and its number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Interruption:
    """The first signal that this process was sent while it trains; outside training a signal ends it at once.

    So does a second Ctrl-C, except in one process of many, which would leave the others waiting.
    """

    def __init__(self, *, is_one_of_many: bool = False) -> None:
        self.number = 0
        self.is_training = False
        self._is_one_of_many = is_one_of_many

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if not self.is_training or (self.number and number == signal.SIGINT and not self._is_one_of_many):
            raise Interrupted(number)
        if not self.number:
            self.number = number
            again = "" if self._is_one_of_many else "; Ctrl-C again leaves at once"
            # no print: the signal may have come in the middle of one
            os.write(2, f"\n{signal.Signals(number).name}: the run ends once this step is saved{again}\n".encode())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the signals of `HEARD` are heard; in any thread but the main one Python knows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.hear) for number in HEARD}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def take_over_signals(trainer: Trainer) -> None:
    """Makes Lightning leave signals alone.

    In 2.6.6 its handler broadcasts, which hangs when only one process was sent the signal, and its loop broadcasts and waits
    for the device in every step, only to learn whether a signal came.
    """
    for place, name in (
        (trainer._signal_connector, "register_signal_handlers"),
        (trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"),
    ):
        assert callable(getattr(place, name))  # another Lightning may have none
        setattr(place, name, _do_nothing)


def _do_nothing() -> None:
    pass


class Agreement:
    """What the processes of a run decide together: after which step to stop, and when it is time to save.

    They ask each other by one small all-reduce after 1, 2, 4, ... steps, until about `LONGEST_S` seconds lie between. All see
    the same answer, so that all ask again after the same step. One process asks nobody.
    """

    def __init__(self) -> None:
        self._every = 1
        self._next = 0
        self._asked = time.monotonic()

    def ask(self, trainer: Trainer, number: int, is_due: bool, *, now: bool = False) -> tuple[int, bool]:
        """What holds for all after a whole optimizer step.

        Args:
            trainer: of this process.
            number: of the signal that this process was sent, 0 for none.
            is_due: whether this process finds that it is time to save.
            now: ask at this step in any case; all processes must say so.

        Returns:
            The largest number, and whether any process found that it is time; nothing between two times of asking.
        """
        if trainer.world_size == 1:
            return number, is_due
        if trainer.global_step < self._next and not now:
            return 0, False
        passed = time.monotonic() - self._asked
        answer = torch.tensor([number, is_due, passed], dtype=torch.float32, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
        largest, any_due, passed = answer.tolist()
        if passed < LONGEST_S / 2 and not now:
            self._every *= 2
        elif passed > LONGEST_S:
            self._every = max(1, self._every // 2)
        self._next = trainer.global_step + self._every
        self._asked = time.monotonic()
        return int(largest), bool(any_due)
