from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from arclight.data.samplers import EvalSampler, Shard, TrainSampler, generator
from arclight.images.augment import Augment
from arclight.images.datamodule import Arrays
from arclight.images.image_cache import ImageFile
from arclight.images.info import ImageBatch
from arclight.images.loader import ArrayLoader
from arclight.interfaces import IGNORE_INDEX

AUGMENT = Augment(crop=2, flip=True, cutout=3)


def random_arrays(num: int, *, seed: int = 0, size: int = 8) -> Arrays:
    random = generator(seed)
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=random)
    return Arrays(images, torch.randint(0, 4, (num,), generator=random))


def loader(shard: Shard | None = None, *, augment: Augment | None = AUGMENT, seed: int = 0) -> ArrayLoader:
    return ArrayLoader(*random_arrays(50), TrainSampler(50, 12, seed=seed, shard=shard), augment=augment, seed=seed)


def same(first: list[ImageBatch], second: list[ImageBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def joined(batches: list[ImageBatch]) -> ImageBatch:
    return ImageBatch(*(torch.cat(fields) for fields in zip(*batches, strict=True)))


def test_a_batch_holds_the_images_and_labels_of_its_rows() -> None:
    images, labels = random_arrays(50)
    batches = list(loader(augment=None))
    assert len(batches) == len(loader()) == 4
    for batch in batches:
        assert torch.equal(batch.images, images[batch.indices])
        assert torch.equal(batch.labels, labels[batch.indices])
        assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (torch.uint8, torch.int64, torch.int64)


def test_the_same_seed_gives_the_same_pixels_and_seed_0_is_a_seed() -> None:
    batches = list(loader())
    assert same(list(loader()), batches)
    assert not same(list(loader(seed=1)), batches)


def test_augmentation_changes_with_step_and_epoch() -> None:
    image = random_arrays(1).images.expand(40, -1, -1, -1)
    repeated = ArrayLoader(image, torch.zeros(40, dtype=torch.int64), TrainSampler(40, 20, seed=0), augment=AUGMENT)
    seen = []
    for epoch in range(2):
        repeated.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        seen += [batch.images for batch in repeated]
    assert len(seen) == 4
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 3), (2, 2), (4, 3)])
def test_processes_and_parts_together_see_the_pixels_of_one_process(world_size: int, accumulation: int) -> None:
    alone = list(loader())
    ranks = [list(loader(Shard(rank, world_size, accumulation))) for rank in range(world_size)]
    for step, whole in enumerate(alone):
        parts = [rank[step * accumulation + part] for part in range(accumulation) for rank in ranks]
        assert same([joined(parts)], [whole])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 2, 5, 9])
def test_rows_that_only_fill_a_batch_are_ignored_and_the_others_come_once(num_samples: int, world_size: int) -> None:
    images, labels = random_arrays(num_samples)
    seen = []
    for rank in range(world_size):
        order = EvalSampler(torch.arange(num_samples), 2, shard=Shard(rank, world_size))
        for batch in ArrayLoader(images, labels, order):
            real = batch.indices >= 0
            assert bool((batch.labels[~real] == IGNORE_INDEX).all())
            assert torch.equal(batch.labels[real], labels[batch.indices[real]])
            assert torch.equal(batch.images[real], images[batch.indices[real]])
            seen += batch.indices[real].tolist()
    assert sorted(seen) == list(range(num_samples))


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_loader_resumed_inside_an_epoch_gives_the_rest_of_it_exactly(stop: int) -> None:
    shard = Shard(1, 2, 3)
    whole, stopped, resumed = loader(shard), loader(shard), loader(shard)
    expected = list(whole)
    begun = list(itertools.islice(stopped, stop))
    resumed.load_state_dict(stopped.state_dict())
    assert same(begun + list(resumed), expected)


def test_a_pass_that_is_given_up_does_not_shift_the_next_epoch() -> None:
    given_up, fresh = loader(), loader()
    next(iter(given_up))
    for one in (given_up, fresh):
        one.sampler.set_epoch(1)  # type: ignore[union-attr]
    assert same(list(given_up), list(fresh))


