"""The largest part of a batch: found by training, told by what was tried, kept where every run finds it."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight import memory
from arclight.__main__ import main
from arclight.config import CONF, compose
from arclight.data.subwords import TokenDataModule
from arclight.errors import InputError
from arclight.hardware import Facts, Gpu
from arclight.largest_batch import Try, best_of, find_largest_batch, search, settings_of_one_device
from arclight.training.image_classifier import ImageClassifier
from arclight.training.token_tagger import TokenTagger
from tests.test_checkpoint import TINY_IMAGES, TINY_TEXT

IMAGES = [*TINY_IMAGES, "precision=fp32", "trainer=cpu", "data.batch_size=12"]
TEXT = [*TINY_TEXT, "precision=fp32", "trainer=cpu", "data.batch_size=12"]
MB = 10**6


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    """The collection after each try looks at what the test made, not at all that other tests imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def steps_of(task: type, monkeypatch: pytest.MonkeyPatch, *, capacity: int = 99) -> list[Any]:
    """The batches that are trained on from here; a step of more than `capacity` samples finds no memory."""
    batches: list[Any] = []
    step = task.training_step  # type: ignore[attr-defined]

    def recorded(self: Any, batch: Any) -> Any:
        batches.append(batch)
        if len(batch.indices) > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has a capacity of 8 GiB.\nSee it")
        return step(self, batch)

    monkeypatch.setattr(task, "training_step", recorded)
    return batches


def sizes(batches: list[Any]) -> list[int]:
    return [len(batch.indices) for batch in batches]


@pytest.mark.parametrize("share", [1, 2, 7, 12, 60, 64, 97, 720])
def test_the_search_finds_the_largest_divisor_that_fits_and_has_tried_it(share: int) -> None:
    for capacity in range(share + 2):
        tries = search(share, lambda size, capacity=capacity: Try(size, size <= capacity))
        divisors = [size for size in range(1, share + 1) if share % size == 0 and size <= capacity]
        assert best_of(tries, share) == max(divisors, default=0)
        tried = [attempt.size for attempt in tries]
        assert len(set(tried)) == len(tried)
        assert max(tried) <= max(1, 2 * capacity)  # never far beyond what fits
        assert [attempt.size for attempt in tries[:3]] == [size for size in (1, 2, 4) if size < share][: len(tries)][:3] or (
            len(tries) < 3 or share <= 4
        )


def test_a_search_goes_on_between_the_last_that_fits_and_the_first_that_does_not() -> None:
    tries = search(60, lambda size: Try(size, size <= 24))
    assert [(attempt.size, attempt.fits) for attempt in tries] == [
        *((1, True), (2, True), (4, True), (8, True), (16, True), (32, False)),
        *((30, False), (20, True)),
    ]
    # 16 fits and cuts no 12 evenly; 6 was stepped over
    assert [attempt.size for attempt in search(12, lambda size: Try(size, size <= 7))] == [1, 2, 4, 8, 6]


