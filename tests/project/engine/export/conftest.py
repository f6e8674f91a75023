"""The example tasks with untrained nets, as `latest` restores them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from arclight.export import compression, directory
from project.data.synthetic_images import SyntheticImages
from project.data.synthetic_text import SyntheticText
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger
from project.models.bert_tagger import BertTagger
from project.models.cnn import Cnn
from tests.arclight.export.modules import restored

OPTIMIZER: dict[str, Any] = {"make_optimizer": partial(torch.optim.SGD, lr=0.01), "scheduler": lambda step, total: 1.0}
IMAGES = {"_target_": "project.data.synthetic_images.SyntheticImages", "num_train": 64, "num_val": 32, "num_test": 48}
TEXT = {"_target_": "project.data.synthetic_text.SyntheticText", "num_train": 64, "num_val": 16, "num_test": 24}


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageClassifier:
    """Returns an untrained classifier with test-time augmentation, as `latest` restores it."""
    torch.manual_seed(0)
    data = SyntheticImages(**{key: value for key, value in IMAGES.items() if key != "_target_"})
    data.prepare_data()
    data.setup("fit")
    module = ImageClassifier(data.data_info, net=Cnn(data.data_info), test_time_augmentation="flip", **OPTIMIZER)
    made = restored(module, tmp_path / "run", data.data_info, dict(IMAGES))
    for place in (directory, compression):
        monkeypatch.setattr(place, "restore", lambda run: made)
    module.made = made
    return module


@pytest.fixture
def tagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenTagger:
    """Returns an untrained tagger, as `latest` restores it."""
    torch.manual_seed(0)
    data = SyntheticText(**{key: value for key, value in TEXT.items() if key != "_target_"})
    data.prepare_data()
    data.setup("fit")
    module = TokenTagger(data.data_info, net=BertTagger(data.data_info, checkpoint=None, hidden_size=32), **OPTIMIZER)
    nn.init.normal_(module.net.head.weight)  # other tags than one
    made = restored(module, tmp_path / "run", data.data_info, dict(TEXT))
    for place in (directory, compression):
        monkeypatch.setattr(place, "restore", lambda run: made)
    module.made = made
    return module
