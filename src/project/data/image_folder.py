"""Your own images, one directory per class: decoded once on all cores, then kept in memory, or read from disk if too large."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from arclight.console.terminal import printable
from arclight.data.datamodule import check_minimum
from arclight.distributed.environment import detect_launch, is_main_process
from arclight.errors import InputError
from arclight.hardware import usable_cores
from arclight.hardware.memory import free_bytes
from arclight.images.class_directories import LAYOUTS, Layout, check_classes, find_images, report_duplicates
from arclight.images.datamodule import ArrayDataModule, Arrays
from arclight.images.decoding import Resize, check_readable, read_image
from arclight.images.folder_splits import Files, draw_splits, only_split
from arclight.images.image_cache import (
    PREFIX,
    CachedImages,
    ImageFile,
    Statistics,
    Write,
    fingerprint,
    for_each,
    memory_map,
    unfinished_bytes,
)
from arclight.images.info import ImageInfo
from arclight.images.storage import (
    NO_CACHE,
    Storage,
    StorageChoice,
    cache_directory,
    cache_obstacle,
    check_storage,
    choose_storage,
)

_log = logging.getLogger(__name__)

Channels = Literal[1, 3]

IMAGE_SIZE = 64  # pixels, the default
NUM_COMPARED = 100  # images


class ImageFolder(ArrayDataModule):
    """Images of any size and mode, in RGB and one size.

    EXIF orientation is applied, transparency becomes white, an animation counts as its first frame. Layouts:
    `root/train/<class>/*` with `root/val` and `root/test`, in any case and under the usual other names (Training, dev,
    seg_test, ...), or `root/<class>/*`. A split without a directory is drawn from the training images by `split_seed`.
    `files["test"]` holds the paths.

    Each split is decoded into a cache file, which later starts and the other processes of this machine find by the names, sizes
    and times of its images. If memory does not hold all splits, the same batches are read from these files.

    The arguments not listed here are those of ArrayDataModule.

    Args:
        root: directory of the images.
        image_size: height and width in pixels, or one number for both; None is that of a restored model, or 64.
        resize: how an image of another aspect ratio gets this size. "crop": the centre that covers it. "pad": all of the image,
            with black beside it. "squash": all of it, stretched.
        channels: 3 is RGB, 1 is grey.
        validation: count or fraction of all training images, if there is no val directory.
        test: count or fraction of all training images, if there is no test directory.
        split_seed: selects them, independent of `seed`.
        stratify: whether each class gives the same fraction of its images, else they are drawn from all classes together.
        layout: "splits" or "classes" directly in `root`; "auto" goes by the names of the directories.
        bits: that the values of 16-bit images use, 8 to 16; None is 16, and an error for images that would be almost black.
        num_workers: decoding threads of each process; None divides the usable cores among the processes of this machine.
        storage: "memory" or "disk"; "auto" is memory if the images fit, else disk.
        cache: directory of decoded images; "auto" is `root/.arclight`, or this user's cache directory (~/.cache/arclight on
            Linux) where `root` belongs to another user or `root/.arclight` is a link; "none" caches nothing.

    Raises:
        InputError: when a setting is out of range.
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int | list[int] | None = None,
        resize: Resize = "crop",
        channels: Channels = 3,
        validation: int | float = 0.1,
        test: int | float = 0.1,
        split_seed: int = 0,
        stratify: bool = False,
        layout: Layout = "auto",
        bits: int | None = None,
        num_workers: int | None = None,
        storage: Storage = "auto",
        cache: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        check_minimum(1, {"num_workers": num_workers})
        check_storage(storage, cache)
        if bits is not None and not 8 <= bits <= 16:
            raise InputError(f"data.bits={bits} must be 8 to 16", key="data.bits")
        sides = [image_size] * 2 if isinstance(image_size, int) else image_size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            message = (
                f"data.image_size={image_size} must be a number of pixels, 1 or more, or two, such as [64,96] (height, width)"
            )
            raise InputError(message, key="data.image_size")
        for name, choice, known in (
            ("layout", layout, get_args(Layout)),
            ("resize", resize, get_args(Resize)),
            ("channels", channels, get_args(Channels)),
        ):
            if choice not in known:
                raise InputError(f"data.{name}={choice} must be one of {', '.join(map(str, known))}", key=f"data.{name}")
        self.layout: Layout = layout
        self.bits, self.stratify = bits, stratify
        self.image_size = None if sides is None else (sides[0], sides[1])
        self.resize: Resize = resize
        self.channels = channels
        self.validation, self.test, self.split_seed = validation, test, split_seed
        self.num_workers = num_workers
        self.storage: Storage = storage
        self.cache = cache

    def prepare(self) -> None:
        """Checks all names and the test images; the others are decoded right after this."""
        name = self.evaluated_split or "test"
        paths = self.files[name].paths
        if self.data_info is not None:
            self._compare_classes(self.classes)
        choice = self._storage_choice
        if is_main_process():  # a warning unless the user chose it
            _log.log(logging.WARNING if choice.is_streamed and self.storage == "auto" else logging.INFO, choice.reason)
        if choice.is_cached and self._cached[name].is_complete():  # they have been decoded already
            return
        if is_main_process():
            report_duplicates({name: files.paths for name, files in self.files.items()})
        self._in_threads(lambda row: check_readable(paths[row]), len(paths), f"check {name} images", self._num_processes)

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        if part == "test" or self.evaluated_split == "val":
            name = self.evaluated_split or "test"
            return {name: self._decode(name)}, self.classes
        if "train" not in self.files:
            raise InputError(f"data.root={self.root} has no train/ to train on; {LAYOUTS}", key="data.root")
        return {"train": self._decode("train"), "val": self._decode("val")}, self.classes

    @functools.cached_property
    def _found(self) -> dict[str, dict[str, list[Path]]]:
        assert self.root is not None
        found = find_images(self.root, self.layout)
        split = self.evaluated_split
        return found if split is None or not self.is_other_data else only_split(found, split, self.root)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The class directories of train/, sorted; with test/ alone, the classes of the restored model."""
        if "train" in self._found:
            return tuple(self._found["train"])
        if isinstance(self.data_info, ImageInfo):
            return self.data_info.classes
        raise InputError(f"data.root={self.root} has {'/, '.join(self._found)}/ but no train/; {LAYOUTS}", key="data.root")

    @functools.cached_property
    def files(self) -> dict[str, Files]:
        """The files of each split by row."""
        check_classes(self._found, self.classes, root=self.root)
        sizes = {"validation": self.validation, "test": self.test}
        return draw_splits(self._found, self.classes, seed=self.split_seed, stratify=self.stratify, **sizes)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        given = (self.data_info.height, self.data_info.width) if isinstance(self.data_info, ImageInfo) else (IMAGE_SIZE,) * 2
        return (self.channels, *(self.image_size or given))

    @property
    def _num_processes(self) -> int:
        """Processes on this machine."""
        return detect_launch(os.environ).local_world_size if self.trainer is None else self.trainer.num_devices

    @functools.cached_property
    def _cached(self) -> dict[str, CachedImages]:
        """The cache file of each split."""
        assert self.root is not None
        directory, shape = cache_directory(self.root, self.cache), self._shape
        decoding = (*shape, self.resize, self.bits)
        # equal for the same splits of other images: of those, the older are deleted
        selection = (
            self.layout,
            self.validation,
            self.test,
            self.split_seed,
            self.stratify,
            self.is_other_data,
            os.path.relpath(self.root, directory),
        )
        source = fingerprint([], self.root, (*decoding, *selection))[:8]
        size = "x".join(map(str, dict.fromkeys(shape[1:])))
        return {
            name: CachedImages(
                directory / f"{PREFIX}{name}-{size}-{source}-{fingerprint(files.paths, self.root, decoding)}.npy",
                (len(files.paths), *shape),
            )
            for name, files in self.files.items()
        }

    @functools.cached_property
    def _storage_choice(self) -> StorageChoice:
        cached = [] if self.cache == NO_CACHE else list(self._cached.values())
        directory = cached[0].path.parent if cached else None
        missing = sum(images.num_bytes for images in cached if not images.is_complete())
        return choose_storage(
            (sum(len(files.paths) for files in self.files.values()), *self._shape),
            free=free_bytes(),
            fraction=self.memory_share,
            num_processes=self._num_processes,
            storage=self.storage,
            cache=directory,
            obstacle=cache_obstacle(directory, missing, already=unfinished_bytes(directory) if directory else 0),
        )

    def _decode(self, name: str) -> Arrays:
        paths, labels = self.files[name]
        channels, *size = self._shape
        images: Tensor | ImageFile

        def decode(write: Write, num_processes: int) -> None:
            def work(row: int) -> None:
                image = read_image(paths[row], (size[0], size[1]), self.bits, channels=channels, resize=self.resize)
                write(row, image)

            self._in_threads(work, len(paths), f"decode {name} images", num_processes)

        if self._storage_choice.is_cached:
            cached = self._cached[name]
            cached.create(lambda write: decode(write, 1))  # the other processes wait
            images = ImageFile(cached.path) if self._storage_choice.is_streamed else memory_map(cached.path)
        else:
            decoded = np.empty((len(paths), *self._shape), np.uint8)
            decode(decoded.__setitem__, self._num_processes)
            images = torch.from_numpy(decoded)
        some = images[torch.linspace(0, len(paths) - 1, NUM_COMPARED).long().unique()]
        if name == "train" and len(some) > 1 and bool((some == some[0]).all()):
            _log.warning(
                "%d of the %s images are all equal once decoded, such as %s", len(some), name, printable(str(paths[0]))
            )
        if name == "train" and channels == 3 and bool((some == some[:, :1]).all()):
            _log.info("the images are grey: data.channels=1 trains on one channel")
        return Arrays(images, torch.tensor(labels))

    def load(self, part: str) -> None:
        is_new = self.data_info is None
        super().load(part)
        if is_new and isinstance(self.data_info, ImageInfo):
            self.data_info = replace(self.data_info, resize=self.resize, bits=self.bits)

    def sample_fields(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the file of each image, as its path in `root`; bytes of a name that are not UTF-8 are escaped."""
        assert self.root is not None
        names = [os.fsencode(self.files[split].paths[row].relative_to(self.root)) for row in rows]
        return [{"file": name.decode(errors="backslashreplace")} for name in names]

    def previews(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        pairs = zip(self.sample_fields(split, rows), super().previews(split, rows), strict=True)
        return [fields | preview for fields, preview in pairs]

    def statistics(self, images: Tensor | ImageFile) -> Statistics:
        compute = functools.partial(super().statistics, images)
        return self._cached["train"].statistics(compute) if self._storage_choice.is_cached else compute()

    def _in_threads(self, work: Callable[[int], None], num_files: int, title: str, num_processes: int) -> None:
        """Calls `work` for each file, with the threads of this machine divided among `num_processes` that do so at once."""
        import PIL.Image

        PIL.Image.init()  # here, as threads would race for it at the first file of a rare format
        num_threads = max(1, (self.num_workers or usable_cores() // self._num_processes) * self._num_processes // num_processes)
        for_each(work, num_files, num_threads=num_threads, title=title)
