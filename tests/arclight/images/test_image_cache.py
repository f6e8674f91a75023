from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from arclight.errors import InputError
from arclight.images.image_cache import (
    KEPT_DAYS,
    NAME,
    PART,
    KeptImages,
    Write,
    fingerprint,
    forget_unused,
    unfinished_bytes,
)

SHAPE = (4, 3, 2, 2)
IMAGES = np.arange(48, dtype=np.uint8).reshape(SHAPE)


@pytest.fixture
def kept(tmp_path: Path) -> KeptImages:
    return KeptImages(tmp_path / "cache" / f"{NAME}train-2-0123456789abcdef.npy", SHAPE)


def decode(write: Write) -> None:
    for row in (2, 0, 3, 1):
        write(row, IMAGES[row])


def never(write: Write) -> None:
    raise AssertionError("it is there already")


def names(kept: KeptImages) -> set[str]:
    return {path.name for path in kept.path.parent.iterdir() if not path.name.startswith(".")}


def test_what_is_decoded_is_there_for_the_next(kept: KeptImages) -> None:
    assert not kept.is_whole()
    kept.make(decode)
    assert kept.is_whole()
    assert np.array_equal(np.load(kept.path), IMAGES)
    kept.make(never)
    assert names(kept) == {kept.path.name}
    assert kept.num_bytes == 48


def test_rows_come_in_any_layout_of_memory(kept: KeptImages) -> None:
    kept.make(lambda write: [write(row, np.asfortranarray(IMAGES[row])) for row in range(4)] and None)
    assert np.array_equal(np.load(kept.path), IMAGES)


@pytest.mark.parametrize("error", [InputError("a broken image"), KeyboardInterrupt()])
def test_what_is_broken_off_leaves_nothing(kept: KeptImages, error: BaseException) -> None:
    def stop(write: Write) -> None:
        write(0, IMAGES[0])
        raise error

    with pytest.raises(type(error)):
        kept.make(stop)
    assert names(kept) == set()
    assert not kept.is_whole()


def test_what_a_killed_process_left_is_written_over(kept: KeptImages) -> None:
    kept.path.parent.mkdir()
    (kept.path.parent / PART).write_bytes(b"x" * 10_000)
    assert not kept.is_whole()
    assert unfinished_bytes(kept.path.parent) >= 10_000
    kept.make(decode)
    assert unfinished_bytes(kept.path.parent) == 0
    assert names(kept) == {kept.path.name}
    assert np.array_equal(np.load(kept.path), IMAGES)


def test_of_two_at_once_one_decodes(kept: KeptImages) -> None:
    begun, at_once = [], Barrier(2)

    def slowly(write: Write) -> None:
        begun.append(1)
        time.sleep(0.2)
        decode(write)

    def one() -> None:
        at_once.wait()
        kept.make(slowly)

    with ThreadPoolExecutor(2) as pool:
        for made in [pool.submit(one) for _ in range(2)]:
            made.result()
    assert len(begun) == 1
    assert np.array_equal(np.load(kept.path), IMAGES)


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), lambda path: path.write_bytes(b"no images")])
def test_a_damaged_file_is_made_anew(kept: KeptImages, damage: Callable[[Path], None]) -> None:
    kept.make(decode)
    damage(kept.path)
    assert not kept.is_whole()
    kept.make(decode)
    assert np.array_equal(np.load(kept.path), IMAGES)


def test_images_of_another_shape_or_kind_are_others(kept: KeptImages) -> None:
    kept.make(decode)
    assert not kept._replace(shape=(3, 3, 2, 2)).is_whole()
    np.save(kept.path, IMAGES.astype(np.int16))
    assert not kept.is_whole()


def test_a_full_disk_is_told_with_its_numbers(kept: KeptImages) -> None:
    def fill(write: Write) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        InputError, match=r"no room for 0\.00 GB of decoded images in .*cache, where .* GB are left; data\.cache"
    ):
        kept.make(fill)
    assert names(kept) == set()


def test_a_disk_that_fails_is_told(kept: KeptImages) -> None:
    def fail(write: Write) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(InputError, match=r"cannot write .*\.npy: Input/output error; data\.cache=FOLDER names another place"):
        kept.make(fail)


def test_a_place_that_is_no_folder_is_told(kept: KeptImages) -> None:
    kept.path.parent.touch()
    with pytest.raises(InputError, match=r"cannot write in .*cache: .*; data\.cache=FOLDER names another place"):
        kept.make(decode)


def test_a_fingerprint_follows_names_sizes_times_and_the_size_of_the_images(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "cat").mkdir(parents=True)
    paths = [root / "cat" / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"12")
    seen = [fingerprint(paths, root, 8)]
    assert fingerprint(paths, root, 8) == seen[0]
    seen += [fingerprint(paths, root, 9), fingerprint(paths[:1], root, 8), fingerprint(paths[::-1], root, 8)]
    os.utime(paths[0], (1, 1))
    seen.append(fingerprint(paths, root, 8))
    paths[0].write_bytes(b"123")
    os.utime(paths[0], (1, 1))
    seen.append(fingerprint(paths, root, 8))
    renamed = [paths[0].rename(root / "cat" / "c.png"), paths[1]]
    seen.append(fingerprint(renamed, root, 8))
    assert len(set(seen)) == len(seen)
    moved = root.rename(tmp_path / "elsewhere")
    assert fingerprint([moved / path.relative_to(root) for path in renamed], moved, 8) == seen[-1]


def test_images_unused_for_long_are_deleted_and_nothing_else(kept: KeptImages) -> None:
    kept.make(decode)
    kept.statistics(lambda: ((0.5,), (0.1,)))
    others = [kept.path.with_name(name) for name in (f"{NAME}val-2-0.npy", "of_the_user.npy")]
    for path in others:
        path.touch()
    long_ago = time.time() - (KEPT_DAYS + 1) * 86400
    for path in (kept.path, others[1]):
        os.utime(path, (long_ago, long_ago))
    assert kept.is_whole()  # which marks it as used
    forget_unused(kept.path.parent)
    assert kept.path.exists()
    os.utime(kept.path, (long_ago, long_ago))
    forget_unused(kept.path.parent)
    assert names(kept) == {path.name for path in others}


def test_statistics_are_counted_once_and_kept_to_the_last_digit(kept: KeptImages) -> None:
    kept.make(decode)
    found = ((1 / 3, 0.1), (2 / 3, 0.7))
    counts: list[int] = []

    def count() -> tuple[tuple[float, ...], tuple[float, ...]]:
        counts.append(1)
        return found

    assert kept.statistics(count) == kept.statistics(count) == found
    assert len(counts) == 1
    kept.path.with_suffix(".json").write_text("{")
    assert kept.statistics(count) == kept.statistics(count) == found
    assert len(counts) == 2


def test_statistics_that_cannot_be_kept_are_given_all_the_same(kept: KeptImages) -> None:
    assert kept.statistics(lambda: ((0.5,), (0.1,))) == ((0.5,), (0.1,))  # its folder is not there
