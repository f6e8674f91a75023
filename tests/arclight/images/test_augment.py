from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arclight.data.samplers import generator
from arclight.errors import InputError
from arclight.images.augment import GREY, Augment, Draws, alternate, crop, cutout, flip

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def random_images(batch: int = 12, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator(0))


def row(*values: int) -> Tensor:
    return torch.tensor([[[values]]], dtype=torch.uint8)  # (1, 1, 1, W)


@pytest.mark.parametrize(
    ("left", "expected"), [(0, [0, 0, 1, 2]), (1, [0, 1, 2, 3]), (2, [1, 2, 3, 4]), (3, [2, 3, 4, 0]), (4, [3, 4, 0, 0])]
)
def test_a_crop_shifts_a_row_and_fills_with_black(left: int, expected: list[int]) -> None:
    shifted = crop(row(1, 2, 3, 4), torch.tensor([2]), torch.tensor([left]), padding=2)
    assert shifted.flatten().tolist() == expected


def test_a_crop_shifts_columns_too() -> None:
    column = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 1, 3, 1)
    assert crop(column, torch.tensor([0]), torch.tensor([1]), padding=1).flatten().tolist() == [0, 1, 2]
    assert crop(column, torch.tensor([2]), torch.tensor([1]), padding=1).flatten().tolist() == [2, 3, 0]


def test_a_flip_mirrors_the_images_that_are_chosen() -> None:
    both = torch.cat([row(1, 2, 3), row(4, 5, 6)])
    assert flip(both, torch.tensor([False, True])).flatten(1).tolist() == [[1, 2, 3], [6, 5, 4]]


def test_a_cropped_window_can_be_mirrored_in_the_same_pass() -> None:
    mirrored = crop(row(1, 2, 3, 4), torch.tensor([1]), torch.tensor([0]), padding=1, flips=torch.tensor([True]))
    assert mirrored.flatten().tolist() == [3, 2, 1, 0]


def test_a_cutout_is_a_grey_square_around_its_centre() -> None:
    images = torch.zeros(1, 2, 5, 5, dtype=torch.uint8)
    cut = cutout(images, torch.tensor([[0.5, 0.3]]), side=3)  # centre: row 2, column 1
    expected = torch.zeros(5, 5, dtype=torch.uint8)
    expected[1:4, 0:3] = GREY
    assert torch.equal(cut, expected.expand(1, 2, 5, 5))


@pytest.mark.parametrize(("centre", "num_grey"), [((0.0, 0.0), 4), ((0.99, 0.99), 1), ((0.5, 0.0), 8)])
def test_a_cutout_at_the_edge_is_partly_outside(centre: tuple[float, float], num_grey: int) -> None:
    cut = cutout(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([centre]), side=4)
    # rows and columns -2..1 at the beginning, 5..7 (of 5..8) at the end, 2..5 in the middle
    assert int((cut == GREY).sum()) == {4: 2 * 2, 1: 3 * 3, 8: 4 * 2}[num_grey]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_batch_is_changed_as_each_image_alone_would_be(layout: torch.memory_format) -> None:
    images = random_images().to(memory_format=layout)
    settings = Augment(crop=2, flip=True, cutout=3)
    draws = settings.draw(len(images), generator=generator(1))
    changed = settings.apply(images, draws)
    for number, (top, left, flipped, centre) in enumerate(zip(*draws, strict=True)):
        padded = torch.nn.functional.pad(images[number], (2, 2, 2, 2))
        expected = padded[:, top : top + 6, left : left + 5].clone()
        if flipped:
            expected = expected.flip(2)
        first_row, first_column = int(centre[0] * 6) - 1, int(centre[1] * 5) - 1
        expected[:, max(0, first_row) : first_row + 3, max(0, first_column) : first_column + 3] = GREY
        assert torch.equal(changed[number], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", [Augment(crop=3), Augment(flip=True), Augment(cutout=2)])
def test_each_setting_works_alone_and_leaves_the_given_images(settings: Augment, layout: torch.memory_format) -> None:
    images = random_images().to(memory_format=layout)
    before = images.clone()
    draws = settings.draw(12, generator=generator(2))
    changed = settings.apply(images, draws)
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)
    assert torch.equal(changed, settings.apply(before.contiguous(), draws))


def test_nothing_is_changed_by_default() -> None:
    images = random_images()
    settings = Augment()
    assert torch.equal(settings.apply(images, settings.draw(12, generator=generator(0))), images)


def test_draws_cover_their_ranges_and_half_of_the_images_are_flipped() -> None:
    draws = Augment(crop=2).draw(4000, generator=generator(0))
    assert draws.tops.unique().tolist() == draws.lefts.unique().tolist() == [0, 1, 2, 3, 4]
    assert 1850 < int(draws.flips.sum()) < 2150  # 5 standard deviations of 31.6
    assert 0 <= float(draws.centres.min()) < 0.01
    assert 0.99 < float(draws.centres.max()) < 1


def test_the_same_generator_draws_the_same_whatever_else_is_set() -> None:
    plain = Augment(crop=2).draw(50, generator=generator(3))
    more = Augment(crop=2, flip=True, cutout=5).draw(50, generator=generator(3))
    other = Augment(crop=2).draw(50, generator=generator(4))
    assert all(torch.equal(a, b) for a, b in zip(plain, more, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


def test_a_part_of_the_batch_is_changed_as_in_the_whole() -> None:
    images, settings = random_images(), Augment(crop=2, flip=True, cutout=2)
    draws = settings.draw(12, generator=generator(5))
    part = draws.part(4, 3)
    assert isinstance(part, Draws)
    assert torch.equal(settings.apply(images[4:7], part), settings.apply(images, draws)[4:7])


@pytest.mark.parametrize(("settings", "message"), [({"crop": -1}, "crop=-1"), ({"cutout": 2.5}, r"cutout=2\.5")])
def test_a_size_that_is_no_number_of_pixels_is_an_error(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=rf"data\.augment\.{message} must be a whole number of pixels, 0 \(off\) or more"):
        Augment(**settings)


def test_alternating_flips_show_each_sample_from_both_sides_in_turn() -> None:
    sides = torch.tensor([True, False, True, True])
    indices = torch.tensor([3, 1])
    assert alternate(sides, indices, 0).tolist() == [True, False]
    assert alternate(sides, indices, 1).tolist() == [False, True]
    assert alternate(sides, indices, 2).tolist() == [True, False]


def test_a_flip_that_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match=r"data\.augment\.flip=sometimes must be true, false or alternating"):
        Augment(flip="sometimes")  # type: ignore[arg-type]
