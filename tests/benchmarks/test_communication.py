"""Time in communication: overlaps count once, and a run of one process is left alone."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.communication import BucketClock, CommunicationTime, length_of_union


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1.0, 3.0)], 2),
        ([(2.0, 4.0), (1.0, 3.0)], 3),
        ([(1.0, 9.0), (2.0, 3.0), (10.0, 11.0)], 9),
        ([(1.0, 2.0), (2.0, 3.0)], 2),
    ],
)
def test_length_of_union_of_spans(spans: list[tuple[float, float]], length: float) -> None:
    assert length_of_union(spans) == pytest.approx(length)


def test_start_clears_the_clock() -> None:
    clock = BucketClock(torch.device("cpu"))
    clock.start()
    assert (clock.num_buckets, clock.in_flight_s()) == (0, 0)


def test_a_single_process_writes_nothing(tmp_path: Path) -> None:
    strategy = types.SimpleNamespace(model=torch.nn.Linear(1, 1))
    trainer: Any = types.SimpleNamespace(strategy=strategy, world_size=1, default_root_dir=str(tmp_path))
    module: Any = torch.nn.Linear(1, 1)
    callback = CommunicationTime()
    callback.on_train_batch_end(trainer, module, None, "batch", 0)
    callback.on_train_end(trainer, module)
    assert not list(tmp_path.iterdir())
