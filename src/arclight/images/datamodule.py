"""Data modules of images: whole splits in memory or in a file, on the device where they fit, without worker processes."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arclight.data.datamodule import DataModule, check_minimum
from arclight.data.fingerprint import hash_of
from arclight.data.samplers import SAMPLE, EvalSampler, TrainSampler, generator
from arclight.errors import InputError
from arclight.hardware.memory import free_device_bytes
from arclight.images.augment import Augment
from arclight.images.decoding import typed_size
from arclight.images.image_cache import ImageFile
from arclight.images.info import ImageInfo
from arclight.images.loader import ArrayLoader
from arclight.images.perturbations import PERTURBATIONS, perturb_images
from arclight.images.previews import encode_png, summarize_images

_log = logging.getLogger(__name__)

NUM_HASHED = 16  # images in the fingerprint of a data set
MEMORY_SHARE = 0.5  # of free memory, for images; the rest is for the net and its activations


class Arrays(NamedTuple):
    """One split."""

    images: Tensor | ImageFile  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)


class ArrayDataModule(DataModule):
    """Base class of image data sets. A subclass implements `prepare` and `read`.

    `arrays["test"].images[batch.indices]` are the images of a batch.

    Args:
        root: directory (or archive) of the data; None for synthetic data.
        batch_size: global batch size: samples per optimizer step.
        max_batch_per_device: largest micro-batch of one process; None is no limit.
        augment: random changes to training images; None is none.
        seed: of shuffling and augmentation.
        eval_batch_size: samples per process and batch in validation and test.
        memory_share: fraction of the free memory that images may take; a split that needs more of a GPU's stays in host memory.

    Raises:
        InputError: when a setting is out of range; from `load`, when the data does not fit the model that is restored.
    """

    info_type = ImageInfo

    @classmethod
    def has_fixed_shapes(cls, settings: Mapping[str, Any]) -> bool:
        """Returns True: all images of a data set have the same shape."""
        return True

    def __init__(
        self,
        *,
        root: str | None,
        batch_size: int = 64,
        max_batch_per_device: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        eval_batch_size: int = 500,
        memory_share: float = MEMORY_SHARE,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        check_minimum(1, {"eval_batch_size": eval_batch_size})
        if not 0 < memory_share <= 1:
            raise InputError(f"data.memory_share={memory_share} must be more than 0 and at most 1", key="data.memory_share")
        self.augment = augment
        self.eval_batch_size = eval_batch_size
        self.memory_share = memory_share
        self._perturb: Callable[[Tensor, int], Tensor] | None = None
        self.arrays: dict[str, Arrays] = {}  # by split: "train", "val", "test"

    @abstractmethod
    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        """Returns the splits of `part` by name ("train" and "val", or "test"), and the names of the classes."""

    def load(self, part: str) -> None:
        arrays, classes = self.read(part)
        _, channels, height, width = next(iter(arrays.values())).images.shape
        if self.data_info is not None:
            self._compare_classes(classes)
            self._compare_shape((channels, height, width))
        elif part == "fit":
            mean, std = self.statistics(arrays["train"].images)
            self.data_info = ImageInfo(channels=channels, height=height, width=width, classes=classes, mean=mean, std=std)
        if self.augment is not None and max(self.augment.crop, self.augment.cutout) >= min(height, width):
            raise InputError(
                f"data.augment.crop={self.augment.crop} and cutout={self.augment.cutout} must be smaller than the images of "
                f"{height}x{width} pixels",
                key="data.augment.crop",
            )
        self.arrays.update(arrays)

    def statistics(self, images: Tensor | ImageFile) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of each channel of the training images; a subclass may cache them."""
        return channel_statistics(images)

    def _compare_classes(self, classes: tuple[str, ...]) -> None:
        """Raises InputError for other classes than those of the restored model."""
        if not isinstance(self.data_info, ImageInfo):
            raise InputError(f"the model was not trained on images, but this data set ({type(self).__name__}) holds images")
        if classes != self.data_info.classes:
            raise InputError(
                f"the model was trained on the classes {', '.join(self.data_info.classes)}, this data set has "
                f"{', '.join(classes)}: names and order must be the same"
            )

    def _compare_shape(self, shape: tuple[int, ...]) -> None:
        assert isinstance(self.data_info, ImageInfo)
        expected = (self.data_info.channels, self.data_info.height, self.data_info.width)
        if shape != expected:
            raise InputError(
                f"the model was trained on images of {_shape(expected)}, these have {_shape(shape)}; set data.image_size="
                f"{typed_size(*expected[1:])} and data.channels={expected[0]} if the data set has these settings"
            )

    @property
    def num_train(self) -> int:
        return len(self.arrays["train"].labels)

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(arrays.labels) for split, arrays in self.arrays.items()}

    def sample(self, count: int) -> Tensor:
        """Returns training images drawn by the seed, uint8 (at most `count`, C, H, W), the same on every process."""
        drawn = torch.randperm(self.num_train, generator=generator(self.seed, 0, 0, SAMPLE))[:count]
        images = self.arrays["train"].images
        return images[drawn.to(images.device)]

    def fingerprint(self) -> str:
        images, labels = self.arrays["train"]
        return hash_of([labels, *(images[row] for row in range(0, len(labels), max(1, len(labels) // NUM_HASHED)))])

    def previews(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [{"image": encode_png(self.arrays[split].images[row])} for row in rows]

    def dataset_summary(self) -> dict[str, Any]:
        assert isinstance(self.data_info, ImageInfo)
        return summarize_images(self.arrays, self.data_info.classes)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # the loader yields batches that are on the device already

    def train_dataloader(self) -> ArrayLoader:
        sampler = TrainSampler(self.num_train, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        images, labels = self._on_device("train")
        return ArrayLoader(images, labels, sampler, augment=self.augment, seed=self.seed)

    def val_dataloader(self) -> ArrayLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> ArrayLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> ArrayLoader:
        images, labels = self._on_device(split)
        sampler = EvalSampler(torch.arange(len(labels)), self.eval_batch_size, shard=self.eval_shard)
        return ArrayLoader(images, labels, sampler, perturb=self._perturb)

    perturbations = PERTURBATIONS

    def perturb(self, kind: str | None, strength: float = 0.0) -> None:
        """Damages the images that validation and test loaders yield from now on; None ends it."""
        self._perturb = None if kind is None else lambda images, batch: perturb_images(images, kind, strength, seed=batch)

    def _on_device(self, split: str) -> Arrays:
        images, labels = self.arrays[split]
        if isinstance(images, Tensor) and self._fits_device(images, split):
            images = images.to(self.device)
        self.arrays[split] = Arrays(images, labels.to(self.device))
        return self.arrays[split]

    def _fits_device(self, images: Tensor, split: str) -> bool:
        free = None if images.device == self.device else free_device_bytes(self.device)
        if free is None or images.nbytes <= free * self.memory_share:
            return True
        _log.warning(
            "the %s images take %.2f GB, and of the %.2f GB free on %s data.memory_share=%g allows %.2f GB: they stay in host "
            "memory, and each batch is copied to the device",
            *(split, images.nbytes / 1e9, free / 1e9, self.device, self.memory_share, free * self.memory_share / 1e9),
        )
        return False


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]} pixels and {shape[0]} channels"


def channel_statistics(images: Tensor | ImageFile) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and (population) standard deviation of each channel of images, uint8 (N, C, H, W), scaled to 0..1.

    The sums are exact integers.
    """
    _, channels, height, width = images.shape
    sums, squares = [0] * channels, [0] * channels
    rows = max(1, (1 << 19) // (height * width))
    for start in range(0, len(images), rows):
        # float64 adds integers exactly up to 2**53; here they stay below 2**16 times the pixels of a chunk
        pixels = images[start : start + rows].transpose(0, 1).reshape(channels, -1).double()  # (C, rows * H * W)
        for channel in range(channels):
            sums[channel] += int(pixels[channel].sum())
            squares[channel] += int(pixels[channel] @ pixels[channel])
    count = len(images) * height * width
    means = tuple(total / count / 255 for total in sums)
    # count * square - sum^2 in integers: no digits are lost where the deviation is small
    variances = ((count * square - total * total) / count**2 for total, square in zip(sums, squares, strict=True))
    return means, tuple(math.sqrt(variance) / 255 for variance in variances)
