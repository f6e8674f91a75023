from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from arclight.data.arrays import (
    ArrayDataModule,
    ArrayLoader,
    Arrays,
    channel_statistics,
    for_each,
    held_out,
    split,
)
from arclight.data.augment import Augment
from arclight.data.order import EvalOrder, Shard, TrainOrder, generator
from arclight.errors import InputError
from arclight.spec import IGNORED, ImageBatch, ImageSpec, TokenSpec

AUGMENT = Augment(crop=2, flip=True, cutout=3)


def random_arrays(num: int, *, seed: int = 0, size: int = 8) -> Arrays:
    random = generator(seed)
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=random)
    return Arrays(images, torch.randint(0, 4, (num,), generator=random))


class Made(ArrayDataModule):
    """40 training, 7 validation and 5 test images."""

    def __init__(self, *, augment: Augment | None = AUGMENT, seed: int = 0, eval_batch_size: int = 3, size: int = 8) -> None:
        super().__init__(
            root=None, batch_size=12, max_batch_per_device=None, augment=augment, seed=seed, eval_batch_size=eval_batch_size
        )
        self.size = size
        self.classes: tuple[str, ...] = ("a", "b", "c", "d")
        self.parts: list[str] = []

    def prepare(self) -> None: ...

    def read(self, part: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        self.parts.append(part)
        numbers = {"train": 40, "val": 7} if part == "fit" else {"test": 5}
        return {name: random_arrays(number, seed=number, size=self.size) for name, number in numbers.items()}, self.classes


def in_process(rank: int, world_size: int, *, accumulation: int = 1, device: str = "cpu") -> Made:
    data = Made()
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulation,
        overfit_batches=0.0,
        strategy=SimpleNamespace(root_device=torch.device(device)),
    )
    data.setup("fit")
    return data


def loader(shard: Shard | None = None, *, augment: Augment | None = AUGMENT, seed: int = 0) -> ArrayLoader:
    return ArrayLoader(*random_arrays(50), TrainOrder(50, 12, seed=seed, shard=shard), augment=augment, seed=seed)


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
    repeated = ArrayLoader(image, torch.zeros(40, dtype=torch.int64), TrainOrder(40, 20, seed=0), augment=AUGMENT)
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
        order = EvalOrder(torch.arange(num_samples), 2, shard=Shard(rank, world_size))
        for batch in ArrayLoader(images, labels, order):
            real = batch.indices >= 0
            assert bool((batch.labels[~real] == IGNORED).all())
            assert torch.equal(batch.labels[real], labels[batch.indices[real]])
            assert torch.equal(batch.images[real], images[batch.indices[real]])
            seen += batch.indices[real].tolist()
    assert sorted(seen) == list(range(num_samples))


@pytest.mark.parametrize("stop", [1, 2, 5])
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
    evaluation = ArrayLoader(*random_arrays(5), EvalOrder(torch.arange(5), 2))
    evaluation.load_state_dict({"position": 1})
    assert evaluation.state_dict() == {}
    assert len(list(evaluation)) == 3


@pytest.mark.parametrize("size", [(4, 3, 5, 7), (2100, 1, 16, 16)])  # less and more than one chunk
def test_channel_statistics_are_those_of_all_pixels(size: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator(0))
    scaled = images.double() / 255
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_channel_statistics_by_hand() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]], [[[0, 255]], [[51, 51]]]], dtype=torch.uint8)  # (2, 2, 1, 2)
    assert channel_statistics(images) == ((0.5, 0.2), (0.5, 0.0))


@pytest.mark.parametrize(("validation", "expected"), [(3, 3), (0.25, 5), (0.05, 1), (19, 19)])
def test_a_split_has_every_row_once(validation: int | float, expected: int) -> None:
    train, val = split(20, validation, 0)
    assert len(val) == expected
    assert sorted(train.tolist() + val.tolist()) == list(range(20))
    assert train.tolist() == sorted(train.tolist())
    assert val.tolist() == sorted(val.tolist())


def test_the_split_follows_its_seed() -> None:
    assert torch.equal(split(100, 20, 0)[1], split(100, 20, 0)[1])
    assert not torch.equal(split(100, 20, 0)[1], split(100, 20, 1)[1])


@pytest.mark.parametrize("share", [0, 10, 11, -1, 0.0, 1.0, 0.01, 0.99, 1.5, -0.5])
def test_a_split_that_leaves_nothing_is_an_error(share: int | float) -> None:
    message = rf"data\.validation={share} does not cut 10 samples into two parts; take a count from 1 to 9 or a share"
    with pytest.raises(InputError, match=message):
        split(10, share, 0)
    with pytest.raises(InputError, match=r"data\.test="):
        held_out(10, share, name="data.test")


def test_the_data_module_tells_its_sizes_and_its_spec_from_the_training_split() -> None:
    data = Made()
    data.setup("fit")
    assert data.sizes == {"train": 40, "val": 7}
    assert data.num_train == 40
    assert data.steps_per_epoch == 3
    mean, std = channel_statistics(random_arrays(40, seed=40).images)
    assert data.spec == ImageSpec(channels=3, height=8, width=8, classes=("a", "b", "c", "d"), mean=mean, std=std)
    data.setup("test")
    assert data.sizes == {"train": 40, "val": 7, "test": 5}


