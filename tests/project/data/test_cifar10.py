from __future__ import annotations

import shutil
import tarfile
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arclight.data.download import md5_of
from arclight.errors import InputError
from arclight.hardware.memory import peak_bytes
from arclight.images.augment import Augment
from arclight.images.datamodule import channel_statistics
from project.data import cifar10
from project.data.cifar10 import ARCHIVE, DIRECTORY, RECORD, TEST_FILES, TRAIN_FILES, Cifar10, check_md5, read_records
from tests.arclight.data.test_download import Server
from tests.arclight.hardware.test_memory import reset_peak, resident_bytes

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def ready(root: Path, *, part: str = "fit", seed: int = 0, split_seed: int = 0, validation: int | float = 50) -> Cifar10:
    data = Cifar10(
        str(root),
        batch_size=30,
        validation=validation,
        seed=seed,
        split_seed=split_seed,
        augment=Augment(crop=4),
        download=False,
    )
    data.prepare_data()
    data.setup(part)
    return data


@pytest.fixture
def own_folder(cifar_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage; gives the folder that holds cifar-10-batches-bin."""
    shutil.copytree(cifar_folder / DIRECTORY, tmp_path / "data" / DIRECTORY)
    return tmp_path / "data"


@pytest.fixture
def archive(cifar_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "archives" / ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(cifar_folder / DIRECTORY, DIRECTORY)
    return path


def raw_records(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate(
        [np.frombuffer((folder / DIRECTORY / name).read_bytes(), np.uint8).reshape(-1, RECORD) for name in names]
    )


def test_all_images_are_read_in_their_planes(cifar_folder: Path) -> None:
    data = ready(cifar_folder)
    data.setup("test")
    assert data.sizes == {"train": 150, "val": 50, "test": 30}
    records = raw_records(cifar_folder, TEST_FILES)
    images, labels = data.arrays["test"]
    assert labels.tolist() == records[:, 0].tolist()
    assert int(images[7, 0, 0, 0]) == records[7, 1]  # red, first row
    assert int(images[7, 1, 2, 3]) == records[7, 1 + 1024 + 2 * 32 + 3]  # green, row 2, column 3
    assert int(images[29, 2, 31, 31]) == records[29, RECORD - 1]


def test_the_training_files_are_split_once_over_all_of_them(cifar_folder: Path) -> None:
    data = ready(cifar_folder)
    records = raw_records(cifar_folder, TRAIN_FILES)
    wanted = sorted(map(bytes, records))
    found = [
        bytes([int(label)]) + image.numpy().tobytes()
        for name in ("train", "val")
        for image, label in zip(*data.arrays[name], strict=True)
    ]
    assert sorted(found) == wanted


def test_the_spec_tells_classes_and_statistics_of_the_training_split(cifar_folder: Path) -> None:
    data = ready(cifar_folder)
    assert data.data_info is not None
    assert (data.data_info.channels, data.data_info.height, data.data_info.width, data.data_info.classes) == (
        3,
        32,
        32,
        CLASSES,
    )
    assert (data.data_info.mean, data.data_info.std) == channel_statistics(data.arrays["train"].images)


def test_the_split_has_its_own_seed(cifar_folder: Path) -> None:
    first, other_run, other_split = (
        ready(cifar_folder),
        ready(cifar_folder, seed=1),
        ready(cifar_folder, split_seed=1),
    )
    assert torch.equal(first.arrays["val"].images, other_run.arrays["val"].images)
    assert not torch.equal(first.arrays["val"].images, other_split.arrays["val"].images)
    one, other = next(iter(first.train_dataloader())), next(iter(other_run.train_dataloader()))
    assert not torch.equal(one.indices, other.indices)


def test_a_share_may_be_held_out_and_all_of_it_may_not(cifar_folder: Path) -> None:
    assert ready(cifar_folder, validation=0.1).sizes == {"train": 180, "val": 20}
    with pytest.raises(InputError, match=r"data\.validation=200 cannot split 200 samples"):
        ready(cifar_folder, validation=200)


def test_reading_in_chunks_of_any_size_gives_the_same(cifar_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ready(cifar_folder)
    monkeypatch.setattr("project.data.cifar10.CHUNK", 7)
    chunks = ready(cifar_folder)
    for name in ("train", "val"):
        assert all(torch.equal(*pair) for pair in zip(whole.arrays[name], chunks.arrays[name], strict=True))


def test_reading_holds_no_split_twice(cifar_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / DIRECTORY
    shutil.copytree(cifar_folder / DIRECTORY, root)
    for name in TRAIN_FILES:
        (root / name).write_bytes(bytes(RECORD) * 6000)  # 18 MB each
    data = Cifar10(str(root))
    data.prepare_data()
    cpu = torch.device("cpu")
    before = resident_bytes()
    reset_peak()
    data.read("fit")
    assert peak_bytes(cpu) - before < 1.25 * 5 * 6000 * RECORD


def test_fit_opens_no_test_file(cifar_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = np.fromfile

    def listen(file: BinaryIO, kind: type, count: int) -> np.ndarray:
        opened.append(Path(file.name).name)
        return read(file, kind, count)

    monkeypatch.setattr(np, "fromfile", listen)
    data = ready(cifar_folder)
    list(data.val_dataloader())
    assert opened == list(TRAIN_FILES)
    data.setup("test")
    assert opened == [*TRAIN_FILES, *TEST_FILES]


@pytest.mark.parametrize("place", ["", DIRECTORY])
def test_root_may_be_the_folder_or_hold_it(cifar_folder: Path, place: str) -> None:
    assert ready(cifar_folder / place).num_train == 150


@pytest.mark.parametrize("place", ["", ARCHIVE])
def test_root_may_be_the_archive_or_hold_it(archive: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ready(archive.parent / place).num_train == 150
    assert (archive.parent / DIRECTORY / "test_batch.bin").is_file()
    assert (
        f"{archive} is not the published archive (md5 {md5_of(archive)} instead of c32a1d4ab5d03f1284b67883e8d87530)"
        in caplog.text
    )
    archive.write_bytes(b"")  # the second time it is not needed
    assert ready(archive.parent / place).num_train == 150


def test_the_published_archive_is_taken_without_a_word(
    archive: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(own_folder / DIRECTORY / TRAIN_FILES[0], own_folder / DIRECTORY / TEST_FILES[0])
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(own_folder / DIRECTORY, DIRECTORY)
    monkeypatch.setattr(cifar10, "MD5", md5_of(archive))
    monkeypatch.setattr(cifar10, "PUBLISHED_RECORDS", 40)
    ready(archive)
    assert caplog.text == ""


def test_another_number_of_records_is_reported(cifar_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ready(cifar_folder)
    assert "data_batch_5.bin 40, test_batch.bin 30; the published files hold 10000 each" in caplog.text


@pytest.mark.parametrize("place", ["", ARCHIVE])
def test_what_is_missing_is_downloaded_and_checked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    data = Cifar10(str(tmp_path / "new" / place), validation=50)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        server.files["/archive"] = archive.read_bytes()
        monkeypatch.setattr(cifar10, "URLS", (server.url("/archive"),))
        with pytest.raises(InputError, match=r"the download \([\d,]+ bytes\) has md5 [0-9a-f]{32} instead of c32a1d4ab5d03f"):
            data.prepare_data()
        monkeypatch.setattr(cifar10, "MD5", md5_of(archive))
        data.prepare_data()
        server.shutdown()
    data.setup("fit")
    assert data.num_train == 150
    check_md5(tmp_path / "new" / ARCHIVE)


def test_without_download_a_missing_data_set_is_an_error(tmp_path: Path) -> None:
    message = rf"no CIFAR-10 at data\.root={tmp_path}/new: it holds neither cifar-10-batches-bin/ nor .* data\.download=true"
    with pytest.raises(InputError, match=message):
        ready(tmp_path / "new")


def test_a_node_where_nothing_was_prepared_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no CIFAR-10 at data\.root=.* on this machine; every node needs a copy"):
        Cifar10(str(tmp_path)).setup("fit")


def test_a_truncated_archive_is_an_error_and_leaves_nothing(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:10_000])
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz is an incomplete or corrupt archive"):
        ready(archive)
    assert not (archive.parent / DIRECTORY).exists()


def test_an_archive_where_nothing_can_be_written_is_reported(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write in .*/archives: Permission denied; choose a writable data\.root"):
        ready(archive)


def test_every_file_that_is_missing_or_of_a_wrong_size_is_named(own_folder: Path) -> None:
    folder = own_folder / DIRECTORY
    (folder / "batches.meta.txt").unlink()
    (folder / "data_batch_2.bin").unlink()
    (folder / "data_batch_4.bin").write_bytes(b"")
    (folder / "test_batch.bin").write_bytes(bytes(RECORD + 1))
    with pytest.raises(InputError) as caught:
        ready(own_folder)
    assert str(caught.value).splitlines() == [
        f"CIFAR-10 in {folder} is incomplete or corrupt:",
        "  batches.meta.txt is missing",
        "  data_batch_2.bin is missing",
        "  data_batch_4.bin has 0 bytes, not a multiple of 3073 (the published one has 30,730,000)",
        "  test_batch.bin has 3,074 bytes, not a multiple of 3073 (the published one has 30,730,000)",
        "Delete it, it will be unpacked or downloaded again.",
    ]


@pytest.mark.parametrize(("name", "part"), [("data_batch_3.bin", "fit"), ("test_batch.bin", "test")])
def test_a_label_beyond_the_classes_is_named_with_file_and_record(own_folder: Path, name: str, part: str) -> None:
    path = own_folder / DIRECTORY / name
    content = bytearray(path.read_bytes())
    content[2 * RECORD] = 10
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} has label 10 in record 2; 10 classes allow 0 to 9: the file is damaged"):
        ready(own_folder, part=part)


def test_a_model_of_other_classes_refuses_this_data(cifar_folder: Path) -> None:
    data, known = Cifar10(str(cifar_folder), validation=50), ready(cifar_folder).data_info
    assert known is not None
    data.data_info = replace(known, classes=("cat", "dog"))
    with pytest.raises(InputError, match="was trained on the classes cat, dog, this data set has airplane, automobile"):
        data.setup("test")


@pytest.mark.parametrize("content", [b"", b"cat", b"cat\ncat\n", b"\xff\xfe\n\xff", b"a" * 5000 + b"\n" + b"b" * 5001])
def test_class_names_that_are_none_are_reported(own_folder: Path, content: bytes) -> None:
    (own_folder / DIRECTORY / "batches.meta.txt").write_bytes(content)
    with pytest.raises(
        InputError, match=r"batches\.meta\.txt (is not a list of two or more different|cannot be read as a list of)"
    ):
        ready(own_folder)


def test_files_larger_than_the_memory_are_reported_before_they_are_read(own_folder: Path) -> None:
    with (own_folder / DIRECTORY / "data_batch_2.bin").open("wb") as file:
        file.truncate(RECORD * 10**9)  # takes no room on the disk
    with pytest.raises(InputError, match=r"its files take [\d.]+ GB of memory, and [\d.]+ GB are free"):
        ready(own_folder)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(2, 256), st.integers(0, 2**32 - 1))
def test_every_record_comes_out_as_it_was_written(counts: list[int], num_classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, sum(counts))
    pixels = random.integers(0, 256, (sum(counts), 3, 32, 32), dtype=np.uint8)
    records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(len(labels), -1)], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(counts))]
        for path, part in zip(paths, np.split(records, np.cumsum(counts)[:-1]), strict=True):
            path.write_bytes(part.tobytes())
        splits = {"even": torch.arange(0, len(labels), 2), "odd": torch.arange(1, len(labels), 2)}
        for name, (images, found) in read_records(paths, num_classes, splits).items():
            assert found.tolist() == labels[splits[name].numpy()].tolist()
            assert np.array_equal(images.numpy(), pixels[splits[name].numpy()])
        wrong = int(labels.max())
        with pytest.raises(InputError, match=f"has label {wrong} in record"):
            read_records(paths, wrong, splits)
