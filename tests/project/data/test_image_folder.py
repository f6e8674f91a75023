from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from arclight.errors import InputError
from arclight.images import class_directories, datamodule
from arclight.images.augment import Augment
from arclight.images.class_directories import find_images
from arclight.images.decoding import check_readable, read_image
from arclight.images.image_cache import ImageFile
from arclight.images.info import ImageBatch, ImageInfo
from project.data import image_folder
from project.data.image_folder import ImageFolder
from tests.arclight.images.test_loader import same

COLOURS = {"cat": (200, 0, 0), "dog": (0, 200, 0), "eel": (0, 0, 200)}


def plant(folder: Path, numbers: dict[str, int]) -> None:
    """PNG images of one colour per class, of all sizes."""
    for name, number in numbers.items():
        (folder / name).mkdir(parents=True)
        for row in range(number):
            Image.new("RGB", (20 + row, 30), COLOURS.get(name, (9, 9, 9))).save(folder / name / f"{row:02}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """root/<class>/*: 20 cats and 10 dogs."""
    plant(tmp_path / "flat", {"cat": 20, "dog": 10})
    return tmp_path / "flat"


@pytest.fixture
def split_up(tmp_path: Path) -> Path:
    """root/train, val and test with 3, 2 and 2 images of each class."""
    for name, number in (("train", 3), ("val", 2), ("test", 2)):
        plant(tmp_path / "split" / name, {"dog": number, "cat": number})
    return tmp_path / "split"


def ready(
    root: Path, *parts: str, data_info: ImageInfo | None = None, image_size: int | None = 16, **settings: object
) -> ImageFolder:
    data = ImageFolder(str(root), image_size=image_size, batch_size=2, **settings)  # type: ignore[arg-type]
    data.data_info = data_info
    data.prepare_data()
    for part in parts or ("fit", "test"):
        data.setup(part)
    return data


def assert_right(data: ImageFolder) -> None:
    """Every row has the colour of its class and the folder of its label."""
    assert isinstance(data.data_info, ImageInfo)
    for name, (images, labels) in data.arrays.items():
        for image, label, path in zip(images, labels.tolist(), data.files[name].paths, strict=True):
            assert path.parent.name == data.data_info.classes[label]
            assert image.amax((1, 2)).tolist() == list(COLOURS[data.data_info.classes[label]])


def test_folders_of_splits_are_the_splits(split_up: Path) -> None:
    data = ready(split_up)
    assert data.sizes == {"train": 6, "val": 4, "test": 4}
    assert data.data_info is not None
    assert (data.data_info.classes, data.data_info.channels, data.data_info.height, data.data_info.width) == (
        ("cat", "dog"),
        3,
        16,
        16,
    )
    assert all(split_up / name in path.parents for name in data.sizes for path in data.files[name].paths)
    assert_right(data)


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_the_validation_folder_has_other_names_too(split_up: Path, name: str) -> None:
    (split_up / "val").rename(split_up / name)
    assert all(split_up / name in path.parents for path in ready(split_up, "fit").files["val"].paths)


def test_class_folders_alone_are_split_by_shares_of_the_whole(flat: Path) -> None:
    data = ready(flat, validation=0.2, test=0.1)
    assert data.sizes == {"train": 21, "val": 6, "test": 3}
    paths = [path for files in data.files.values() for path in files.paths]
    assert sorted(paths) == sorted(flat.glob("*/*.png"))
    assert_right(data)


def test_counts_may_be_held_out_and_the_split_has_its_own_seed(flat: Path) -> None:
    first, again, other = (ready(flat, "test", validation=4, test=5, seed=seed, split_seed=seed // 2) for seed in range(3))
    assert {name: len(files.paths) for name, files in first.files.items()} == {"train": 21, "test": 5, "val": 4}
    assert first.files == again.files
    assert first.files["test"] != other.files["test"]


def test_a_split_without_a_folder_is_drawn_from_the_training_images(split_up: Path) -> None:
    shutil.rmtree(split_up / "test")
    data = ready(split_up, test=2)
    assert data.sizes == {"train": 4, "val": 4, "test": 2}
    assert {path.parent.parent.name for path in data.files["test"].paths} == {"train"}
    assert_right(data)


def test_a_split_that_leaves_nothing_is_an_error(flat: Path) -> None:
    with pytest.raises(InputError, match=r"data\.test=30 cannot split 30 samples"):
        ready(flat, test=30)
    with pytest.raises(InputError, match=r"data\.validation=20 cannot split 20 samples"):
        ready(flat, test=10, validation=20)


def test_fit_decodes_no_test_image_and_test_no_training_image(split_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: set[str] = set()

    def listen(path: Path, *settings: Any, **others: Any) -> np.ndarray:
        decoded.add(path.parent.parent.name)
        return read_image(path, *settings, **others)

    monkeypatch.setattr(image_folder, "read_image", listen)
    data = ready(split_up, "fit")
    assert decoded == {"train", "val"}
    decoded.clear()
    data.setup("test")
    assert decoded == {"test"}


def test_a_class_may_be_called_train(flat: Path) -> None:
    (flat / "dog").rename(flat / "train")
    assert ready(flat, "fit", validation=3).classes == ("cat", "train")


def test_ignored_files_are_reported(split_up: Path, caplog: pytest.LogCaptureFixture) -> None:
    (split_up / "train" / "cat" / "notes.txt").touch()
    (split_up / "train" / "cat" / "table.csv").touch()
    (split_up / "extra").mkdir()
    ready(split_up, "test")
    assert f"2 files in {split_up}/train/cat are ignored, as they are not named as images, such as notes.txt" in caplog.text
    assert f"directories in {split_up} that are not a split are ignored: extra" in caplog.text


@pytest.mark.parametrize("make", [lambda root: None, lambda root: root.touch()])
def test_a_root_that_is_no_folder_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "root")
    with pytest.raises(InputError, match=r"data\.root=.*/root is not a directory; expected <root>/<class>/\*, or <root>/train"):
        ready(tmp_path / "root")


def test_a_root_without_classes_is_an_error_that_tells_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be 2 classes or more, found no class directories; expected <root>/<class>/\*"):
        ready(tmp_path)
    plant(tmp_path, {"cat": 3})
    with pytest.raises(InputError, match="found only the class 'cat'; expected"):
        ready(tmp_path)


def test_two_folders_for_one_split_are_an_error(split_up: Path) -> None:
    shutil.copytree(split_up / "val", split_up / "valid")
    with pytest.raises(InputError, match="has val and valid; keep one of them"):
        ready(split_up)


def test_test_images_alone_are_nothing_to_train_on(split_up: Path) -> None:
    shutil.rmtree(split_up / "train")
    with pytest.raises(InputError, match=r"has val/, test/ but no train/; expected"):
        ready(split_up)


def test_everything_wrong_with_the_classes_is_reported_at_once(split_up: Path) -> None:
    for path in (split_up / "train" / "dog").iterdir():
        path.unlink()
    (split_up / "val" / "cat").rename(split_up / "val" / "cats")
    plant(split_up / "test", {"eel": 1})
    with pytest.raises(InputError) as caught:
        ready(split_up)
    assert str(caught.value).splitlines() == [
        f"data.root={split_up}:",
        "  train: the class directory 'dog' has no image",
        "  val: the class 'cats' does not occur in training. Did you mean 'cat'?",
        "  test: the class 'eel' does not occur in training. Known: cat, dog.",
    ]


def test_a_restored_model_decides_classes_and_size(split_up: Path, flat: Path) -> None:
    data_info = ready(split_up).data_info
    assert isinstance(data_info, ImageInfo)
    assert ready(flat, "test", data_info=data_info, image_size=None).arrays["test"].images.shape[2:] == (16, 16)
    assert ready(split_up, image_size=None).arrays["test"].images.shape[2:] == (64, 64)
    other = ImageFolder(str(split_up))
    other.data_info = replace(data_info, classes=("cat", "eel"))
    with pytest.raises(InputError, match="was trained on the classes cat, eel, this data set has cat, dog"):
        other.prepare_data()  # before anything is decoded


def test_a_restored_model_can_be_tested_on_a_test_folder_alone(split_up: Path) -> None:
    data_info = ready(split_up).data_info
    assert isinstance(data_info, ImageInfo)
    shutil.rmtree(split_up / "train")
    shutil.rmtree(split_up / "test" / "cat")
    data = ready(split_up, "test", data_info=data_info)
    assert data.arrays["test"].labels.tolist() == [1, 1]
    with pytest.raises(InputError, match=r"has no train/ to train on"):
        data.setup("fit")


def test_all_unreadable_images_are_named(split_up: Path) -> None:
    for number in range(12):
        (split_up / "train" / "cat" / f"broken{number:02}.png").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        ready(split_up, "fit")
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 of 18 files cannot be read; fix or delete them:"
    assert lines[1] == f"  {split_up}/train/cat/broken00.png: not a readable image"
    assert lines[10:] == [f"  {split_up}/train/cat/broken09.png: not a readable image", "  ..."]


def test_broken_test_images_are_reported_before_training(split_up: Path) -> None:
    (split_up / "test" / "dog" / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 4 files cannot be read.*\n  .*test/dog/00\.png: not a readable image"):
        ready(split_up, "fit")


def test_a_damaged_test_image_is_found_without_decoding_it(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    content = bytearray((tmp_path / "image.png").read_bytes())
    content[-16] ^= 1  # in the checksum of the pixels
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(InputError, match=r"image\.png: broken PNG file"):
        check_readable(tmp_path / "image.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_never_taken(flat: Path, suffix: str) -> None:
    path = flat / "cat" / f"noise.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=rf"noise\.{suffix}: .*truncated"):
        ready(flat)


def batches(data: ImageFolder) -> list[ImageBatch]:
    return [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]


def test_images_that_do_not_fit_in_memory_are_read_from_disk_and_that_is_logged(
    flat: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(image_folder, "free_bytes", lambda: 30 * 3 * 20**2 * 2)
    held = ready(flat, image_size=20)
    assert all(isinstance(arrays.images, torch.Tensor) for arrays in held.arrays.values())
    assert not caplog.records
    monkeypatch.setattr(image_folder, "free_bytes", lambda: 30 * 3 * 20**2 * 2 - 1)
    streamed = ready(flat, image_size=20)
    assert all(isinstance(arrays.images, ImageFile) for arrays in streamed.arrays.values())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "they are read from disk batch by batch, decoded and cached in" in caplog.text
    assert "data.image_size=19 would fit in memory" in caplog.text
    assert same(batches(streamed), batches(held))
    assert streamed.data_info == held.data_info
    assert torch.equal(streamed.sample(5), held.sample(5))
    assert streamed.previews("test", [0, 2]) == held.previews("test", [0, 2])
    assert streamed.dataset_summary() == held.dataset_summary()
    assert_right(streamed)


def test_a_place_of_ones_own_choice_is_no_surprise(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert same(batches(ready(flat, storage="disk")), batches(ready(flat, storage="memory")))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_images_that_must_be_in_memory_and_do_not_fit_are_an_error(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "free_bytes", lambda: 30 * 3 * 20**2 * 2)
    with pytest.raises(InputError, match=r"data\.storage=memory: 30 images of 21x21 pixels .* data\.image_size=20 would fit"):
        ready(flat, image_size=21, storage="memory")


def test_processes_share_cached_images_and_hold_their_own_otherwise(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "free_bytes", lambda: 30 * 3 * 20**2 * 2)
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "x"),
        ("LOCAL_WORLD_SIZE", "2"),
    ):
        monkeypatch.setenv(name, value)
    assert ready(flat, image_size=20).num_train > 0
    message = r"30 images of 20x20 pixels in each of 2 processes .* \(data\.cache=none\); data\.image_size=14 would fit"
    with pytest.raises(InputError, match=message):
        ready(flat, image_size=20, cache="none")
    attached = ImageFolder(str(flat), image_size=20, cache="none")
    attached.trainer = SimpleNamespace(num_devices=2)  # type: ignore[assignment]
    with pytest.raises(InputError, match="in each of 2 processes"):
        attached.prepare_data()


def test_the_next_start_decodes_nothing(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ready(flat)
    for name in ("read_image", "check_readable"):
        monkeypatch.setattr(image_folder, name, lambda *given: pytest.fail("decoded again"))
    monkeypatch.setattr(datamodule, "channel_statistics", lambda images: pytest.fail("counted again"))
    for settings in ({}, {"storage": "disk"}, {"seed": 5}):
        again = ready(flat, **settings)
        assert again.data_info == first.data_info
        for name in first.sizes:
            assert torch.equal(again.arrays[name].images[:], first.arrays[name].images[:])
            assert torch.equal(again.arrays[name].labels, first.arrays[name].labels)


def test_an_image_that_changed_is_decoded_again(flat: Path) -> None:
    data = ready(flat, "fit")
    path = data.files["train"].paths[0]
    Image.new("RGB", (30, 30), (1, 2, 3)).save(path)
    assert ready(flat, "fit").arrays["train"].images[0].amax((1, 2)).tolist() == [1, 2, 3]


def test_decoded_images_are_kept_where_the_user_says(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ready(flat, cache="none")
    assert not (flat / ".arclight").exists()
    moved = ready(flat, cache=str(tmp_path / "elsewhere"))
    assert not (flat / ".arclight").exists()
    assert len(list((tmp_path / "elsewhere").glob("decoded-*-16-*.npy"))) == 3
    beside = ready(flat)
    assert len(list((flat / ".arclight").glob("decoded-*-16-*.npy"))) == 3
    assert same(batches(first), batches(moved))
    assert same(batches(first), batches(beside))


def test_broken_images_leave_nothing_decoded(split_up: Path) -> None:
    (split_up / "train" / "dog" / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 6 files cannot be read"):
        ready(split_up, "fit")
    assert not list((split_up / ".arclight").glob("decoded-*"))


def test_the_process_that_decodes_for_all_takes_the_threads_of_all(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    do = image_folder.for_each

    def listen(work: Callable[[int], None], num_rows: int, *, num_threads: int, title: str) -> None:
        asked.append((title, num_threads))
        do(work, num_rows, num_threads=num_threads, title=title)

    monkeypatch.setattr(image_folder, "for_each", listen)
    monkeypatch.setattr(ImageFolder, "_num_processes", 3)
    ready(flat, "fit", num_workers=2)
    assert asked == [("check test images", 2), ("decode train images", 6), ("decode val images", 6)]
    asked.clear()
    ready(flat, "fit", num_workers=2, cache="none")
    assert asked[1:] == [("decode train images", 2), ("decode val images", 2)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"image_size": 0}, r"data\.image_size=0 must be a number of pixels, 1 or more, or two, such as \[64,96\]"),
        ({"image_size": [8, 8, 3]}, r"data\.image_size=\[8, 8, 3\] must be"),
        ({"image_size": [8, 0]}, r"data\.image_size=\[8, 0\] must be"),
        ({"resize": "stretch"}, r"data\.resize=stretch must be one of crop, pad, squash"),
        ({"channels": 4}, r"data\.channels=4 must be one of 1, 3"),
        ({"num_workers": 0}, r"data\.num_workers=0 must be 1 or more"),
        ({"memory_share": 1.5}, r"data\.memory_share=1\.5 must be more than 0 and at most 1"),
        ({"storage": "ram"}, r"data\.storage=ram must be auto, memory or disk"),
    ],
)
def test_a_wrong_setting_is_an_error(setting: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageFolder("root", **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [None, 1, 3])
def test_any_number_of_threads_gives_the_same(flat: Path, num_workers: int | None) -> None:
    data, one = ready(flat, num_workers=num_workers), ready(flat, num_workers=1)
    assert all(torch.equal(data.arrays[name].images, one.arrays[name].images) for name in data.sizes)


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_grey_rectangles_are_described_cached_and_loaded(
    split_up: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"image_size": [8, 12], "resize": "pad", "channels": 1, "storage": storage, "bits": 12}
    data = ready(split_up, augment=Augment(crop=2, flip=True, cutout=3), **settings)
    info = data.data_info
    assert isinstance(info, ImageInfo)
    assert (info.channels, info.height, info.width, info.resize, info.bits) == (1, 8, 12, "pad", 12)
    assert next(iter(data.train_dataloader())).images.shape == (2, 1, 8, 12)
    assert data.arrays["test"].images[0].shape == (1, 8, 12)
    assert data.arrays["test"].images[0][:, :, 0].max() == 0  # 20 x 30 pixels stand upright between black
    assert len(list((split_up / ".arclight").glob("decoded-*-8x12-*.npy"))) == 3
    again = ready(split_up, "test", data_info=info, **{**settings, "image_size": None})
    assert torch.equal(again.arrays["test"].images[:], data.arrays["test"].images[:])
    message = r"images of 8x12 pixels and 1 channels, these have 8x12 .* set data\.image_size=\[8,12\] and data\.channels=1"
    with pytest.raises(InputError, match=message):
        ready(split_up, "test", data_info=info, image_size=None)


def test_grey_images_with_three_channels_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    plant(tmp_path, {"a": 9, "b": 9})
    ready(tmp_path, "fit")
    assert "the images are grey: data.channels=1 trains on one channel" in caplog.text
    caplog.clear()
    plant(tmp_path / "colours", {"cat": 9, "dog": 9})
    ready(tmp_path / "colours", "fit")
    ready(tmp_path, "fit", channels=1)
    assert "are grey" not in caplog.text


def test_images_that_change_leave_no_older_cache_behind(flat: Path) -> None:
    def cached() -> set[str]:
        return {path.name for path in (flat / ".arclight").glob("decoded-*.npy")}

    ready(flat)
    ready(flat, image_size=8)
    before = cached()
    for number in range(10, 20):
        (flat / "cat" / f"{number}.png").unlink()
    ready(flat)
    after = cached()
    assert len(before) == len(after) == 6
    assert before & after == {name for name in before if "-8-" in name}  # until they are decoded again, too


def evaluated(root: Path, split: Literal["val", "test"], *, is_other_data: bool = True) -> ImageFolder:
    """The data of a restored model with the classes cat and dog, as `evaluate` sets it up."""
    data = ImageFolder(str(root), image_size=16)
    statistics = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    data.data_info = ImageInfo(channels=3, height=16, width=16, classes=("cat", "dog"), **statistics)  # type: ignore[arg-type]
    data.evaluated_split, data.is_other_data = split, is_other_data
    data.prepare_data()
    data.setup("validate" if split == "val" else split)
    return data


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_data_without_splits_is_evaluated_whole(flat: Path, split: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert evaluated(flat, split).sizes == {split: 30}
    assert f"data.root={flat} has no splits: all of its images are evaluated" in caplog.text
    assert evaluated(flat, split, is_other_data=False).sizes == {split: 3}
    shutil.rmtree(flat / "dog")
    with pytest.raises(InputError, match=r"there must be 2 classes"):
        ready(flat)
    assert evaluated(flat, split).sizes == {split: 20}
    (flat / "cat").rename(flat / "cats")
    with pytest.raises(InputError, match=r"the class 'cats' does not occur in training\. Did you mean 'cat'"):
        evaluated(flat, split)


def test_other_data_needs_the_evaluated_split_alone(split_up: Path) -> None:
    (split_up / "train" / "cat" / "00.png").write_bytes(b"no image")
    assert evaluated(split_up, "test").sizes == {"test": 4}
    shutil.rmtree(split_up / "train")
    assert evaluated(split_up, "val").sizes == {"val": 4}
    shutil.rmtree(split_up / "test")
    with pytest.raises(InputError, match=r"has val/ but no test/; name a directory of classes in data\.root"):
        evaluated(split_up, "test")


def test_each_prediction_names_its_file(split_up: Path, caplog: pytest.LogCaptureFixture) -> None:
    (split_up / "test" / "cat" / "00.png").rename(os.fsdecode(os.fsencode(split_up / "test" / "cat") + b"/00\xe9.png"))
    data = ready(split_up, "test", data_info=ImageInfo(
        channels=3, height=16, width=16, classes=("cat", "dog"), mean=(0.0,) * 3, std=(1.0,) * 3
    ))  # fmt: skip
    expected = ["test/cat/00\\xe9.png", "test/cat/01.png", "test/dog/00.png", "test/dog/01.png"]
    assert [fields["file"] for fields in data.sample_fields("test", [0, 1, 2, 3])] == expected
    assert [sorted(preview) for preview in data.previews("test", [3])] == [["file", "image"]]
    assert "cat/00\N{REPLACEMENT CHARACTER}.png" in caplog.text  # a copy of one in train
    caplog.text.encode()


def test_the_middle_of_an_image_is_taken(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "high.png")
    for name in ("wide.png", "high.png"):
        assert read_image(tmp_path / name, 10).tolist() == np.full((3, 10, 10), 255).tolist()


def test_images_keep_their_colours_and_directions(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    expected = pixels.transpose(2, 0, 1)
    assert np.array_equal(read_image(tmp_path / "image.png", 8), expected)
    with (tmp_path / "image.png").open("rb") as file:
        assert np.array_equal(read_image(file, 8), expected)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", 8)[0].tolist() == np.arange(64)[::-1].reshape(8, 8).tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # transparent is white
        ("LA", (50, 0), (255, 255, 255)),
        ("LA", (55, 128), (155, 155, 155)),
        ("I;16", 0x1234, (0x12, 0x12, 0x12)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, colour: object, expected: tuple[int, ...]) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (9, 9), colour).save(path)  # type: ignore[arg-type]
    assert read_image(path, 4)[:, 1, 1].tolist() == list(expected)


def test_a_palette_with_transparency_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 7, 8, 9])
    image.save(tmp_path / "image.png", transparency=bytes([128, 100]))
    assert read_image(tmp_path / "image.png", 4)[:, 1, 1].tolist() == [158, 158, 159]  # 100 / 255 of it, over white


@pytest.mark.parametrize(
    ("bits", "value", "expected"), [(8, 200, 200), (12, 3200, 200), (10, 800, 200), (16, 3200, 12), (8, 999, 255)]
)
def test_16_bit_images_that_use_fewer(tmp_path: Path, bits: int, value: int, expected: int) -> None:
    Image.new("I;16", (9, 9), value).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", 4, bits)[0, 1, 1] == expected
    if value < 4096:
        message = rf"a 16-bit image whose largest value is {value}; set data\.bits .*data\.bits={value.bit_length()}"
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / "image.png", 4)


def test_a_black_16_bit_image_is_black(tmp_path: Path) -> None:
    Image.new("I;16", (9, 9), 0).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", 4).max() == 0


def test_truncated_test_images_are_found_before_training(split_up: Path) -> None:
    path = split_up / "test" / "dog" / "noise.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"1 of 5 files cannot be read.*\n  .*noise\.jpg: .*truncated"):
        ImageFolder(str(split_up), image_size=16).prepare_data()


def test_each_class_gives_the_same_fraction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, {f"class{number:02}": 3 for number in range(20)})
    data = ready(tmp_path, "fit", validation=0.34, test=0.34, stratify=True)
    assert set(data.files["train"].labels) == set(range(20))
    assert "have no training image" not in caplog.text
    ready(tmp_path, "fit", validation=0.4, test=0.4)
    assert "classes have no training image, such as class" in caplog.text


def test_images_that_are_all_equal_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, {"a": 4, "b": 4})
    ready(tmp_path, "fit", validation=2, test=2)
    assert "4 of the train images are all equal once decoded" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"bits": 7}, "data.bits=7 must be 8 to 16"), ({"layout": "x"}, "must be one of auto, splits, classes")],
)
def test_settings_out_of_range(flat: Path, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageFolder(str(flat), **setting)


def test_values_of_no_agreed_range_are_an_error(tmp_path: Path) -> None:
    Image.new("F", (9, 9), 0.5).save(tmp_path / "image.tif")
    with pytest.raises(InputError, match=r"image\.tif: mode F has no defined range of values; save it with 8 bits per channel"):
        read_image(tmp_path / "image.tif", 4)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("side", "read"), [(9500, read_image), (14000, read_image), (9500, lambda path, _: check_readable(path))]
)
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int, read: Callable[[Path, int], object]) -> None:
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png: more than 89,478,485 pixels; shrink it"):
        read(tmp_path / "bomb.png", 8)


