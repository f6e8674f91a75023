"""A thread that does one thing after the other, so that who hands them over never waits for any of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

MOST_WAITING = 10_000  # things to do; far more than ever wait for one that answers


class Background:
    """Things to do in the order in which they came, in one thread that ends with the process whatever it still does.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def put(self, do: Callable[[], object]) -> bool:
        """Whether there was room for it; what `do` raises is its own affair and must not get here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(do)
        except queue.Full:
            return False
        return True

    def wait(self, longest_s: float) -> bool:
        """Whether all that was handed over is done, after at most so many seconds."""
        if self._thread is None:
            return True
        done = threading.Event()
        return self.put(done.set) and done.wait(longest_s)

    def end(self) -> None:
        """Lets the thread go once it has done what waits; who hands something over later gets a new one."""
        if self._thread is not None:
            self.put_last()
            self._thread = None

    def put_last(self) -> None:
        """Tells the thread that nothing more comes."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._waiting = queue.Queue(MOST_WAITING)

    def _work(self) -> None:
        waiting = self._waiting
        while (do := waiting.get()) is not None:
            do()
