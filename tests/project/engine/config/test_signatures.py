"""What a target takes is read from its source, and is what its signature says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from arclight.config.instantiate import parameters_of
from arclight.config.signatures import names_taken


@pytest.mark.parametrize(
    "target",
    [
        "project.data.cifar10.Cifar10",
        "arclight.optim.schedulers.cosine",
        "arclight.optim.muon.Muon",
        "project.models.bert_tagger.BertTagger",
        "torch.optim.AdamW",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.EarlyStopping",
    ],
)
def test_the_source_says_what_the_signature_says(target: str) -> None:
    assert names_taken(target) == tuple(parameters_of(target))


@pytest.mark.parametrize(
    "target",
    [
        "arclight.nowhere.Thing",
        "project.data.cifar10.Thing",
        "nowhere.Thing",
        "Thing",
        "lightning.pytorch.callbacks.EMAWeightAveraging",
    ],
)
def test_what_the_source_does_not_tell_is_left_open(target: str) -> None:
    assert names_taken(target) is None


def test_nothing_is_imported() -> None:
    code = "import sys; from arclight.config.signatures import names_taken; names_taken('lightning.pytorch.Trainer'); "
    code += "names_taken('torch.optim.Adam'); print([name for name in ('torch', 'lightning') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
