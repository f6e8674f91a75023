from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from arclight.errors import InputError
from arclight.images.class_directories import check_classes, find_images, report_duplicates, split_of
from tests.project.data.test_image_folder import COLOURS, plant


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """root/<class>/*: 20 cats and 10 dogs."""
    plant(tmp_path / "flat", {"cat": 20, "dog": 10})
    return tmp_path / "flat"


def test_images_are_found_at_any_depth_and_by_any_case(flat: Path) -> None:
    (flat / "cat" / "more").mkdir()
    Image.new("RGB", (5, 5), COLOURS["cat"]).save(flat / "cat" / "more" / "LAST.JPG")
    (flat / "cat" / ".hidden.png").touch()
    (flat / ".cache").mkdir()
    found = find_images(flat)
    assert list(found) == ["train"]
    assert list(found["train"]) == ["cat", "dog"]
    assert [path.name for path in found["train"]["cat"]] == [*(f"{row:02}.png" for row in range(20)), "LAST.JPG"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Train", "Test"), ["train", "test"]),
        (("TRAIN", "VAL"), ["train", "val"]),
        (("train", "dev", "test"), ["train", "val", "test"]),
        (("seg_train", "seg_test"), ["train", "test"]),
        (("training_set", "test_set"), ["train", "test"]),
        (("Training", "Testing"), ["train", "test"]),
        (("train images", "validation-data"), ["train", "val"]),
    ],
)
def test_splits_go_by_many_names(tmp_path: Path, names: tuple[str, ...], expected: list[str]) -> None:
    for name in names:
        plant(tmp_path / name, {"cat": 1, "dog": 1})
    found = find_images(tmp_path)
    assert list(found) == expected
    assert all(list(classes) == ["cat", "dog"] for classes in found.values())


def test_names_that_only_begin_like_a_split() -> None:
    assert [split_of(name) for name in ("trains", "test1", "valley", "developer", "set")] == [None] * 5


def test_a_class_that_is_called_train_keeps_its_siblings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, {"car": 2, "bus": 2})
    plant(tmp_path / "train", {"web": 1, "own": 1})
    assert list(find_images(tmp_path)["train"]) == ["bus", "car", "train"]
    assert "train is read as a class, like bus beside it; set data.layout=splits if it is a split" in caplog.text
    assert list(find_images(tmp_path, "splits")["train"]) == ["own", "web"]
    with pytest.raises(InputError, match=r"data\.layout=splits, but data\.root=.* has no directory of a split"):
        find_images(tmp_path / "train", "splits")


def test_the_same_directories_in_every_class_are_asked_about(tmp_path: Path) -> None:
    for name in ("left", "right"):
        plant(tmp_path / name, {"cat": 1, "dog": 1})
    with pytest.raises(InputError, match=r"every directory in it has the same directories \(cat, dog\).*data\.layout=classes"):
        find_images(tmp_path)
    assert list(find_images(tmp_path, "classes")["train"]) == ["left", "right"]


def test_a_root_one_level_too_high_names_the_one_below(tmp_path: Path) -> None:
    plant(tmp_path / "photos", {"cat": 1, "dog": 1})
    with pytest.raises(InputError, match=r"found only the class 'photos'; .* Try: data\.root=.*/photos"):
        check_classes(find_images(tmp_path), ("photos",), root=tmp_path)


def test_images_outside_class_directories_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train", "val"):
        plant(tmp_path / name, {"cat": 1, "dog": 1})
        Image.new("RGB", (5, 5)).save(tmp_path / name / "loose.png")
    Image.new("RGB", (5, 5)).save(tmp_path / "cover.jpg")
    find_images(tmp_path)
    for place, name in ((tmp_path, "cover.jpg"), (tmp_path / "train", "loose.png"), (tmp_path / "val", "loose.png")):
        assert f"1 images directly in {place} belong to no class and are ignored, such as {name}" in caplog.text


def test_what_tools_leave_behind_is_skipped(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".ipynb_checkpoints", ".thumbnails", "@eaDir"):
        (flat / "cat" / name).mkdir()
        Image.new("RGB", (5, 5)).save(flat / "cat" / name / "copy.png")
    (flat / "__MACOSX" / "cat").mkdir(parents=True)
    (flat / "cat" / "._00.png").touch()
    (flat / "cat" / "gone.png").symlink_to("nowhere.png")
    (flat / "cat" / "photo.heic").touch()
    (flat / "loose.png").touch()
    found = find_images(flat)["train"]
    assert {name: len(paths) for name, paths in found.items()} == {"cat": 20, "dog": 10}
    assert "1 links in" in caplog.text
    assert "such as photo.heic; convert .heic to JPEG or PNG" in caplog.text
    assert "1 images directly in" in caplog.text


def test_names_of_classes_are_compared_in_one_form(tmp_path: Path) -> None:
    plant(tmp_path / "train", {"caf\u00e9": 1, "b": 1})
    plant(tmp_path / "val", {"cafe\u0301": 1, "b": 1})
    found = find_images(tmp_path)
    assert list(found["train"]) == list(found["val"])
    (tmp_path / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(InputError, match=r"the name of the directory b'caf\\xe9' is not UTF-8; rename it"):
        find_images(tmp_path)


def test_a_class_without_validation_images_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path / "train", {"cat": 1, "dog": 1})
    plant(tmp_path / "val", {"cat": 1, "dog": 0})
    check_classes(find_images(tmp_path), ("cat", "dog"), root=tmp_path)
    assert "val: no image of dog" in caplog.text


def test_copies_in_other_splits_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, content in zip(paths, (b"one", b"two", b"one", b"six"), strict=True):
        path.write_bytes(content)
    report_duplicates({"train": paths[:2], "test": paths[2:]})
    assert f"1 images of test are also in train, such as {paths[2]} and {paths[0]}" in caplog.text
    caplog.clear()
    report_duplicates({"train": paths[:2], "test": paths[3:]})
    assert caplog.text == ""
