from __future__ import annotations

import threading

import pytest

from arclight.loggers import background
from arclight.loggers.background import Background


def test_things_are_done_in_order_in_another_thread() -> None:
    done: list[tuple[int, bool]] = []
    line = Background("line")
    assert line.wait(0)  # nothing was handed over
    for number in range(100):
        assert line.put(lambda number=number: done.append((number, threading.current_thread() is threading.main_thread())))  # type: ignore[misc]
    assert line.wait(10)
    assert done == [(number, False) for number in range(100)]
    line.end()
    assert line.put(lambda: done.append((100, False)))  # a new thread
    assert line.wait(10)
    assert len(done) == 101
    line.end()


def test_who_hands_over_waits_only_as_long_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MOST_WAITING", 2)
    line, released, begun = Background("line"), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        released.wait(20)

    assert line.put(hang)
    assert begun.wait(10)
    assert not line.wait(0.01)  # takes one of two places
    assert line.put(int)
    assert not line.put(int)
    assert not line.wait(0.01)
    line.end()
    released.set()
