from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from arclight.errors import InputError
from arclight.images.image_cache import ImageFile, memory_map

IMAGES = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return tmp_path / "images.npy"


@pytest.mark.parametrize("rows", [[3], [0, 1, 2], [4, 0, 1, 3, 3], [2, 2]])
def test_rows_are_those_of_the_file_in_any_order(path: Path, rows: list[int]) -> None:
    images = torch.empty(len(rows), 3, 4, 4, dtype=torch.uint8)
    ImageFile(path).read(torch.tensor(rows), images)
    assert torch.equal(images, IMAGES[rows])


def test_it_is_indexed_as_a_tensor_is(path: Path) -> None:
    file = ImageFile(path)
    assert (len(file), file.shape, file.device) == (5, IMAGES.shape, IMAGES.device)
    assert torch.equal(file[-1], IMAGES[-1])
    assert torch.equal(file[1:4], IMAGES[1:4])
    assert torch.equal(file[torch.tensor([4, 2])], IMAGES[[4, 2]])
    with pytest.raises(IndexError):
        file[5]


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, targets, place: read(file, [targets[0][:7]], place))
    assert torch.equal(ImageFile(path)[:], IMAGES)


def test_a_file_that_has_been_cut_short_is_an_error_that_names_it(path: Path) -> None:
    file = ImageFile(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"images\.npy has been truncated; delete it"):
        file[4]


def test_a_disk_that_fails_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(InputError, match=r"cannot read .*images\.npy: Input/output error; delete it"):
        ImageFile(path)[0]


def test_a_file_is_closed_with_its_reader(path: Path) -> None:
    file = ImageFile(path)
    number = file._file
    assert os.fstat(number)
    del file
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_mapped_images_are_those_of_the_file_and_writing_leaves_it_alone(path: Path) -> None:
    images = memory_map(path)
    assert torch.equal(images, IMAGES)
    images[0] = 0
    assert torch.equal(memory_map(path), IMAGES)
