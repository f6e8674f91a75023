"""One image file -> the pixels that the net receives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from arclight.errors import InputError

if TYPE_CHECKING:
    import PIL.Image

Resize = Literal["crop", "pad", "squash"]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # other formats could start external programs
MAX_PIXELS = 89_478_485  # of one image; above it PIL warns of a decompression bomb
FEW_BITS = 12  # a 16-bit image without a value above these would be almost black


def read_image(
    file: Path | BinaryIO,
    image_size: int | tuple[int, int],
    bits: int | None = None,
    *,
    channels: int = 3,
    resize: Resize = "crop",
) -> NDArray[np.uint8]:
    """Returns one image as the net receives it: upright and on white, uint8 (channels, height, width).

    Args:
        file: the image.
        image_size: height and width in pixels, or one number for both.
        bits: of the values of 16-bit images, which become 8 bits; None is 16 where values above 4095 occur, else an error.
        channels: 3 is RGB, 1 is grey.
        resize: "crop" covers the target and cuts off what is beyond it on both sides, "pad" fits into it, on black, "squash"
            changes the aspect ratio.

    Raises:
        InputError: naming the file, when it is not a readable image, has more than MAX_PIXELS, or values of unknown range.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with _opened(file) as image:
        image.draft(None, (2 * max(height, width),) * 2)  # a large JPEG is decoded at a fraction of its size
        return fit_image(image, (height, width), bits, channels=channels, resize=resize)


def fit_image(
    image: PIL.Image.Image, size: tuple[int, int], bits: int | None, *, channels: int, resize: Resize
) -> NDArray[np.uint8]:
    """Returns an opened image as `read_image` does, whose arguments these are; raises as it does, without the file's name."""
    from PIL.ImageOps import exif_transpose

    if channels not in (1, 3):
        raise InputError(f"an image of {channels} channels cannot be made from an image file; give a uint8 array")
    upright = _rgb(exif_transpose(image), bits)
    resized = _resize(upright.convert("L") if channels == 1 else upright, size[::-1], resize)
    return np.atleast_3d(np.array(resized)).transpose(2, 0, 1)


def _resize(image: PIL.Image.Image, size: tuple[int, int], resize: Resize) -> PIL.Image.Image:
    """Returns the image in this width and height."""
    from PIL import Image, ImageOps

    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    if resize == "squash":
        return image.resize(size, Image.Resampling.BICUBIC)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))  # ImageOps.pad fails for 1x300 pixels
    padded = Image.new(image.mode, size)
    padded.paste(image.resize(inner, Image.Resampling.BICUBIC), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return padded


def typed_size(height: int, width: int) -> str:
    """Returns a size in pixels as it is typed for `data.image_size`."""
    return str(height) if height == width else f"[{height},{width}]"


def check_readable(path: Path) -> None:
    """Raises InputError when a file is no image, damaged or truncated; a large JPEG is decoded at an eighth of its size."""
    with _opened(path) as image:
        image.verify()  # checksums, where the format has them
    with _opened(path) as image:
        image.draft(None, (1, 1))
        image.load()


@contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[PIL.Image.Image]:
    """Context manager that opens an image file and turns every error inside into InputError."""
    import PIL.Image

    warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)  # the error below says it
    try:
        if isinstance(file, Path) and not file.is_file():  # a pipe would block forever
            raise InputError("not a file")
        with PIL.Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PIL.Image.DecompressionBombError
            yield image
    except Exception as error:  # decoders raise many classes for broken files
        name = file if isinstance(file, Path) else getattr(file, "name", "the image")
        if isinstance(error, PIL.Image.DecompressionBombError | PIL.Image.DecompressionBombWarning):
            raise InputError(f"{name}: more than {MAX_PIXELS:,} pixels; shrink it") from error
        if isinstance(error, PIL.UnidentifiedImageError):
            raise InputError(f"{name}: not a readable image") from error
        raise InputError(f"{name}: {str(error) or type(error).__name__}") from error


def _rgb(image: PIL.Image.Image, bits: int | None) -> PIL.Image.Image:
    """Returns the image in RGB; what is transparent is blended over white."""
    import PIL.Image

    if image.mode.startswith("I;16"):  # convert() would clip 16 bits to 255
        values = np.asarray(image)
        largest = int(values.max())
        if bits is None and 0 < largest < 1 << FEW_BITS:
            raise InputError(
                f"a 16-bit image whose largest value is {largest}; set data.bits to the bits that are used, such as "
                f"data.bits={max(8, largest.bit_length())}, or data.bits=16"
            )
        return PIL.Image.fromarray(np.minimum(values >> ((bits or 16) - 8), 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"mode {image.mode} has no defined range of values; save it with 8 bits per channel")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        above = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")