def test_an_evaluation_loader_has_no_state() -> None:
    evaluation = ArrayLoader(*random_arrays(5), EvalSampler(torch.arange(5), 2))
    evaluation.load_state_dict({"batches": 1})
    assert evaluation.state_dict() == {}
    assert len(list(evaluation)) == 3


def mirrored(batches: list[ImageBatch]) -> dict[int, bool]:
    """Whether each sample of `random_arrays(50)` came mirrored."""
    images = random_arrays(50).images
    seen = {}
    for batch in batches:
        for row, image in zip(batch.indices.tolist(), batch.images, strict=True):
            seen[row] = not torch.equal(image, images[row])
            assert torch.equal(image, images[row].flip(2) if seen[row] else images[row])
    return seen


def of_epoch(epoch: int, shard: Shard | None = None) -> ArrayLoader:
    made = loader(shard, augment=Augment(flip="alternating"))
    made.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return made


def test_alternating_flips_depend_on_seed_sample_and_epoch_alone() -> None:
    first, second, third = (mirrored(list(of_epoch(epoch))) for epoch in range(3))  # three loaders: nothing is carried along
    assert all(second[row] is not first[row] for row in first.keys() & second.keys())
    assert all(third[row] is first[row] for row in first.keys() & third.keys())
    assert 10 < sum(first.values()) < 38  # of 48
    processes: dict[int, bool] = {}
    for rank in range(2):
        processes |= mirrored(list(of_epoch(1, Shard(rank, 2, 3))))
    assert processes == second


def test_alternating_flips_go_on_exactly_after_a_stop() -> None:
    stopped, resumed = of_epoch(1), loader(augment=Augment(flip="alternating"))
    begun = list(itertools.islice(stopped, 2))
    resumed.load_state_dict(stopped.state_dict())
    resumed.sampler.set_epoch(1)  # type: ignore[union-attr]
    assert same(begun + list(resumed), list(of_epoch(1)))


def from_file(folder: Path, shard: Shard | None = None, *, augment: Augment | None = AUGMENT) -> ArrayLoader:
    """As `loader`, its images in a file."""
    images, labels = random_arrays(50)
    np.save(folder / "images.npy", images.numpy())
    return ArrayLoader(ImageFile(folder / "images.npy"), labels, TrainSampler(50, 12, seed=0, shard=shard), augment=augment)


@pytest.mark.parametrize("shard", [Shard(), Shard(1, 2, 3)])
@pytest.mark.parametrize("augment", [None, AUGMENT, Augment(flip="alternating")])
def test_a_file_gives_the_batches_of_memory(tmp_path: Path, shard: Shard, augment: Augment | None) -> None:
    streamed, held = from_file(tmp_path, shard, augment=augment), loader(shard, augment=augment)
    for epoch in (0, 3):
        for one in (streamed, held):
            one.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        assert same(list(streamed), list(held))


def test_an_evaluation_of_a_file_gives_the_batches_of_memory(tmp_path: Path) -> None:
    images, labels = random_arrays(9)
    np.save(tmp_path / "images.npy", images.numpy())
    for rank in range(2):
        order = EvalSampler(torch.arange(9), 2, shard=Shard(rank, 2))
        assert same(
            list(ArrayLoader(ImageFile(tmp_path / "images.npy"), labels, order)), list(ArrayLoader(images, labels, order))
        )


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_file_is_gone_on_with_inside_an_epoch_exactly(tmp_path: Path, stop: int) -> None:
    shard = Shard(1, 2, 3)
    stopped, resumed = from_file(tmp_path, shard), from_file(tmp_path, shard)
    begun = list(itertools.islice(stopped, stop))
    assert stopped.state_dict() == {"epoch": 0, "batches": stop // 3}
    resumed.load_state_dict(stopped.state_dict())
    assert same(begun + list(resumed), list(loader(shard)))


def test_images_in_host_memory_are_sent_batch_by_batch() -> None:
    images, labels = random_arrays(50)
    order = TrainSampler(50, 12, seed=0)
    (batch, *_) = ArrayLoader(images, labels.to("meta"), order, augment=AUGMENT)
    assert {part.device.type for part in batch} == {"meta"}
    assert batch.images.shape == (12, 3, 8, 8)
    assert images.device.type == "cpu"
