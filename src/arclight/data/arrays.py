"""Images that fit in memory: whole uint8 tensors on the device, cut into batches by indexing, no worker processes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arclight.data.augment import Augment, Draws, alternate
from arclight.data.datamodule import DataModule
from arclight.data.download import progress
from arclight.data.examples import picture, portrait_of_images
from arclight.data.order import EvalOrder, Rows, TrainOrder, generator
from arclight.errors import InputError
from arclight.spec import IGNORED, ImageBatch, ImageSpec

# Fourth number of a generator's key, so that no two uses of one seed share a stream; the shuffle has none, which counts as 0.
AUGMENTATION, SPLIT = 1, 2  # 3 is that of training/task.py
SIDES, SAMPLE = 4, 5
TOLD_PROBLEMS = 10  # that one message lists
ROWS_PER_TASK = 16  # of a thread


class Arrays(NamedTuple):
    """One split."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)


class ArrayLoader:
    """Batches of one split in a given order, as a plain iterable that Lightning takes for a loader.

    Augmentation is drawn for all global batches of an epoch and cut to this process's rows: a sample gets the same pixels on
    any number of processes, and after a resume.

    Args:
        images: uint8 (N, C, H, W); batches come from the device that holds it.
        labels: int64 (N,), on the same device.
        order: which rows; a TrainOrder when there is augmentation.
        augment: changes to training images.
        seed: of the augmentation.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, order: TrainOrder | EvalOrder, *, augment: Augment | None = None, seed: int = 0
    ) -> None:
        assert augment is None or isinstance(order, TrainOrder), "only training images are augmented"
        self.images = images
        self.labels = labels
        self.sampler = order  # the name under which Lightning looks for `set_epoch`
        self.batch_sampler = None  # Lightning looks here, too
        self.augment = augment
        self.seed = seed
        # by row of the split, not by place in a batch: each sample must change sides from epoch to epoch
        self._sides = torch.rand(len(labels), generator=generator(seed, 0, 0, SIDES)) < 0.5

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[ImageBatch]:
        draws = self._draw()
        for rows in self.sampler:
            yield self._batch(rows, draws)

    def _draw(self) -> Draws | None:
        """What chance decides in this epoch, for all its global batches in a row: a generator for each would be slow."""
        if self.augment is None or not isinstance(self.sampler, TrainOrder):
            return None
        num_samples = self.sampler.num_steps * self.sampler.batch_size
        draws = self.augment.draw(num_samples, generator=generator(self.seed, self.sampler.epoch, 0, AUGMENTATION))
        if self.augment.alternates:
            draws = draws._replace(flips=alternate(self._sides, self.sampler.batches().flatten(), self.sampler.epoch))
        return draws

    def _batch(self, rows: Rows, draws: Draws | None) -> ImageBatch:
        indices = rows.indices.to(self.images.device, non_blocking=True)
        real = indices.clamp(min=0)
        images = self.images.index_select(0, real)
        labels = self.labels.index_select(0, real).masked_fill(indices < 0, IGNORED)
        if self.augment is not None and draws is not None:
            images = self.augment.apply(images, draws.part(rows.step * len(rows.whole) + rows.offset, len(indices)))
        return ImageBatch(images, labels, indices)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict() if isinstance(self.sampler, TrainOrder) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if isinstance(self.sampler, TrainOrder):
            self.sampler.load_state_dict(state)


class ArrayDataModule(DataModule):
    """A data set of images held in memory. A subclass writes `prepare` and `read`; spec, devices and loaders are here.

    `arrays["test"].images[batch.indices]` are the images behind a batch's rows.

    Args:
        root: folder (or archive) that holds the data; None for data made on the spot.
        batch_size: samples per optimizer step, over all processes and accumulated parts.
        max_batch_per_device: most samples that one process takes at once; None is no limit.
        augment: changes to training images; None is none.
        seed: of shuffling and augmentation.
        eval_batch_size: samples per process and batch of validation and test.

    Raises:
        InputError: when `eval_batch_size` is less than 1; from `load`, when the data does not fit the model behind `spec`.
    """

    spec_type = ImageSpec

    def __init__(
        self,
        *,
        root: str | None,
        batch_size: int,
        max_batch_per_device: int | None,
        augment: Augment | None,
        seed: int,
        eval_batch_size: int,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, max_batch_per_device=max_batch_per_device, seed=seed)
        if eval_batch_size < 1:
            raise InputError(f"data.eval_batch_size={eval_batch_size} must be 1 or more")
        self.augment = augment
        self.eval_batch_size = eval_batch_size
        self.arrays: dict[str, Arrays] = {}  # by split: "train", "val", "test"

    @abstractmethod
    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        """The splits of `part` by name ("train" and "val", or "test"), and the names of the classes."""

    def load(self, part: str) -> None:
        arrays, classes = self.read(part)
        images = next(iter(arrays.values())).images
        if self.spec is not None:
            self._compare_classes(classes)
            self._compare_shape(images)
        elif part == "fit":
            self.spec = image_spec(arrays["train"].images, classes)
        if self.augment is not None and max(self.augment.crop, self.augment.cutout) >= min(images.shape[2:]):
            raise InputError(
                f"data.augment.crop={self.augment.crop} and cutout={self.augment.cutout} must be smaller than the images of "
                f"{images.shape[2]}x{images.shape[3]} pixels"
            )
        self.arrays.update(arrays)

    def _compare_classes(self, classes: tuple[str, ...]) -> None:
        """Refuses classes that the model behind `spec` was not made for."""
        if not isinstance(self.spec, ImageSpec):
            raise InputError(f"the model was trained on text, this data set ({type(self).__name__}) holds images")
        if classes != self.spec.classes:
            raise InputError(
                f"the model knows the classes {', '.join(self.spec.classes)}; this data set has {', '.join(classes)}: "
                "names and their order must be the same"
            )

    def _compare_shape(self, images: Tensor) -> None:
        assert isinstance(self.spec, ImageSpec)
        shape, wanted = tuple(images.shape[1:]), (self.spec.channels, self.spec.height, self.spec.width)
        if shape != wanted:
            raise InputError(
                f"the model was trained on images of {_shape(wanted)}, these are {_shape(shape)}; set data.image_size to "
                f"{self.spec.height} where the data set has it"
            )

    @property
    def num_train(self) -> int:
        return len(self.arrays["train"].labels)

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(arrays.labels) for split, arrays in self.arrays.items()}

    def sample(self, count: int) -> Tensor:
        """Training images drawn by the seed, uint8 (at most `count`, C, H, W), the same on every process."""
        drawn = torch.randperm(self.num_train, generator=generator(self.seed, 0, 0, SAMPLE))[:count]
        images = self.arrays["train"].images
        return images[drawn.to(images.device)]

    def examples(self, split: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [{"image": picture(self.arrays[split].images[row])} for row in rows]

    def portrait(self) -> dict[str, Any]:
        assert isinstance(self.spec, ImageSpec)
        return portrait_of_images(dict(self.arrays), self.spec.classes)

    def train_dataloader(self) -> ArrayLoader:
        order = TrainOrder(self.num_train, self.batch_size, seed=self.seed, shard=self.shard, is_fixed=self.is_fixed)
        images, labels = self._on_device("train")
        return ArrayLoader(images, labels, order, augment=self.augment, seed=self.seed)

    def val_dataloader(self) -> ArrayLoader:
        return self._whole("val")

    def test_dataloader(self) -> ArrayLoader:
        return self._whole("test")

    def _whole(self, split: str) -> ArrayLoader:
        images, labels = self._on_device(split)
        return ArrayLoader(images, labels, EvalOrder(torch.arange(len(labels)), self.eval_batch_size, shard=self.eval_shard))

    def _on_device(self, split: str) -> Arrays:
        self.arrays[split] = Arrays(*(tensor.to(self.device) for tensor in self.arrays[split]))
        return self.arrays[split]


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]} pixels and {shape[0]} channels"


def image_spec(images: Tensor, classes: tuple[str, ...]) -> ImageSpec:
    """The facts of a training split, uint8 (N, C, H, W)."""
    _, channels, height, width = images.shape
    mean, std = channel_statistics(images)
    return ImageSpec(channels=channels, height=height, width=width, classes=classes, mean=mean, std=std)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of each channel, of pixels scaled to 0..1, from exact integer sums.

    Args:
        images: uint8 (N, C, H, W), any number of them.
    """
    _, channels, height, width = images.shape
    sums, squares = [0] * channels, [0] * channels
    rows = max(1, (1 << 19) // (height * width))
    for start in range(0, len(images), rows):
        # float64 adds whole numbers exactly up to 2**53, and here they stay below 2**16 times the pixels of a chunk
        pixels = images[start : start + rows].transpose(0, 1).reshape(channels, -1).double()  # (C, rows * H * W)
        for channel in range(channels):
            sums[channel] += int(pixels[channel].sum())
            squares[channel] += int(pixels[channel] @ pixels[channel])
    count = len(images) * height * width
    means = tuple(total / count / 255 for total in sums)
    # count * square - sum^2 in whole numbers: no digits are lost where the spread is small
    variances = ((count * square - total * total) / count**2 for total, square in zip(sums, squares, strict=True))
    return means, tuple(math.sqrt(variance) / 255 for variance in variances)


def held_out(num_samples: int, share: int | float, *, name: str) -> int:
    """How many of `num_samples` a count or a share sets aside.

    Args:
        num_samples: all there are.
        share: a count from 1 on, or a share between 0 and 1.
        name: of the setting, for the message.

    Raises:
        InputError: when nothing would be left on one of the two sides.
    """
    count = share if isinstance(share, int) else round(share * num_samples) if 0 < share < 1 else 0
    if not 0 < count < num_samples:
        raise InputError(
            f"{name}={share} does not cut {num_samples} samples into two parts; take a count from 1 to {num_samples - 1} or a "
            "share between 0 and 1, such as 0.1"
        )
    return count


def split(num_samples: int, validation: int | float, seed: int, *, name: str = "data.validation") -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to validate on, each int64 and rising; drawn by `seed`, whatever the run's own seed is.

    Raises:
        InputError: when one of the two would be empty.
    """
    count = held_out(num_samples, validation, name=name)
    shuffled = torch.randperm(num_samples, generator=generator(seed, 0, 0, SPLIT))
    return shuffled[count:].sort().values, shuffled[:count].sort().values


def for_each(work: Callable[[int], None], num_rows: int, *, num_threads: int, title: str) -> None:
    """Does `work` for the rows 0..num_rows-1 in threads, as suits image decoders: they let other threads run.

    Raises:
        InputError: with all InputErrors that `work` raised, in order of rows.
    """

    def work_from(start: int) -> list[str]:
        problems = []
        for row in range(start, min(start + ROWS_PER_TASK, num_rows)):
            try:
                work(row)
            except InputError as mistake:
                problems.append(str(mistake))
        return problems

    problems: list[str] = []
    pool = ThreadPoolExecutor(num_threads)
    try:
        with progress(title, num_rows) as advance:
            for some in pool.map(work_from, range(0, num_rows, ROWS_PER_TASK)):
                problems += some
                advance(ROWS_PER_TASK)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, do not decode the rest first
    if problems:
        told = [*problems[:TOLD_PROBLEMS], *(["..."] if len(problems) > TOLD_PROBLEMS else [])]
        raise InputError("\n  ".join([f"{len(problems)} of {num_rows} files cannot be used; mend or delete them:", *told]))
