"""Shape and channels of decoded images; modes and formats are tested with the data set that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arclight.images.decoding import read_image, typed_size

LEFT, MIDDLE, RIGHT = 50, 100, 250


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """30 x 10 pixels: thirds of three greys."""
    pixels = np.repeat(np.array([[LEFT, MIDDLE, RIGHT]], np.uint8), 10, axis=1).repeat(10, axis=0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_crop_covers_pad_shows_all_and_squash_stretches(wide: Path) -> None:
    assert np.unique(read_image(wide, 10)).tolist() == [MIDDLE]
    pad, squash = read_image(wide, 30, resize="pad"), read_image(wide, 30, resize="squash")
    assert pad.shape == squash.shape == (3, 30, 30)
    thirds = [LEFT] * 10 + [MIDDLE] * 10 + [RIGHT] * 10
    assert pad[0].tolist() == [[0] * 30] * 10 + [thirds] * 10 + [[0] * 30] * 10
    assert squash[0].tolist() == [thirds] * 30


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_target_of_the_same_shape_is_the_image(wide: Path, resize: str) -> None:
    image = read_image(wide, (10, 30), resize=resize, channels=1)  # type: ignore[arg-type]
    assert image.tolist() == [np.asarray(Image.open(wide)).tolist()]


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_images_of_any_shape_fit_a_rectangle(tmp_path: Path, resize: str, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", (4, 6), resize=resize)  # type: ignore[arg-type]
    assert image.shape == (3, 4, 6)
    assert image.max() == 9


def test_a_rectangle_of_a_large_photo_on_its_side_keeps_its_look(tmp_path: Path) -> None:
    """A JPEG is decoded at a fraction of its size, and its EXIF orientation exchanges height and width."""
    wave = (127 + 100 * np.sin(np.arange(640) / 40)).astype(np.uint8)
    image, exif = Image.fromarray(np.broadcast_to(wave, (320, 640))), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    image.save(tmp_path / "photo.png", exif=exif)
    small, exact = (read_image(tmp_path / name, (32, 16)).astype(int) for name in ("photo.jpg", "photo.png"))
    assert np.abs(small - exact).max() <= 6
    assert np.ptp(exact, axis=1).min() > 150  # the wave runs from top to bottom


def test_grey_is_one_channel_and_colours_are_weighed(tmp_path: Path) -> None:
    for name, mode, colour, expected in (
        ("grey", "L", 77, 77),
        ("deep", "I;16", 0x4D00, 77),
        ("green", "RGB", (0, 255, 0), 150),
        ("clear", "LA", (50, 0), 255),
    ):
        Image.new(mode, (9, 9), colour).save(tmp_path / f"{name}.png")  # type: ignore[arg-type]
        image = read_image(tmp_path / f"{name}.png", 4, channels=1)
        assert image.shape == (1, 4, 4)
        assert np.unique(image).tolist() == [expected]


def test_a_size_is_typed_as_the_setting_takes_it() -> None:
    assert (typed_size(64, 64), typed_size(64, 96)) == ("64", "[64,96]")