@pytest.mark.parametrize(("overrides", "task"), [(IMAGES, ImageClassifier), (TEXT, TokenTagger)])
def test_real_steps_are_made_until_memory_ends(
    overrides: list[str], task: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batches = steps_of(task, monkeypatch, capacity=5)
    found = find_largest_batch(overrides)
    assert (found.size, found.share, found.needs_limit) == (4, 12, True)
    assert sizes(batches) == [1, 1, 2, 2, 4, 4, 8, 6]  # each size twice, for the optimizer's state; what fails only once
    by_size = {tried.size: tried for tried in found.tries}
    assert [by_size[size].fits for size in (1, 2, 4, 6, 8)] == [True, True, True, False, False]
    assert by_size[8].reason == "CUDA out of memory. Tried to allocate 9 GiB"
    assert (by_size[8].step_s, by_size[8].peak_bytes) == (None, None)
    assert by_size[4].step_s is not None
    assert by_size[4].peak_bytes is not None
    assert by_size[4].peak_bytes > 10 * MB
    assert not list(tmp_path.iterdir())  # no run folder, no checkpoint


def test_no_limit_is_needed_where_the_whole_share_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = steps_of(ImageClassifier, monkeypatch)
    found = find_largest_batch([*IMAGES, "data.max_batch_per_device=3", "trainer.max_epochs=1", "debug=one_batch"])
    assert (found.size, found.share, found.needs_limit) == (12, 12, False)
    assert sizes(batches) == [1, 1, 2, 2, 4, 4, 8, 8, 12, 12]  # an older limit and a debug option stand in no way


def test_the_longest_sentences_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = steps_of(TokenTagger, monkeypatch)
    seen: list[Any] = []
    load = TokenDataModule.load

    def loaded(self: Any, part: str) -> None:
        load(self, part)
        seen.append(self._subwords["train"].lengths)

    monkeypatch.setattr(TokenDataModule, "load", loaded)
    find_largest_batch(TEXT)
    longest = seen[0].sort(descending=True).values.tolist()
    for batch in batches:
        assert batch.attention_mask.sum(1).tolist() == longest[: len(batch.indices)]


def test_two_processes_share_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = steps_of(ImageClassifier, monkeypatch)
    found = find_largest_batch([*IMAGES, "strategy=ddp_cpu", "trainer.devices=2"])
    assert (found.size, found.share) == (6, 6)
    assert max(sizes(batches)) == 6


def made_up_memory(monkeypatch: pytest.MonkeyPatch, batches: list[Any], *, per_sample: int) -> None:
    """A process that holds 1000 MB, and so much more for every sample of the batch."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000 * MB)
    monkeypatch.setattr(memory, "peak_bytes", lambda device: 1000 * MB + len(batches[-1].indices) * per_sample)


def test_on_a_cpu_no_try_goes_beyond_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = steps_of(ImageClassifier, monkeypatch)
    made_up_memory(monkeypatch, batches, per_sample=10 * MB)
    # 90 % of 75 MB hold 6 samples of 10 MB; 8 and 12 are not even tried
    found = find_largest_batch(IMAGES, free=lambda: 75 * MB)
    assert found.size == 6
    assert set(sizes(batches)) == {1, 2, 4, 6}
    (refused,) = (tried for tried in found.tries if not tried.fits)
    assert refused.size == 8
    assert refused.reason == "not tried: expected to take 80 MB of 75 MB free"


def test_the_growth_of_the_smallest_sizes_does_not_stand_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken once and for all, such as the optimizer's state, comes with the first size."""
    batches = steps_of(ImageClassifier, monkeypatch)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000 * MB)
    monkeypatch.setattr(memory, "peak_bytes", lambda device: (1500 + len(batches[-1].indices)) * MB)
    assert not find_largest_batch(IMAGES, free=lambda: 1200 * MB).needs_limit


def test_when_nothing_fits_the_ways_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = steps_of(ImageClassifier, monkeypatch, capacity=0)
    told = r"not even one sample fits \(CUDA out of memory. Tried to allocate 9 GiB\); less memory is taken by precision=bf16"
    with pytest.raises(InputError, match=told):
        find_largest_batch(IMAGES)
    assert sizes(batches) == [1]
    with pytest.raises(InputError, match=r"not even one sample fits \(not tried: expected to take .* of 0 MB free\)"):
        find_largest_batch(IMAGES, free=lambda: 0)
    assert sizes(batches) == [1]


def test_what_a_step_held_that_found_no_memory_is_given_back_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []
    steps_of(ImageClassifier, monkeypatch, capacity=5)
    step = ImageClassifier.training_step

    def holding(self: Any, batch: Any) -> Any:
        left.append(sum(reference() is not None for reference in held))
        activations = batch.images.float()
        held.append(weakref.ref(activations))
        return step(self, batch)

    monkeypatch.setattr(ImageClassifier, "training_step", holding)
    find_largest_batch(IMAGES)
    assert left == [0] * 8


def test_another_error_of_a_step_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, batch: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ImageClassifier, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        find_largest_batch(IMAGES)


