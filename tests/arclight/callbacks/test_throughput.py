"""What is counted and timed, with a clock that advances by one second at each reading."""

from __future__ import annotations

import logging
import math
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from arclight.callbacks.step_timing import PHASES
from arclight.callbacks.throughput import NUM_FIRST, AfterCallbacks, Throughput, peak_of


class Slope(LightningModule):
    """One weight that falls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any) -> torch.Tensor:
        return self.weight * 1.0

    def validation_step(self, batch: Any) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Batches:
    def __init__(self, number: int, batch: Any) -> None:
        self.number, self.batch = number, batch

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Any:
        return iter([self.batch] * self.number)


class Slow(Callback):
    """Reads the clock ten times whenever a batch has ended."""

    def on_train_batch_end(self, *given: Any) -> None:
        from arclight.callbacks import throughput

        for _ in range(10):
            throughput.time.perf_counter()


IMAGES = torch.zeros(3, 1)


class Sentence(NamedTuple):
    """One sentence of which some tokens are padding."""

    ids: torch.Tensor
    num_tokens: int

    @property
    def unit_counts(self) -> dict[str, int]:
        return {"tokens": self.num_tokens}

    @property
    def num_positions(self) -> int:
        return self.ids.numel()

    @property
    def work_units(self) -> dict[str, int]:
        return {"tokens": self.num_tokens, "pairs": self.num_tokens**2}  # without flops_per_unit, no FLOPs are reported


@pytest.fixture(autouse=True)
def _seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()
    monkeypatch.setattr("arclight.callbacks.throughput.time.perf_counter", lambda: float(next(clock)))


def fit(tmp_path: Path, *callbacks: Callback, num: int = 4, batch: Any = IMAGES, **settings: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 1, "log_every_n_steps": 1, "logger": False, "num_sanity_val_steps": 0, **settings},
    )
    trainer.fit(Slope(), Batches(num, batch), Batches(1, batch))
    return trainer


def test_each_hook_ends_one_phase_of_the_step(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    numbers = throughput.results(fit(tmp_path, throughput, num=NUM_FIRST + 2))
    # readings: batch start, after backward, after the update, batch end, after all callbacks; the last two are logging
    assert throughput.steady.seconds == {"data_wait": 2, "forward_backward": 2, "optimizer": 2, "logging": 4}
    assert numbers["train/step_ms"] == pytest.approx(5000)
    assert numbers["train/samples_per_s"] == pytest.approx(3 / 5)
    assert {part: numbers[f"train/{part}_share"] for part in PHASES} == pytest.approx(
        {"data_wait": 0.2, "forward_backward": 0.2, "optimizer": 0.2, "logging": 0.4}
    )
    assert numbers["time/first_step_s"] > 0
    assert not numbers.keys() & {"train/tokens_per_s", "train/joules", "train/tflops", "train/mfu"}  # unknown here


def test_a_short_fit_is_measured_over_its_first_batches(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    numbers = throughput.results(fit(tmp_path, throughput, num=2))
    assert throughput.steady.micro_batches == 0
    assert numbers["train/samples_per_s"] == pytest.approx(6 / 9)  # the last reading belongs to a batch that never came


def test_validation_time_is_not_counted(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    fit(tmp_path, throughput, num=2, max_epochs=3)
    assert throughput.first.micro_batches == 6
    assert throughput.first.total_s == 6 * 5 - 1


def test_time_in_callbacks_is_not_data_wait(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    fit(tmp_path, throughput, Slow(), num=2)
    assert throughput.first.seconds["data_wait"] == 2
    assert throughput.first.seconds["logging"] == 3 + 10


def test_accumulated_micro_batches_have_no_update(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    numbers = throughput.results(fit(tmp_path, throughput, num=4, accumulate_grad_batches=2))
    assert throughput.first.seconds["optimizer"] == 2
    assert throughput.first.seconds["forward_backward"] == 4
    assert numbers["train/step_ms"] == pytest.approx(1000 * throughput.first.total_s / 2)


def test_tokens_exclude_padding_which_the_advice_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = Sentence(torch.zeros(1, 4), num_tokens=1)
    throughput = Throughput(0.0)
    with caplog.at_level(logging.INFO):
        trainer = fit(tmp_path, throughput, num=2, batch=batch)
    assert throughput.results(trainer)["train/tokens_per_s"] == pytest.approx(2 / 9)
    assert throughput.first.positions == 8
    assert [record.message for record in caplog.records if record.name.startswith("arclight")] == [throughput.advice()]
    assert "padding" in throughput.advice()


def test_flops_are_those_of_the_batches_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def counted(module: Any, batch: Sentence) -> dict[str, float]:
        measured.append(batch)
        return {"tokens": 1e12, "pairs": 2e12}

    monkeypatch.setattr("arclight.callbacks.throughput.count_useful", counted)
    batch = Sentence(torch.zeros(1, 4), num_tokens=3)
    throughput = Throughput(0.0)
    trainer = fit(tmp_path, throughput, num=2, batch=batch)
    numbers = throughput.results(trainer)
    assert numbers["train/tflops"] == pytest.approx(2 * (3 + 2 * 9) / 9)
    assert len(measured) == 1
    assert "train/mfu" not in numbers  # the peak of a CPU is unknown


def test_a_second_fit_adds_nothing_twice(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    trainer = fit(tmp_path, throughput, num=2)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, Batches(2, IMAGES), Batches(1, IMAGES))
    assert sum(isinstance(callback, AfterCallbacks) for callback in trainer.callbacks) == 1
    assert throughput.first.micro_batches == 4


def test_no_hook_stays_on_an_optimizer(tmp_path: Path) -> None:
    throughput = Throughput(0.0)
    trainer = fit(tmp_path, throughput)
    assert not trainer.optimizers[0]._optimizer_step_post_hooks

    class Failing(Callback):
        def on_train_batch_start(self, *given: Any) -> None:
            raise ValueError("stop")

    throughput = Throughput(0.0)
    with pytest.raises(ValueError, match="stop"):
        fit(tmp_path, throughput, Failing())
    assert not throughput._hooks


def test_without_training_there_are_no_results() -> None:
    assert Throughput(0.0).results(None) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("joules", "peak", "expected"),
    [
        (7.0, 3e12, {"train/joules": 12.0, "train/mfu": (2 * 4e12 / 9) / 5e12}),
        (None, 3e12, {"train/mfu": (2 * 4e12 / 9) / 5e12}),
        (7.0, None, {"train/joules": 12.0}),
        (None, None, {}),
    ],
)
def test_a_sum_is_reported_only_if_every_process_knows_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joules: float | None, peak: float | None, expected: dict[str, float]
) -> None:
    """Two processes: this one took 5 J and can do 2 TFLOP/s, the other is as given."""

    def add_other(own: torch.Tensor, reduce_op: str) -> torch.Tensor:
        other = [0.0, 0.0, joules or math.nan, peak or math.nan, 0.0]
        return own + torch.tensor(other, dtype=torch.float64)

    monkeypatch.setattr("arclight.callbacks.throughput.count_useful", lambda module, batch: {"tokens": 4e12, "pairs": 0.0})
    monkeypatch.setattr("arclight.callbacks.throughput.peak_of", lambda trainer: 2e12)
    throughput = Throughput(0.0)
    trainer = fit(tmp_path, throughput, num=2, batch=Sentence(torch.zeros(1, 2), num_tokens=1))
    monkeypatch.setattr(trainer.strategy, "reduce", add_other)
    throughput._joules = 5.0
    numbers = throughput.results(trainer)
    assert numbers["train/tflops"] == pytest.approx(2 * 4 / 9)
    assert {key: numbers[key] for key in ("train/joules", "train/mfu") if key in numbers} == pytest.approx(expected)


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H200", 67e12), ("a GPU of next year", None)])
def test_the_peak_is_that_of_a_known_device(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    given: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)), precision="32-true")
    assert peak_of(given) == peak
    given.strategy.root_device = torch.device("cpu")
    assert peak_of(given) is None
