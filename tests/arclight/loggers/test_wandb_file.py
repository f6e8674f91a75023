"""The file of a W&B run is read up to its first incomplete record; a run without an end is recognized."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import HistoryItem, HistoryRecord, Record, RunExitRecord

from arclight.loggers.wandb import warn_if_incomplete
from arclight.loggers.wandb_file import BLOCK, HEADER, has_end, records

END = Record(exit=RunExitRecord(exit_code=1)).SerializeToString()


def row(step: int, length: int = 1) -> bytes:
    items = [HistoryItem(key="step", value_json=str(step)), HistoryItem(key="text", value_json="x" * length)]
    return Record(history=HistoryRecord(item=items)).SerializeToString()


def written(contents: list[bytes]) -> bytes:
    """Returns records in LevelDB's layout, without checksums."""
    log = b":W&B\xee\xbe\x00"
    for content in contents:
        place, kinds = 0, []
        while place < len(content) or not kinds:
            left = BLOCK - len(log) % BLOCK
            if left < HEADER:
                log += bytes(left)
                continue
            part = content[place : place + left - HEADER]
            place += len(part)
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[not kinds, place == len(content)]
            kinds.append(kind)
            log += struct.pack("<IHB", 0, len(part), kind) + part
    return log


def steps(path: Path, *, only_last: bool = False) -> list[int]:
    found = records(path, only_last=only_last)
    return [int(record.history.item[0].value_json) for record in found if record.WhichOneof("record_type") == "history"]


@pytest.mark.parametrize("length", [1, 700, BLOCK - 40, BLOCK, 3 * BLOCK])
def test_records_are_joined_from_their_pieces(length: int, tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(written([row(step, length) for step in range(40)]))
    assert steps(path) == list(range(40))
    last = steps(path, only_last=True)
    assert last == list(range(40))[40 - len(last) :]
    assert len(last) < 40 or length < 1000  # all fit into the last blocks


def test_a_truncated_file_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path, log = tmp_path / "run.wandb", written([row(step, 700) for step in range(100)])
    seen = set()
    for size in range(0, len(log), 997):
        path.write_bytes(log[:size])
        found = steps(path)
        assert found == list(range(len(found)))
        seen.add(len(found))
    assert len(seen) > 50


@pytest.mark.parametrize("length", [1, 700, BLOCK - 30, 3 * BLOCK])
def test_the_end_is_found(length: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.wandb"
    log = written([*(row(step, length) for step in range(20)), END])
    path.write_bytes(log)
    assert has_end(path, 0)
    warn_if_incomplete(path)
    assert not caplog.records
    for cut in (1, len(END), len(log)):
        path.write_bytes(log[:-cut])
        assert not has_end(path, 0)
    assert not has_end(tmp_path / "nowhere", 0)


def test_a_missing_end_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arclight.loggers.wandb.WRITE_S", 0.0)
    path = tmp_path / "run.wandb"
    path.write_bytes(written([row(1)]))
    with caplog.at_level(logging.WARNING):
        warn_if_incomplete(path)
    assert "W&B did not write the whole run to" in caplog.text
    assert "MB free there" in caplog.text