def test_an_image_without_a_name_is_reported_too() -> None:
    with pytest.raises(InputError, match=r"^the image: not a readable image"):
        read_image(io.BytesIO(b"nothing"), 8)


def test_large_photos_are_decoded_at_a_fraction_without_losing_their_look(tmp_path: Path) -> None:
    wave = (127 + 100 * np.sin(np.arange(640) / 40)).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(wave, (640, 640)))
    image.save(tmp_path / "photo.jpg", quality=95)
    image.save(tmp_path / "photo.png")
    small, exact = (read_image(tmp_path / name, 32).astype(int) for name in ("photo.jpg", "photo.png"))
    assert np.abs(small - exact).max() <= 6


def test_what_is_inside_decides_and_no_format_that_starts_programs_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "postscript.eps")  # Pillow would hand it to ghostscript
    (tmp_path / "postscript.eps").rename(tmp_path / "a.png")
    for read in (check_readable, lambda path: read_image(path, 4)):
        with pytest.raises(InputError, match="a.png: not a readable image"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", class_directories.SUFFIXES)
def test_every_suffix_that_is_looked_for_is_read(tmp_path: Path, suffix: str) -> None:
    mode = "1" if suffix == ".pbm" else "L" if suffix in (".pgm", ".gif") else "RGB"
    Image.new(mode, (8, 8)).save(tmp_path / f"a{suffix}")
    assert read_image(tmp_path / f"a{suffix}", 4).shape == (3, 4, 4)


def test_a_pipe_is_no_image_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="a.png: not a file"):
        check_readable(tmp_path / "a.png")


def test_links_that_lead_in_circles_are_walked_once(flat: Path) -> None:
    for number in range(3):
        (flat / "cat" / f"again{number}").symlink_to(flat / "cat", target_is_directory=True)
    assert len(find_images(flat)["train"]["cat"]) == 20
