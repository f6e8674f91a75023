from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from arclight.distributed.collectives import gather_objects


def test_one_process_answers_for_itself() -> None:
    assert gather_objects({"a": 1}) == [{"a": 1}]


def gather(rank: int, file: str) -> list[int]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
        return gather_objects(10 * rank)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.processes
def test_values_come_by_rank(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(gather, [(rank, str(tmp_path / "met")) for rank in range(2)]) == [[0, 10]] * 2
