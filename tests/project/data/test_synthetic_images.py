from __future__ import annotations

import numpy as np
import pytest
import torch

from arclight.errors import InputError
from project.data.synthetic_images import SHAPES, SyntheticImages, draw


def made(data_seed: int = 0, num_train: int = 512) -> SyntheticImages:
    data = SyntheticImages(num_train=num_train, num_val=40, num_test=400, data_seed=data_seed)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.fixture(scope="module")
def data() -> SyntheticImages:
    return made()


def test_the_classes_are_sorted_and_equally_many(data: SyntheticImages) -> None:
    assert data.data_info is not None
    assert data.data_info.classes == ("circle", "crescent", "cross", "hourglass", "ring", "square", "star", "triangle")
    for arrays in data.arrays.values():
        counts = torch.bincount(arrays.labels, minlength=8)
        assert counts.max() - counts.min() <= 1
        assert arrays.labels[:16].tolist() != sorted(arrays.labels[:16].tolist())


def test_pictures_have_the_size_that_was_asked_for() -> None:
    images = draw(3, 20, random=np.random.default_rng(0)).images
    assert (tuple(images.shape), images.dtype) == ((3, 3, 20, 20), torch.uint8)


def test_the_data_seed_makes_the_pictures_and_the_run_s_seed_does_not(data: SyntheticImages) -> None:
    again, other, other_run = made(), made(data_seed=1), SyntheticImages(num_train=512, num_val=40, num_test=400, seed=1)
    other_run.setup("fit")
    for name in ("train", "val", "test"):
        assert torch.equal(again.arrays[name].images, data.arrays[name].images)
        assert not torch.equal(other.arrays[name].images, data.arrays[name].images)
    assert torch.equal(other_run.arrays["train"].images, data.arrays["train"].images)


def test_each_split_has_pictures_of_its_own_that_do_not_depend_on_the_others(data: SyntheticImages) -> None:
    alike = SyntheticImages(num_train=40, num_val=40, num_test=40)
    alike.setup("fit")
    alike.setup("test")
    images = torch.cat([arrays.images.flatten(1) for arrays in alike.arrays.values()])
    assert len(images.unique(dim=0)) == 120
    fewer = made(num_train=64)
    for name in ("val", "test"):
        assert torch.equal(fewer.arrays[name].images, data.arrays[name].images)


def test_fit_makes_no_test_pictures() -> None:
    data = SyntheticImages(num_train=8, num_val=8, num_test=8)
    data.prepare_data()
    data.setup("fit")
    assert data.sizes == {"train": 8, "val": 8}


def test_the_nearest_mean_picture_tells_less_than_half_of_the_classes(data: SyntheticImages) -> None:
    pixels, labels = data.arrays["train"].images.flatten(1).float(), data.arrays["train"].labels
    means = torch.stack([pixels[labels == label].mean(0) for label in range(len(SHAPES))])
    distances = torch.cdist(data.arrays["test"].images.flatten(1).float(), means)
    assert float((distances.argmin(1) == data.arrays["test"].labels).float().mean()) < 0.5


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_lies_in_the_unit_circle_and_covers_a_part_of_it(name: str) -> None:
    v, u = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j].astype(np.float32)
    inside = SHAPES[name](u, v) < 0
    assert not inside[np.hypot(u, v) > 1.05].any()
    assert 0.15 < inside[np.hypot(u, v) <= 1].mean() < 0.85


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("circle", (0, 0), (0.7, 0.7)),
        ("crescent", (-0.8, 0), (0.5, 0)),
        ("cross", (0.8, 0.1), (0.5, 0.5)),
        ("hourglass", (0.3, 0.6), (0.6, 0.3)),
        ("ring", (0, 0.7), (0, 0)),
        ("square", (0.65, 0.65), (0.9, 0)),
        ("star", (0.9, 0), (-0.9, 0)),
        ("triangle", (0, -0.9), (0, 0.9)),
    ],
)
def test_shapes_by_hand(name: str, inside: tuple[float, float], outside: tuple[float, float]) -> None:
    u, v = np.array([inside, outside], np.float32).T
    assert (SHAPES[name](u, v) < 0).tolist() == [True, False]


@pytest.mark.parametrize(
    ("setting", "least"), [("num_train", 1), ("num_val", 1), ("num_test", 1), ("image_size", 16), ("data_seed", 0)]
)
def test_a_number_too_small_is_an_error(setting: str, least: int) -> None:
    with pytest.raises(InputError, match=rf"data\.{setting}={least - 1} must be {least} or more"):
        SyntheticImages(**{setting: least - 1})
