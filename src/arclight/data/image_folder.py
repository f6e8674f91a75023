"""Your own images, one folder per class: decoded once by all cores, then held in memory like any other array."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from arclight.data.arrays import ArrayDataModule, Arrays, for_each, held_out, split
from arclight.data.augment import Augment
from arclight.errors import InputError, nearest
from arclight.hardware import usable_cores
from arclight.memory import free_bytes
from arclight.spec import ImageSpec

if TYPE_CHECKING:
    import PIL.Image

_log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LAYOUTS = "lay images out as <root>/<class>/*, or as <root>/train/<class>/* with val/ and test/ of the same form beside train/"
IMAGE_SIZE = 64  # pixels, where nothing else is said
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others, whatever their name, could start other programs
MAX_PIXELS = 89_478_485  # of one image; above it the image library itself speaks of a decompression bomb


class Files(NamedTuple):
    """One split before it is decoded."""

    paths: list[Path]
    labels: list[int]

    def pick(self, rows: Iterable[int]) -> Files:
        chosen = list(rows)
        return Files([self.paths[row] for row in chosen], [self.labels[row] for row in chosen])


class ImageFolder(ArrayDataModule):
    """Images of any size and mode, as RGB squares: the shorter side is resized to `image_size`, the middle is cut out.

    A photo is turned upright as its EXIF data says, transparency is dropped, of an animation the first frame counts. Layouts:
    `root/train/<class>/*` with `root/val` (or valid, validation) and `root/test`, or `root/<class>/*`. A split without a folder
    is drawn from the training images by `split_seed`, from all classes together. `files["test"]` names the images.

    Args:
        root: the folder.
        image_size: height and width in pixels; None is that of the model that is restored, or 64.
        batch_size: samples per optimizer step, over all processes and accumulated parts.
        max_batch_per_device: most samples that one process takes at once; None is no limit.
        validation: count or share of all training images to validate on, where there is no such folder.
        test: count or share to test on, where there is no test folder.
        split_seed: chooses them; apart from `seed`.
        augment: changes to training images; None is none.
        seed: of shuffling and augmentation.
        eval_batch_size: samples per process and batch of validation and test.
        num_workers: threads that decode; None is one per usable core, shared by the processes of this machine.
        memory_share: most of this machine's free memory, 0 to 1, that images may take.

    Raises:
        InputError: when a setting is out of its range.
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int | None = None,
        batch_size: int = 64,
        max_batch_per_device: int | None = None,
        validation: int | float = 0.1,
        test: int | float = 0.1,
        split_seed: int = 0,
        augment: Augment | None = None,
        seed: int = 0,
        eval_batch_size: int = 500,
        num_workers: int | None = None,
        memory_share: float = 0.5,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            max_batch_per_device=max_batch_per_device,
            augment=augment,
            seed=seed,
            eval_batch_size=eval_batch_size,
        )
        for name, value in (("image_size", image_size), ("num_workers", num_workers)):
            if value is not None and value < 1:
                raise InputError(f"data.{name}={value} must be 1 or more")
        if not 0 < memory_share <= 1:
            raise InputError(f"data.memory_share={memory_share} must be more than 0 and at most 1")
        self.image_size = image_size
        self.validation = validation
        self.test = test
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.memory_share = memory_share

    def prepare(self) -> None:
        """Looks at all names and at the headers of the test images; the others are decoded right after this anyway."""
        paths = self.files["test"].paths
        if self.spec is not None:
            self._compare_classes(self.classes)
        self._check_memory()
        self._in_threads(lambda row: check_header(paths[row]), len(paths), "check test images")

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        if part == "test":
            return {"test": self._decode("test")}, self.classes
        if "train" not in self.files:
            raise InputError(f"data.root={self.root} has no train/ to train on; {LAYOUTS}")
        return {"train": self._decode("train"), "val": self._decode("val")}, self.classes

    @cached_property
    def _found(self) -> dict[str, dict[str, list[Path]]]:
        assert self.root is not None
        return find_images(self.root)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class folders of train/, sorted; with test/ alone, the classes of the model that is restored."""
        if "train" in self._found:
            return tuple(self._found["train"])
        if "test" in self._found and isinstance(self.spec, ImageSpec):
            return self.spec.classes
        raise InputError(f"data.root={self.root} has {'/, '.join(self._found)}/ but no train/; {LAYOUTS}")

    @cached_property
    def files(self) -> dict[str, Files]:
        """The files of each split; a row of a split is a place in its lists."""
        check_classes(self._found, self.classes, root=self.root)
        numbers = {name: number for number, name in enumerate(self.classes)}
        files = {
            name: Files(
                [path for paths in by_class.values() for path in paths],
                [numbers[label] for label, paths in by_class.items() for _ in paths],
            )
            for name, by_class in self._found.items()
        }
        num_train = len(files["train"].paths) if "train" in files else 0
        for name, setting in (("test", "test"), ("val", "validation")):
            if num_train and name not in files:
                # a share is one of all training images, whichever split is drawn first
                count = held_out(num_train, getattr(self, setting), name=f"data.{setting}")
                kept, drawn = split(len(files["train"].paths), count, self.split_seed, name=f"data.{setting}")
                files |= {"train": files["train"].pick(kept.tolist()), name: files["train"].pick(drawn.tolist())}
        return files

    @property
    def _side(self) -> int:
        return self.image_size or (self.spec.height if isinstance(self.spec, ImageSpec) else IMAGE_SIZE)

    @property
    def _num_processes(self) -> int:
        """Processes on this machine; each holds the images."""
        return 1 if self.trainer is None else self.trainer.num_devices

    def _check_memory(self) -> None:
        num_images = sum(len(files.paths) for files in self.files.values()) * self._num_processes
        allowed = int(free_bytes() * self.memory_share)
        needed = num_images * 3 * self._side**2
        if needed > allowed:
            raise InputError(
                f"{num_images:,} images of {self._side}x{self._side} pixels take {needed / 1e9:.2f} GB of memory, and "
                f"data.memory_share={self.memory_share} allows {allowed / 1e9:.2f} GB; data.image_size="
                f"{math.isqrt(allowed // (3 * num_images))} would fit"
            )

    def _decode(self, name: str) -> Arrays:
        paths, labels = self.files[name]
        images = np.empty((len(paths), 3, self._side, self._side), np.uint8)

        def decode(row: int) -> None:
            images[row] = read_image(paths[row], self._side)

        self._in_threads(decode, len(paths), f"decode {name} images")
        return Arrays(torch.from_numpy(images), torch.tensor(labels))

    def _in_threads(self, work: Callable[[int], None], num_files: int, title: str) -> None:
        import PIL.Image

        PIL.Image.init()  # here and not by the first file of a rarer kind, which threads would race for
        num_threads = self.num_workers or max(1, usable_cores() // self._num_processes)
        for_each(work, num_files, num_threads=num_threads, title=title)


def find_images(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Image files by split and class, all sorted; the one split "train" where `root` holds the class folders themselves.

    Raises:
        InputError: when `root` has neither layout, or two folders for one split.
    """
    if not root.is_dir():
        raise InputError(f"data.root={root} is no folder; {LAYOUTS}")
    splits: dict[str, Path] = {}
    for split_name, names in SPLIT_FOLDERS.items():
        there = [name for name in names if (root / name).is_dir() and _subfolders(root / name)]
        if len(there) > 1:
            raise InputError(f"data.root={root} has {' and '.join(there)}; keep one of them")
        if there:
            splits[split_name] = root / there[0]
    if not splits:
        splits = {"train": root}
    elif others := {folder.name for folder in _subfolders(root)} - {folder.name for folder in splits.values()}:
        _log.warning("folders in %s that are no split and are left out: %s", root, ", ".join(sorted(others)))
    return {name: {sub.name: _images_in(sub) for sub in _subfolders(folder)} for name, folder in splits.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    """Image files at any depth; hidden files are passed over, others that are no images by their name are told."""
    paths, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # links can lead in circles
            inner.clear()
            continue
        seen.add(real)
        paths += [Path(place, name) for name in names if name[0] != "."]
    images = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
    if others := sorted(set(paths) - set(images)):
        _log.warning("%d files left out of %s, no images by their name, such as %s", len(others), folder, others[0].name)
    return images


def check_classes(found: dict[str, dict[str, list[Path]]], classes: tuple[str, ...], *, root: Path | None) -> None:
    """Raises InputError with all that is wrong with the class folders of all splits."""
    wrong = []
    if len(classes) < 2:
        seen = f"only the class '{classes[0]}'" if classes else "no class folders"
        wrong.append(f"there must be 2 classes or more, here is {seen}; {LAYOUTS}")
    for name, by_class in found.items():
        wrong += [f"{name}: the class folder '{label}' has no image" for label, paths in by_class.items() if not paths]
        unknown = [label for label in by_class if label not in classes]
        wrong += [f"{name}: the class '{label}' is none to train on. {nearest(label, classes)}" for label in unknown]
    if wrong:
        raise InputError("\n  ".join([f"data.root={root}:", *wrong]))


def read_image(file: Path | BinaryIO, image_size: int) -> NDArray[np.uint8]:
    """One image as the net sees it, in training and in use: (3, image_size, image_size), RGB.

    Raises:
        InputError: naming the file, when it is no readable image, has more than MAX_PIXELS, or values of no agreed range.
    """
    from PIL.Image import Resampling
    from PIL.ImageOps import exif_transpose

    with _opened(file) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # a large JPEG is decoded at a fraction of its size
        upright = _rgb(exif_transpose(image))
        side = min(upright.size)
        left, top = (upright.width - side) / 2, (upright.height - side) / 2
        square = upright.resize((image_size, image_size), Resampling.BICUBIC, box=(left, top, left + side, top + side))
        return np.array(square).transpose(2, 0, 1)


def check_header(path: Path) -> None:
    """Raises InputError when the header tells that `read_image` would; decodes nothing."""
    with _opened(path) as image:
        image.verify()


@contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[PIL.Image.Image]:
    """An image file, whose troubles inside are told as one InputError."""
    import PIL.Image

    try:
        if isinstance(file, Path) and not file.is_file():  # a pipe would keep us waiting for ever
            raise InputError("no file")
        with PIL.Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PIL.Image.DecompressionBombError
            yield image
    except Exception as error:  # decoders raise whatever a broken file leads them to
        name = file if isinstance(file, Path) else getattr(file, "name", "the image")
        if isinstance(error, PIL.Image.DecompressionBombError | PIL.Image.DecompressionBombWarning):
            raise InputError(f"{name}: more than {MAX_PIXELS:,} pixels; make it smaller") from error
        if isinstance(error, PIL.UnidentifiedImageError):
            raise InputError(f"{name}: no image that can be read") from error
        raise InputError(f"{name}: {str(error) or type(error).__name__}") from error


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    import PIL.Image

    if image.mode.startswith("I;16"):  # convert() would clip 16 bits to 255
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"mode {image.mode} has no agreed range of values; save it with 8 bits per channel")
    return image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
