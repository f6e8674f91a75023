"""The position in a checkpoint, and ends of training that have passed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arclight.checkpoint.position import Position, check_end
from arclight.errors import InputError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Returns a checkpoint in the second epoch of four."""
    progress = {"started": 2, "processed": 1}
    content = {
        "global_step": 13,
        "loops": {"fit_loop": {"epoch_progress": {"current": progress}}},
        "arclight": {"settings": {"trainer": {"max_epochs": 4}}},
    }
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_position_in_words(checkpoint: Path) -> None:
    assert str(Position.of(checkpoint)) == "in epoch 2, after step 13"
    assert str(Position(2, 1200)) == "after epoch 2, after step 1,200"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 0}, "trainer.max_epochs=0: the run has done 1 already; set 1 or more, or train a new run"),
        ({"max_epochs": 4, "max_steps": 12}, "trainer.max_steps=12: the run has done 13 already"),
        ({"max_epochs": 1, "max_steps": 13}, None),
        ({"max_epochs": -1, "max_steps": -1}, None),
        ({"max_epochs": None}, None),
    ],
)
def test_an_end_that_has_passed_is_refused(checkpoint: Path, settings: dict[str, int], message: str | None) -> None:
    if message is None:
        check_end(checkpoint, settings)
        return
    with pytest.raises(InputError, match=message):
        check_end(checkpoint, settings)
