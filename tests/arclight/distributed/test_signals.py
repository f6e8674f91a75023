"""Signals: heard at any moment, the second Ctrl-C at once, and agreed on by the processes without a cost in each step."""

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
from arclight.distributed.signals import HEARD, Agreement, Interrupted, Interruption, take_over_signals


@pytest.mark.parametrize("number", HEARD)
def test_outside_training_a_signal_ends_the_run_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as left, Interruption().listening():
        os.kill(os.getpid(), number)
    assert left.value.code == 128 + number
    assert left.value.signal is number
    assert signal.getsignal(number) is before


def test_a_second_control_c_leaves_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    heard = Interruption()
    heard.is_training = True
    heard.hear(signal.SIGINT, None)
    heard.hear(signal.SIGTERM, None)
    assert heard.number == signal.SIGINT
    assert capfd.readouterr().err.count("ends once this step is saved") == 1
    with pytest.raises(Interrupted):
        heard.hear(signal.SIGINT, None)


def test_one_process_of_many_leaves_with_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    heard = Interruption(is_one_of_many=True)
    heard.is_training = True
    for _ in range(3):
        heard.hear(signal.SIGINT, None)
    assert heard.number == signal.SIGINT
    assert "Ctrl-C" not in capfd.readouterr().err


def test_lightning_leaves_signals_alone() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    take_over_signals(trainer)
    before = signal.getsignal(signal.SIGTERM)
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) is before
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()


def test_processes_ask_each_other_rarely_and_at_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_process_asks_nobody() -> None:
    alone: Any = SimpleNamespace(world_size=1)
    assert Agreement().ask(alone, 15, True) == (15, True)
