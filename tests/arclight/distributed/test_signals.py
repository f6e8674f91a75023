"""Signals are handled after a step, a second Ctrl-C at once; processes agree on the step without a cost in each one."""

from __future__ import annotations

import itertools
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from arclight.distributed import signals
from arclight.distributed.signals import HANDLED, Agreement, Interrupted, Interruption, take_over_signals


@pytest.mark.parametrize("number", HANDLED)
def test_outside_training_a_signal_ends_the_run_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as left, signals.handle_signals(Interruption().handle):
        os.kill(os.getpid(), number)
    assert left.value.code == 128 + number
    assert left.value.signal is number
    assert signal.getsignal(number) is before


def test_a_second_control_c_quits_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    interruption = Interruption()
    interruption.is_training = True
    interruption.handle(signal.SIGINT, None)
    interruption.handle(signal.SIGTERM, None)
    assert interruption.number == signal.SIGINT
    assert capfd.readouterr().err.count("Stopping after this step and saving") == 1
    with pytest.raises(Interrupted):
        interruption.handle(signal.SIGINT, None)


def test_one_process_of_many_stops_with_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    interruption = Interruption(is_one_of_many=True)
    interruption.is_training = True
    for _ in range(3):
        interruption.handle(signal.SIGINT, None)
    assert interruption.number == signal.SIGINT
    assert "Ctrl-C" not in capfd.readouterr().err


def test_lightning_leaves_signals_alone() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    take_over_signals(trainer)
    before = signal.getsignal(signal.SIGTERM)
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) is before
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()


def test_processes_all_reduce_rarely_and_after_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    asked: list[int] = []
    trainer: Any = SimpleNamespace(world_size=2, global_step=0, strategy=SimpleNamespace(root_device=torch.device("cpu")))

    def all_reduce(tensor: torch.Tensor, op: Any) -> None:
        asked.append(trainer.global_step)
        tensor[0] = max(tensor[0], 15.0 * (trainer.global_step > 60))  # the other process was sent a signal

    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    agreement = Agreement()
    answers = {}
    for step in range(1, 101):
        clock[0] += 0.1
        trainer.global_step = step
        answers[step] = agreement.ask(trainer, 0, False)
    assert asked[:5] == [1, 3, 7, 15, 31]
    assert {late - early for early, late in itertools.pairwise(asked[4:])} == {16}
    assert next(step for step, (number, _) in answers.items() if number == 15) == next(step for step in asked if step > 60)
    agreement.ask(trainer, 0, False, now=True)
    assert asked[-1] == 100


def test_one_process_does_not_all_reduce() -> None:
    alone: Any = SimpleNamespace(world_size=1)
    assert Agreement().ask(alone, 15, True) == (15, True)
