"""Your own images, one folder per class: decoded once by all cores, then in memory, or read from disk where they do not fit."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arclight.data.splits import held_out, split
from arclight.distributed.environment import detect_launch, is_main_process
from arclight.errors import InputError
from arclight.hardware import usable_cores
from arclight.hardware.memory import free_bytes
from arclight.images import image_cache
from arclight.images.augment import Augment
from arclight.images.class_directories import LAYOUTS, check_classes, find_images
from arclight.images.datamodule import MEMORY_SHARE, ArrayDataModule, Arrays
from arclight.images.image_cache import KeptImages, Statistics, Write, fingerprint, unfinished_bytes
from arclight.images.image_file import ImageFile, mapped
from arclight.images.info import ImageInfo
from arclight.images.storage import NO_CACHE, Place, Storage, check, choose, obstacle
from arclight.images.threads import for_each

if TYPE_CHECKING:
    import PIL.Image

_log = logging.getLogger(__name__)

CACHE_FOLDER = ".arclight"  # in the images' own
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

    Each split is decoded into a file, which later starts and the other processes of this machine find by the names, sizes and
    times of its images. Where memory does not hold all splits, batches are read from these files: the same batches.

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
        num_workers: threads of each process that decode; None is one per usable core, shared by the processes of this machine.
        memory_share: most of the free memory, 0 to 1, that images may take; of a GPU's, too.
        residence: where images are while they are in use; "auto" is memory where it holds them, else disk.
        cache: folder in which decoded images are kept; "auto" is `root/.arclight`, "none" keeps none.

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
        memory_share: float = MEMORY_SHARE,
        storage: Storage = "auto",
        cache: str = "auto",
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            max_batch_per_device=max_batch_per_device,
            augment=augment,
            seed=seed,
            eval_batch_size=eval_batch_size,
            memory_share=memory_share,
        )
        for name, value in (("image_size", image_size), ("num_workers", num_workers)):
            if value is not None and value < 1:
                raise InputError(f"data.{name}={value} must be 1 or more")
        check(storage, cache)
        self.image_size = image_size
        self.validation = validation
        self.test = test
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.storage: Storage = storage
        self.cache = cache

    def prepare(self) -> None:
        """Looks at all names and at the headers of the test images; the others are decoded right after this anyway."""
        paths = self.files["test"].paths
        if self.data_info is not None:
            self._compare_classes(self.classes)
        told, is_streamed = self._place.told, self._place.is_streamed
        if is_main_process():  # a choice of the user's own is no surprise
            _log.log(logging.WARNING if is_streamed and self.storage == "auto" else logging.INFO, told)
        if self._place.is_kept and self._kept["test"].is_whole():  # they have been decoded already
            return
        self._in_threads(lambda row: check_header(paths[row]), len(paths), "check test images", self._num_processes)

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        if part == "test":
            return {"test": self._decode("test")}, self.classes
        if "train" not in self.files:
            raise InputError(f"data.root={self.root} has no train/ to train on; {LAYOUTS}")
        return {"train": self._decode("train"), "val": self._decode("val")}, self.classes

    @functools.cached_property
    def _found(self) -> dict[str, dict[str, list[Path]]]:
        assert self.root is not None
        return find_images(self.root)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The class folders of train/, sorted; with test/ alone, the classes of the model that is restored."""
        if "train" in self._found:
            return tuple(self._found["train"])
        if "test" in self._found and isinstance(self.data_info, ImageInfo):
            return self.data_info.classes
        raise InputError(f"data.root={self.root} has {'/, '.join(self._found)}/ but no train/; {LAYOUTS}")

    @functools.cached_property
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
        return self.image_size or (self.data_info.height if isinstance(self.data_info, ImageInfo) else IMAGE_SIZE)

    @property
    def _num_processes(self) -> int:
        """Processes on this machine."""
        return detect_launch(os.environ).local_world_size if self.trainer is None else self.trainer.num_devices

    @functools.cached_property
    def _kept(self) -> dict[str, KeptImages]:
        """Where the decoded images of each split are kept."""
        assert self.root is not None
        folder, side = self.root / CACHE_FOLDER if self.cache == "auto" else Path(self.cache).expanduser(), self._side
        return {
            name: KeptImages(
                folder / f"{image_cache.NAME}{name}-{side}-{fingerprint(files.paths, self.root, side)}.npy",
                (len(files.paths), 3, side, side),
            )
            for name, files in self.files.items()
        }

    @functools.cached_property
    def _place(self) -> Place:
        keeps = self.cache != NO_CACHE
        folder = next(iter(self._kept.values())).path.parent if keeps else None
        missing = sum(kept.num_bytes for kept in self._kept.values() if not kept.is_whole()) if keeps else 0
        return choose(
            sum(len(files.paths) for files in self.files.values()),
            self._side,
            free=free_bytes(),
            share=self.memory_share,
            num_processes=self._num_processes,
            wish=self.storage,
            folder=folder,
            obstacle=obstacle(folder, missing, already=unfinished_bytes(folder) if folder else 0),
        )

    def _decode(self, name: str) -> Arrays:
        paths, labels = self.files[name]
        images: Tensor | ImageFile

        def decode(write: Write, num_processes: int) -> None:
            def work(row: int) -> None:
                write(row, read_image(paths[row], self._side))

            self._in_threads(work, len(paths), f"decode {name} images", num_processes)

        if self._place.is_kept:
            kept = self._kept[name]
            kept.make(lambda write: decode(write, 1))  # the other processes wait
            images = ImageFile(kept.path) if self._place.is_streamed else mapped(kept.path)
        else:
            decoded = np.empty((len(paths), 3, self._side, self._side), np.uint8)
            decode(decoded.__setitem__, self._num_processes)
            images = torch.from_numpy(decoded)
        return Arrays(images, torch.tensor(labels))

    def statistics(self, images: Tensor | ImageFile) -> Statistics:
        count = functools.partial(super().statistics, images)
        return self._kept["train"].statistics(count) if self._place.is_kept else count()

    def _in_threads(self, work: Callable[[int], None], num_files: int, title: str, num_processes: int) -> None:
        """`num_processes`: that do this at once on this machine."""
        import PIL.Image

        PIL.Image.init()  # here and not by the first file of a rarer kind, which threads would race for
        num_threads = max(1, (self.num_workers or usable_cores() // self._num_processes) * self._num_processes // num_processes)
        for_each(work, num_files, num_threads=num_threads, title=title)


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
