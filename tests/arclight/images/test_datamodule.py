from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from arclight.data.samplers import generator
from arclight.errors import InputError
from arclight.images import datamodule
from arclight.images.augment import Augment
from arclight.images.datamodule import ArrayDataModule, Arrays, channel_statistics
from arclight.images.info import ImageInfo
from arclight.text.info import TokenInfo
from tests.arclight.images.test_loader import AUGMENT, joined, random_arrays, same


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


def test_the_data_module_tells_its_sizes_and_its_spec_from_the_training_split() -> None:
    data = Made()
    data.setup("fit")
    assert data.sizes == {"train": 40, "val": 7}
    assert data.num_train == 40
    assert data.steps_per_epoch == 3
    mean, std = channel_statistics(random_arrays(40, seed=40).images)
    assert data.data_info == ImageInfo(channels=3, height=8, width=8, classes=("a", "b", "c", "d"), mean=mean, std=std)
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
    second.data_info = third.data_info = first.data_info
    second.setup("fit")
    assert second.data_info is first.data_info
    third.classes = ("a", "b", "d", "c")
    with pytest.raises(InputError, match="was trained on the classes a, b, c, d, this data set has a, b, d, c: names and"):
        third.setup("test")


def test_data_for_a_restored_model_must_have_its_shape() -> None:
    first, second = Made(), Made(size=16)
    first.setup("fit")
    second.data_info = first.data_info
    with pytest.raises(InputError, match=r"images of 8x8 pixels and 3 channels, these have 16x16 .*; set data\.image_size=8"):
        second.setup("fit")


def test_images_are_no_data_for_a_model_of_text() -> None:
    data = Made()
    data.data_info = TokenInfo(labels=("O",), tokenizer="", vocab_size=1, pad_id=0, max_length=1)
    with pytest.raises(InputError, match=r"the model was not trained on images, but this data set \(Made\) holds images"):
        data.setup("fit")


@pytest.mark.parametrize("augment", [Augment(crop=8), Augment(cutout=8)])
def test_augmentation_larger_than_the_images_is_an_error(augment: Augment) -> None:
    with pytest.raises(InputError, match=r"data\.augment\.crop=\d and cutout=\d must be smaller than the images of 8x8 pixels"):
        Made(augment=augment).setup("fit")


def test_a_sample_of_the_training_images_is_the_same_for_every_process() -> None:
    drawn = [in_process(rank, 2).sample(10) for rank in range(2)]
    assert torch.equal(*drawn)
    rows = {tuple(image.flatten().tolist()) for image in in_process(0, 1).arrays["train"].images}
    assert len({tuple(image.flatten().tolist()) for image in drawn[0]} & rows) == 10
    assert len(in_process(0, 1).sample(1000)) == 40


def test_images_that_a_gpu_does_not_hold_stay_in_host_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(datamodule, "free_device_bytes", lambda device: 2 * 40 * 3 * 8 * 8 - 1)
    data = in_process(0, 1, device="meta")
    train, val = data.train_dataloader(), data.val_dataloader()
    assert (train.images.device.type, train.labels.device.type) == ("cpu", "meta")
    assert val.images.device.type == "meta"  # smaller, and fits
    assert next(iter(train)).images.device.type == "meta"
    assert caplog.messages == [
        "the train images take 0.00 GB, and of the 0.00 GB free on meta data.memory_share=0.5 allows 0.00 GB: they stay in "
        "host memory, and each batch is copied to the device"
    ]
    monkeypatch.setattr(datamodule, "free_device_bytes", lambda device: 2 * 40 * 3 * 8 * 8)
    assert in_process(0, 1, device="meta").train_dataloader().images.device.type == "meta"
