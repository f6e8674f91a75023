"""Batches of images: indexed on the device where they are stored there, else prefetched from host memory or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from arclight.data.samplers import AUGMENTATION, SIDES, BatchIndices, EvalSampler, TrainSampler, generator, prefetch
from arclight.images.augment import Augment, Draws, alternate
from arclight.images.image_cache import ImageFile
from arclight.images.info import ImageBatch
from arclight.interfaces import IGNORE_INDEX

NUM_PREFETCHED = 4  # batches, each read by its own thread


class ArrayLoader:
    """Iterates over the batches of one split that a sampler selects.

    Augmentation is drawn for all global batches of an epoch and cut to this process's rows: a sample gets the same pixels on
    any number of processes, after a resume, and wherever the images are stored.

    Args:
        images: uint8 (N, C, H, W): a tensor on the device of the labels or in host memory, or a file.
        labels: int64 (N,), on the device of the batches.
        sampler: a TrainSampler when there is augmentation.
        augment: of training images, drawn from `seed`.
        perturb: called with the images of a batch and its number, returns those that the batch gets.
    """

    def __init__(
        self,
        images: Tensor | ImageFile,
        labels: Tensor,
        sampler: TrainSampler | EvalSampler,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        perturb: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        assert augment is None or isinstance(sampler, TrainSampler), "only training images are augmented"
        self.images = images
        self.labels = labels
        self.sampler = sampler  # Lightning calls its `set_epoch`
        self.batch_sampler = None  # Lightning reads this, too
        self.augment = augment
        self.perturb = perturb
        self.seed = seed
        # by row of the split, not by position in a batch: each sample must be mirrored in every second epoch
        self._sides = torch.rand(len(labels), generator=generator(seed, 0, 0, SIDES)) < 0.5

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[ImageBatch]:
        draws, stored = self._draw(), self.images
        if isinstance(stored, Tensor) and stored.device == self.labels.device:
            for rows in self.sampler:
                indices = rows.indices.to(stored.device, non_blocking=True)
                yield self._batch(rows, stored.index_select(0, indices.clamp(min=0)), indices, draws)
            return
        pool = ThreadPoolExecutor(NUM_PREFETCHED, thread_name_prefix="images")
        try:
            for rows, fetched in prefetch(self.sampler, lambda rows: pool.submit(self._fetch, rows), NUM_PREFETCHED):
                # torch keeps pinned memory until the copy has arrived
                images, indices = (
                    tensor.to(self.labels.device, non_blocking=True) for tensor in (fetched.result(), rows.indices)
                )
                yield self._batch(rows, images, indices, draws)
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch(self, rows: BatchIndices) -> Tensor:
        """Returns the images of a micro-batch, uint8 (B, C, H, W), in host memory, pinned for a GPU."""
        indices = rows.indices.clamp(min=0)
        shape = (len(indices), *self.images.shape[1:])
        fetched = torch.empty(shape, dtype=torch.uint8, pin_memory=self.labels.device.type == "cuda")
        if isinstance(self.images, ImageFile):
            self.images.read(indices, fetched)
        else:
            torch.index_select(self.images, 0, indices, out=fetched)
        return fetched

    def _draw(self) -> Draws | None:
        """Returns the random numbers of this epoch, for all its global batches: a generator for each would be slow."""
        if self.augment is None or not isinstance(self.sampler, TrainSampler):
            return None
        num_samples = self.sampler.num_steps * self.sampler.batch_size
        draws = self.augment.draw(num_samples, generator=generator(self.seed, self.sampler.epoch, 0, AUGMENTATION))
        if self.augment.flip == "alternating":
            draws = draws._replace(flips=alternate(self._sides, self.sampler.batches().flatten(), self.sampler.epoch))
        return draws

    def _batch(self, rows: BatchIndices, images: Tensor, indices: Tensor, draws: Draws | None) -> ImageBatch:
        """Returns the batch of raw images (B, C, H, W) of the rows `indices` (B,), all on the device."""
        labels = self.labels.index_select(0, indices.clamp(min=0)).masked_fill(indices < 0, IGNORE_INDEX)
        if self.augment is not None and draws is not None:
            images = self.augment.apply(images, draws.part(rows.step * len(rows.whole) + rows.offset, len(indices)))
        if self.perturb is not None:
            images = self.perturb(images, rows.step)
        return ImageBatch(images, labels, indices)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)
