"""Shared fixtures: small data sets in their original file formats and a two-layer BERT, written to temporary directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Set before any test imports torch, transformers or wandb.
# One thread: with tiny nets, two threads wait for each other longer than they compute.
os.environ.update(
    OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", TOKENIZERS_PARALLELISM="false"
)

# the same examples on every machine, no time limit per example
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None, database=None, max_examples=40)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _without_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs of this process write no report.html, a third of the time of a small run, where no test reads it."""
    experiment = sys.modules.get("arclight.runs.experiment")  # not imported for tests that train nothing
    if experiment is not None and request.node.get_closest_marker("with_report") is None:
        monkeypatch.setattr(experiment, "report", lambda folder: None)


CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

TRAIN = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
met VBD I-VP O
Anna NNP I-NP I-PER
Maria NNP I-NP B-PER
in IN I-PP O
Brussels NNP I-NP I-LOC
. . O O

-DOCSTART- -X- O O

Unaffordable JJ I-NP O
Bonn NNP I-NP I-LOC
Peter NNP I-NP I-PER

"""


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory in CIFAR-10's binary format: 5 x 40 training and 30 test images, brighter for higher labels."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, count in [*((f"data_batch_{i}.bin", 40) for i in range(1, 6)), ("test_batch.bin", 30)]:
        labels = np.arange(count) % 10
        pixels = random.integers(0, 100, (count, 3, 32, 32)) + labels[:, None, None, None] * 15
        np.concatenate([labels[:, None], pixels.reshape(count, -1)], axis=1).astype(np.uint8).tofile(folder / name)
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR_CLASSES) + "\n\n")
    return folder.parent


@pytest.fixture(scope="session")
def conll_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory with CoNLL-2003's three files in IOB1: 24 training, 3 validation and 3 test sentences."""
    folder = tmp_path_factory.mktemp("conll2003")
    (folder / "eng.train").write_text(TRAIN * 8)
    (folder / "eng.testa").write_text(TRAIN)
    (folder / "eng.testb").write_text(TRAIN)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory with a random two-layer BERT and its tokenizer, written by save_pretrained()."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    letters = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ."]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder
