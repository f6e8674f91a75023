from __future__ import annotations

import errno
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from arclight.config.atomic_file import PART
from arclight.errors import InputError
from arclight.images.image_cache import (
    PREFIX,
    UNUSED_DAYS,
    CachedImages,
    ImageFile,
    Write,
    delete_unused,
    fingerprint,
    for_each,
    memory_map,
    unfinished_bytes,
)

SHAPE = (4, 3, 2, 2)
IMAGES = np.arange(48, dtype=np.uint8).reshape(SHAPE)


@pytest.fixture
def cached(tmp_path: Path) -> CachedImages:
    return CachedImages(tmp_path / "cache" / f"{PREFIX}train-2-0123456789abcdef.npy", SHAPE)


def decode(write: Write) -> None:
    for row in (2, 0, 3, 1):
        write(row, IMAGES[row])


def never(write: Write) -> None:
    raise AssertionError("it is there already")


def names(cached: CachedImages) -> set[str]:
    return {path.name for path in cached.path.parent.iterdir() if not path.name.startswith(".")}


def test_decoded_images_are_found_by_the_next_start(cached: CachedImages) -> None:
    assert not cached.is_complete()
    cached.create(decode)
    assert cached.is_complete()
    assert np.array_equal(np.load(cached.path), IMAGES)
    cached.create(never)
    assert names(cached) == {cached.path.name}
    assert cached.num_bytes == 48


def test_rows_come_in_any_layout_of_memory(cached: CachedImages) -> None:
    cached.create(lambda write: [write(row, np.asfortranarray(IMAGES[row])) for row in range(4)] and None)
    assert np.array_equal(np.load(cached.path), IMAGES)


@pytest.mark.parametrize("error", [InputError("a broken image"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(cached: CachedImages, error: BaseException) -> None:
    def stop(write: Write) -> None:
        write(0, IMAGES[0])
        raise error

    with pytest.raises(type(error)):
        cached.create(stop)
    assert names(cached) == set()
    assert not cached.is_complete()


def test_what_a_killed_process_left_is_overwritten(cached: CachedImages) -> None:
    cached.path.parent.mkdir()
    (cached.path.parent / f"{cached.path.name}.0123{PART}").write_bytes(b"x" * 10_000)
    assert not cached.is_complete()
    assert unfinished_bytes(cached.path.parent) >= 10_000
    cached.create(decode)
    assert unfinished_bytes(cached.path.parent) == 0
    assert names(cached) == {cached.path.name}
    assert np.array_equal(np.load(cached.path), IMAGES)


def test_links_and_pipes_of_a_stranger_are_replaced_and_not_followed(cached: CachedImages, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("old" * 100_000)
    np.save(tmp_path / "images.npy", IMAGES)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    os.utime(tmp_path / "images.npy", (long_ago, long_ago))
    folder = cached.path.parent
    folder.mkdir()
    for name in ("decoded-unfinished.part", f"{cached.path.name}.0{PART}", "decoded-old-2-0.json"):
        (folder / name).symlink_to(precious)
    cached.path.symlink_to(tmp_path / "images.npy")
    os.mkfifo(cached.path.with_suffix(".json"))
    (folder / f"{PREFIX}a.npy").mkdir()
    assert not cached.is_complete()
    assert unfinished_bytes(folder) < 100_000
    cached.create(decode)
    assert not cached.path.is_symlink()
    assert np.array_equal(np.load(cached.path), IMAGES)
    assert cached.statistics(lambda: ((0.5,) * 3, (0.1,) * 3)) == ((0.5,) * 3, (0.1,) * 3)
    assert precious.read_text() == "old" * 100_000
    assert (tmp_path / "images.npy").stat().st_mtime == pytest.approx(long_ago)


@pytest.mark.parametrize("saved", ['{"mean": [1], "std": [1]}', '{"mean": [NaN, 1, 1], "std": [1, 1, 1]}', "[" * 100_000])
def test_statistics_that_do_not_fit_the_images_are_computed_again(cached: CachedImages, saved: str) -> None:
    cached.create(decode)
    cached.path.with_suffix(".json").write_text(saved)
    assert cached.statistics(lambda: ((0.5,) * 3, (0.1,) * 3)) == ((0.5,) * 3, (0.1,) * 3)


def test_of_two_at_once_one_decodes(cached: CachedImages) -> None:
    started, at_once = [], Barrier(2)

    def slowly(write: Write) -> None:
        started.append(1)
        time.sleep(0.2)
        decode(write)

    def one() -> None:
        at_once.wait()
        cached.create(slowly)

    with ThreadPoolExecutor(2) as pool:
        for made in [pool.submit(one) for _ in range(2)]:
            made.result()
    assert len(started) == 1
    assert np.array_equal(np.load(cached.path), IMAGES)


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), lambda path: path.write_bytes(b"no images")])
def test_a_damaged_file_is_created_again(cached: CachedImages, damage: Callable[[Path], None]) -> None:
    cached.create(decode)
    damage(cached.path)
    assert not cached.is_complete()
    cached.create(decode)
    assert np.array_equal(np.load(cached.path), IMAGES)


def test_images_of_another_shape_or_kind_are_not_taken(cached: CachedImages) -> None:
    cached.create(decode)
    assert not cached._replace(shape=(3, 3, 2, 2)).is_complete()
    np.save(cached.path, IMAGES.astype(np.int16))
    assert not cached.is_complete()


def test_a_full_disk_is_reported_with_its_numbers(cached: CachedImages) -> None:
    def fill(write: Write) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        InputError, match=r"no space for 0\.00 GB of decoded images in .*cache, where .* GB are free; choose .*data\.cache"
    ):
        cached.create(fill)
    assert names(cached) == set()


def test_a_disk_that_fails_is_reported(cached: CachedImages) -> None:
    def fail(write: Write) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(InputError, match=r"cannot write .*\.npy: Input/output error; choose another .*data\.cache=DIRECTORY"):
        cached.create(fail)


def test_a_cache_that_is_a_file_is_reported(cached: CachedImages) -> None:
    cached.path.parent.touch()
    with pytest.raises(InputError, match=r"cannot write in .*cache: .*; choose another .*data\.cache=DIRECTORY"):
        cached.create(decode)


def test_a_fingerprint_follows_names_sizes_times_and_the_settings(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "cat").mkdir(parents=True)
    paths = [root / "cat" / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"12")
    seen = [fingerprint(paths, root, [8])]
    assert fingerprint(paths, root, [8]) == seen[0]
    seen += [fingerprint(paths, root, [9]), fingerprint(paths[:1], root, [8]), fingerprint(paths[::-1], root, [8])]
    os.utime(paths[0], (1, 1))
    seen.append(fingerprint(paths, root, [8]))
    paths[0].write_bytes(b"123")
    os.utime(paths[0], (1, 1))
    seen.append(fingerprint(paths, root, [8]))
    renamed = [paths[0].rename(root / "cat" / "c.png"), paths[1]]
    seen.append(fingerprint(renamed, root, [8]))
    assert len(set(seen)) == len(seen)
    moved = root.rename(tmp_path / "elsewhere")
    assert fingerprint([moved / path.relative_to(root) for path in renamed], moved, [8]) == seen[-1]


def test_files_of_images_that_have_changed_are_deleted(cached: CachedImages) -> None:
    folder = cached.path.parent
    folder.mkdir()
    older = [f"{PREFIX}train-2-{digits}{suffix}" for digits in ("1" * 16, "2" * 16) for suffix in (".npy", ".json")]
    others = [f"{PREFIX}{name}-{'1' * 16}.npy" for name in ("train-3", "val-2", "train-2-abc")]
    for name in (*older, *others, "of_the_user.npy"):
        (folder / name).touch()
    cached.create(decode)
    assert names(cached) == {cached.path.name, *others, "of_the_user.npy"}


def test_images_unused_for_long_are_deleted_and_nothing_else(cached: CachedImages) -> None:
    cached.create(decode)
    cached.statistics(lambda: ((0.5,) * 3, (0.1,) * 3))
    others = [cached.path.with_name(name) for name in (f"{PREFIX}val-2-0.npy", "of_the_user.npy")]
    for path in others:
        path.touch()
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    for path in (cached.path, others[1]):
        os.utime(path, (long_ago, long_ago))
    assert cached.is_complete()  # which marks it as used
    delete_unused(cached.path.parent)
    assert cached.path.exists()
    os.utime(cached.path, (long_ago, long_ago))
    delete_unused(cached.path.parent)
    assert names(cached) == {path.name for path in others}


def test_statistics_are_counted_once_and_kept_to_the_last_digit(cached: CachedImages) -> None:
    cached.create(decode)
    found = ((1 / 3, 0.1, 0.0), (2 / 3, 0.7, 1.0))
    counts: list[int] = []

    def count() -> tuple[tuple[float, ...], tuple[float, ...]]:
        counts.append(1)
        return found

    assert cached.statistics(count) == cached.statistics(count) == found
    assert len(counts) == 1
    cached.path.with_suffix(".json").write_text("{")
    assert cached.statistics(count) == cached.statistics(count) == found
    assert len(counts) == 2


def test_statistics_that_cannot_be_kept_are_returned_all_the_same(cached: CachedImages) -> None:
    assert cached.statistics(lambda: ((0.5,), (0.1,))) == ((0.5,), (0.1,))  # its directory does not exist


ROWS = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", ROWS.numpy())
    return tmp_path / "images.npy"


@pytest.mark.parametrize("rows", [[3], [0, 1, 2], [4, 0, 1, 3, 3], [2, 2]])
def test_rows_are_those_of_the_file_in_any_order(path: Path, rows: list[int]) -> None:
    images = torch.empty(len(rows), 3, 4, 4, dtype=torch.uint8)
    ImageFile(path).read(torch.tensor(rows), images)
    assert torch.equal(images, ROWS[rows])


def test_it_is_indexed_as_a_tensor_is(path: Path) -> None:
    file = ImageFile(path)
    assert (len(file), file.shape, file.device) == (5, ROWS.shape, ROWS.device)
    assert torch.equal(file[-1], ROWS[-1])
    assert torch.equal(file[1:4], ROWS[1:4])
    assert torch.equal(file[torch.tensor([4, 2])], ROWS[[4, 2]])
    with pytest.raises(IndexError):
        file[5]


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, targets, place: read(file, [targets[0][:7]], place))
    assert torch.equal(ImageFile(path)[:], ROWS)


def test_a_file_that_has_been_cut_short_is_an_error_that_names_it(path: Path) -> None:
    file = ImageFile(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"images\.npy has been truncated; delete it"):
        file[4]


def test_a_disk_that_fails_while_reading_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert torch.equal(images, ROWS)
    images[0] = 0
    assert torch.equal(memory_map(path), ROWS)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_work_is_done_for_every_row(num_threads: int) -> None:
    done: list[int] = []
    for_each(done.append, 100, num_threads=num_threads, title="work")
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("num_broken", "listed"), [(3, 3), (10, 10), (25, 10)])
def test_all_errors_are_counted_and_the_first_are_listed(num_broken: int, listed: int) -> None:
    def work(row: int) -> None:
        if row % 2 and row < 2 * num_broken:
            raise InputError(f"row {row}")

    with pytest.raises(InputError) as caught:
        for_each(work, 100, num_threads=2, title="work")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{num_broken} of 100 files cannot be read; fix or delete them:"
    assert lines[1 : 1 + listed] == [f"  row {2 * number + 1}" for number in range(listed)]
    assert lines[1 + listed :] == (["  ..."] if num_broken > listed else [])


def test_a_bug_in_the_work_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda row: print(1 // (row - 50)), 100, num_threads=2, title="work")