def test_fit_does_not_read_the_test_split() -> None:
    data = Made()
    data.setup("fit")
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert data.parts == ["fit"]


def test_only_training_images_are_augmented_and_evaluation_keeps_their_order() -> None:
    data = Made()
    data.setup("fit")
    data.setup("test")
    for name, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        whole = joined(list(batches))
        assert whole.indices.tolist() == list(range(data.sizes[name]))
        assert torch.equal(whole.images, data.arrays[name].images)
    batch = next(iter(data.train_dataloader()))
    assert not torch.equal(batch.images, data.arrays["train"].images[batch.indices])


def test_the_run_s_seed_chooses_order_and_augmentation() -> None:
    first, again, other = Made(seed=0), Made(seed=0), Made(seed=1)
    for data in (first, again, other):
        data.setup("fit")
    batches = list(first.train_dataloader())
    assert same(list(again.train_dataloader()), batches)
    loader = other.train_dataloader()
    assert not torch.equal(next(iter(loader)).indices, batches[0].indices)
    loader.sampler = first.train_dataloader().sampler
    batch = next(iter(loader))
    assert torch.equal(batch.indices, batches[0].indices)
    assert not torch.equal(batch.images, batches[0].images)


def test_each_process_gets_its_part_on_its_device() -> None:
    parts: list[list[Tensor]] = []
    for rank in range(2):
        data = in_process(rank, 2, accumulation=3)
        batches = list(data.train_dataloader())
        assert [len(batch.indices) for batch in batches] == [2] * 9
        parts.append([batch.indices for batch in batches])
        assert [len(batch.indices) for batch in data.val_dataloader()] == [3, 1]  # not accumulated, filled up
    alone = Made()
    alone.setup("fit")
    step = torch.cat([parts[rank][part] for part in range(3) for rank in range(2)])
    assert torch.equal(step, next(iter(alone.train_dataloader())).indices)


def test_images_are_moved_to_the_device_once() -> None:
    data = in_process(0, 1, device="meta")
    first = data.train_dataloader().images
    assert first.device == torch.device("meta")
    assert data.train_dataloader().images is first


def test_an_evaluation_batch_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match=r"data\.eval_batch_size=0 must be 1 or more"):
        Made(eval_batch_size=0)


def test_data_for_a_restored_model_must_have_its_classes() -> None:
    first, second, third = Made(), Made(), Made()
    first.setup("fit")
    second.spec = third.spec = first.spec
    second.setup("fit")
    assert second.spec is first.spec
    third.classes = ("a", "b", "d", "c")
    with pytest.raises(InputError, match="the model knows the classes a, b, c, d; this data set has a, b, d, c: names and"):
        third.setup("test")


def test_data_for_a_restored_model_must_have_its_shape() -> None:
    first, second = Made(), Made(size=16)
    first.setup("fit")
    second.spec = first.spec
    with pytest.raises(InputError, match=r"images of 8x8 pixels and 3 channels, these are 16x16 .*; set data\.image_size to 8"):
        second.setup("fit")


def test_images_are_no_data_for_a_model_of_text() -> None:
    data = Made()
    data.spec = TokenSpec(labels=("O",), tokenizer="", vocab_size=1, pad_id=0, max_length=1)
    with pytest.raises(InputError, match=r"the model was trained on text, this data set \(Made\) holds images"):
        data.setup("fit")


@pytest.mark.parametrize("augment", [Augment(crop=8), Augment(cutout=8)])
def test_augmentation_larger_than_the_images_is_an_error(augment: Augment) -> None:
    with pytest.raises(InputError, match=r"data\.augment\.crop=\d and cutout=\d must be smaller than the images of 8x8 pixels"):
        Made(augment=augment).setup("fit")


@pytest.mark.parametrize("num_threads", [1, 3])
def test_work_is_done_for_every_row(num_threads: int) -> None:
    done: list[int] = []
    for_each(done.append, 100, num_threads=num_threads, title="work")
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("num_broken", "told"), [(3, 3), (10, 10), (25, 10)])
def test_all_troubles_are_counted_and_the_first_are_listed(num_broken: int, told: int) -> None:
    def work(row: int) -> None:
        if row % 2 and row < 2 * num_broken:
            raise InputError(f"row {row}")

    with pytest.raises(InputError) as caught:
        for_each(work, 100, num_threads=2, title="work")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{num_broken} of 100 files cannot be used; mend or delete them:"
    assert lines[1 : 1 + told] == [f"  row {2 * number + 1}" for number in range(told)]
    assert lines[1 + told :] == (["  ..."] if num_broken > told else [])


def test_a_bug_in_the_work_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda row: print(1 // (row - 50)), 100, num_threads=2, title="work")


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


def test_a_sample_of_the_training_images_is_the_same_for_every_process() -> None:
    drawn = [in_process(rank, 2).sample(10) for rank in range(2)]
    assert torch.equal(*drawn)
    rows = {tuple(image.flatten().tolist()) for image in in_process(0, 1).arrays["train"].images}
    assert len({tuple(image.flatten().tolist()) for image in drawn[0]} & rows) == 10
    assert len(in_process(0, 1).sample(1000)) == 40
