"""Handles signals that end a run: after the current step, on all processes after the same one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer  # takes seconds to import, and the launcher does not need it

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
LONGEST_S = 2.0  # of training between two all-reduces, unless a step is longer


class Interrupted(SystemExit):
    """A signal has ended the run; the exit status is 128 plus its number, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context manager that installs a handler for the signals of `HANDLED`; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in HANDLED}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


class Interruption:
    """The first signal that this process received during training; outside training a signal ends it at once.

    So does a second Ctrl-C, except in one process of many, which would leave the others waiting.
    """

    def __init__(self, *, is_one_of_many: bool = False) -> None:
        self.number = 0
        self.is_training = False
        self._is_one_of_many = is_one_of_many

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        if not self.is_training or (self.number and number == signal.SIGINT and not self._is_one_of_many):
            raise Interrupted(number)
        if not self.number:
            self.number = number
            again = "" if self._is_one_of_many else "; Ctrl-C again quits now"
            # not print: the signal may arrive in the middle of one
            os.write(2, f"\n{signal.Signals(number).name}: Stopping after this step and saving{again}\n".encode())


def take_over_signals(trainer: Trainer) -> None:
    """Disables Lightning's signal handling.

    In 2.6.6 its handler broadcasts, which hangs when only one process received the signal, and its loop broadcasts and waits
    for the device in every step, only to learn whether a signal arrived.
    """
    for owner, name in (
        (trainer._signal_connector, "register_signal_handlers"),
        (trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"),
    ):
        assert callable(getattr(owner, name))  # private: another version of Lightning may not have it
        setattr(owner, name, _do_nothing)  # not a lambda: strategies that spawn pickle the trainer


def _do_nothing() -> None:
    pass


class Agreement:
    """What the processes of a run decide together: after which step to stop, and when to save.

    They all-reduce after 1, 2, 4, ... steps, until about `LONGEST_S` seconds lie between. All get the same result, so all
    choose the same next step.
    """

    def __init__(self) -> None:
        self._every = 1
        self._next = 0
        self._asked = time.monotonic()

    def ask(self, trainer: Trainer, number: int, is_due: bool, *, now: bool = False) -> tuple[int, bool]:
        """Returns what holds for all processes after an optimizer step; (0, False) between two all-reduces.

        Args:
            trainer: of this process.
            number: the signal that this process received, 0 for none.
            is_due: whether it is time to save on this process.
            now: whether to all-reduce after this step in any case; the same on all processes.

        Returns:
            The largest number, and whether it is time to save on any process.
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
