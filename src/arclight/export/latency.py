"""Latency of single calls, of several models in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from arclight.benchmark.measurement import interleave


class Latency(NamedTuple):
    """Milliseconds of a call: median and 99th percentile."""

    p50: float
    p99: float


def measure_latency(
    calls: Mapping[str, Callable[[], Any]], *, num_rounds: int = 5, num_calls: int = 40, num_warm: int = 5
) -> dict[str, Latency]:
    """Returns the latency of each call, measured in interleaved rounds, so that a busy machine slows all of them alike."""
    rounds = interleave({name: seconds_of(call, num_calls, num_warm) for name, call in calls.items()}, num_rounds)
    return {name: to_latency([second for values in found for second in values]) for name, found in rounds.items()}


def seconds_of(call: Callable[[], Any], num_calls: int, num_warm: int) -> Callable[[], list[float]]:
    """Returns what measures a round: the seconds of so many calls, after a few that do not count."""

    def measure() -> list[float]:
        seconds = []
        for _ in range(num_warm + num_calls):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        return seconds[num_warm:]

    return measure


def to_latency(seconds: list[float]) -> Latency:
    """Returns median and 99th percentile in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return Latency(float(p50), float(p99))
