from __future__ import annotations

import enum
import functools
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from arclight.checkpoint.plain import make_plain
from arclight.errors import InputError


class Colour(enum.IntEnum):
    RED = 3


def test_a_plain_checkpoint_stays_and_is_read_with_weights_only(tmp_path: Path) -> None:
    contents: dict[str, Any] = {
        "state_dict": OrderedDict(weight=torch.ones(2), bias=torch.nn.Parameter(torch.zeros(1))),
        "callbacks": {"a": {"values": [1, 2.5, None, True, "x", (3, {4, 5})], 6: torch.float32}},
    }
    plain = make_plain(contents)
    assert plain["callbacks"] == contents["callbacks"]
    torch.save(plain, tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["callbacks"] == contents["callbacks"]


def test_obvious_values_are_converted(tmp_path: Path) -> None:
    contents = {"x": [np.float64(0.5), Path("a/b"), Colour.RED, OmegaConf.create({"c": [1]}), Counter("aab")]}
    plain = make_plain(contents)
    assert plain["x"] == [0.5, "a/b", 3, {"c": [1]}, {"a": 2, "b": 1}]
    torch.save(plain, tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("key", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_hyperparameters_lose_objects_and_secrets(key: str) -> None:
    values = {
        "lr": 0.1,
        "net": torch.nn.Linear(1, 1),
        "optimizer": functools.partial(print),
        "api_key": "Ab1",
        "dir": Path("x"),
    }
    plain = make_plain({key: values, "hparams_type": dict, "datamodule_hparams_type": dict})
    assert plain[key]["lr"] == 0.1
    assert plain[key]["dir"] == "x"
    assert "net" not in plain[key]
    assert "optimizer" not in plain[key]
    assert "Ab1" not in str(plain)
    assert set(plain) == {key}


def test_other_objects_are_an_error_with_their_key() -> None:
    with pytest.raises(InputError, match=r"a torch\.nn\.modules\.linear\.Linear at mine\.parts\.1, which only pickle reads"):
        make_plain({"mine": {"parts": [1, torch.nn.Linear(1, 1)]}})