def test_a_mistake_in_the_config_is_told_as_in_training() -> None:
    with pytest.raises(InputError, match=r"data\.batchsize=3: data has no key 'batchsize'"):
        find_largest_batch([*IMAGES, "data.batchsize=3"])
    with pytest.raises(InputError, match=r"data\.batch_size=999 is larger than the training split of 64 samples"):
        find_largest_batch([*IMAGES, "data.batch_size=999"])


def test_a_loader_that_cannot_be_told_its_samples_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = torch.utils.data.DataLoader([1, 2, 3])  # type: ignore[arg-type]
    monkeypatch.setattr("arclight.data.shapes.Shapes.train_dataloader", lambda self: loader)
    with pytest.raises(InputError, match="largest-batch chooses the samples; DataLoader has no TrainOrder as its sampler"):
        find_largest_batch(IMAGES)


FOUR = Facts(num_cores=8, memory_bytes=2**36, gpus=(Gpu("A100", 2**36, (8, 0)),) * 4)


@pytest.mark.parametrize(
    ("devices", "one", "world_size"),
    [("auto", 1, 4), (2, 1, 2), ([3, 1], [3], 2), ("3,1", "3,", 2), ("2,", "2,", 1), (1, 1, 1)],
)
def test_one_of_the_devices_tries_its_share(devices: Any, one: Any, world_size: int) -> None:
    settings = compose(IMAGES).settings
    settings["trainer"] |= {"devices": devices, "accelerator": "cuda"}
    tried, shares = settings_of_one_device(settings, FOUR)
    assert (tried["trainer"]["devices"], shares) == (one, world_size)
    assert (tried["trainer"]["strategy"], tried["trainer"]["num_nodes"]) == ("auto", 1)
    assert tried["data"]["max_batch_per_device"] is None
    assert settings["trainer"]["devices"] == devices  # the given ones stay


@pytest.mark.parametrize("strategy", ["fsdp", {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy"}])
def test_a_model_spread_over_devices_cannot_be_tried_on_one(strategy: Any) -> None:
    settings = compose(IMAGES).settings
    settings["trainer"] |= {"devices": 2, "accelerator": "cuda", "strategy": strategy}
    with pytest.raises(InputError, match="spreads the model over devices, and largest-batch tries on one of them; halve"):
        settings_of_one_device(settings, FOUR)


def test_a_share_that_does_not_divide_is_told() -> None:
    settings = compose([*IMAGES, "data.batch_size=10"]).settings
    settings["trainer"] |= {"devices": 4, "accelerator": "cuda"}
    with pytest.raises(InputError, match=r"data\.batch_size=10 does not divide over 4 processes"):
        settings_of_one_device(settings, FOUR)


@pytest.fixture
def local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """conf/local/default.yaml of a copy of conf/, which both the writing and the composition take."""
    shutil.copytree(CONF, tmp_path / "conf")
    path = tmp_path / "conf" / "local" / "default.yaml"
    path.unlink(missing_ok=True)
    monkeypatch.setattr("arclight.local_settings.PATH", path)
    monkeypatch.setattr("arclight.config.CONF", tmp_path / "conf")
    return path


def test_what_is_found_is_kept_for_every_run(
    local_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps_of(ImageClassifier, monkeypatch, capacity=5)
    main(["largest-batch", *IMAGES])
    told = capsys.readouterr().out
    assert "data.max_batch_per_device=4\n" in told
    assert "CUDA out of memory" in told
    assert not local_file.exists()

    main(["largest-batch", *IMAGES, "--write"])
    assert "default.yaml: every run on this machine takes it" in capsys.readouterr().out.replace("\n", " ")
    written = local_file.read_text()
    assert written.startswith(
        "# @package _global_\ndata:\n  # found by largest-batch: data=shapes model=small_cnn precision 32-true"
    )
    for data in ("cifar10", "conll2003", "shapes", "phrases"):
        assert compose([f"data={data}"]).settings["data"]["max_batch_per_device"] == 4
    assert compose(["data.max_batch_per_device=9"]).settings["data"]["max_batch_per_device"] == 9


def test_where_all_fits_nothing_is_written(local_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["largest-batch", *IMAGES, "--write"])
    assert "no limit is needed: a device's whole share of 12 samples fits" in capsys.readouterr().out
    assert not local_file.exists()
