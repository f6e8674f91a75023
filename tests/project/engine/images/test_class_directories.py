from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from arclight.images.class_directories import find_images
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
