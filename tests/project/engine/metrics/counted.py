"""Two small tasks with their test splits, counted as one process of several counts them; run as a script, in real processes."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arclight.data.samplers import EvalOrder, Shard
from arclight.images.datamodule import ArrayLoader
from arclight.images.info import ImageSpec
from arclight.metrics.predictions import KeptPredictions, Predictions
from arclight.modules.supervised import Task
from arclight.optim.schedulers import constant
from arclight.text.datamodule import Subwords, TokenLoader
from arclight.text.info import TokenSpec
from project.data.synthetic_text import Phrases
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger

IMAGES = ImageSpec(channels=3, height=2, width=2, classes=("cat", "dog", "emu"), mean=(0.4,) * 3, std=(0.2,) * 3)
CASES = [(kind, num_samples) for kind in ("images", "text") for num_samples in (1, 2, 7, 13)]
ADAM: Any = functools.partial(torch.optim.Adam, lr=0.1)


class FirstPixels(nn.Module):
    """Logits that are the first three numbers of the normalised image: the same, to the bit, in any batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]


class TokenTable(nn.Module):
    """Logits of each subword from a table: the same, to the bit, in any batch."""

    def __init__(self, spec: TokenSpec) -> None:
        super().__init__()
        self.table = torch.randn(spec.vocab_size, len(spec.labels), generator=torch.Generator().manual_seed(0))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.table[input_ids]


@functools.cache
def phrases() -> tuple[TokenSpec, list[Any]]:
    """Facts whose `max_length` cuts off the end of long sentences, and 13 sentences."""
    data = Phrases(num_train=40, num_val=2, num_test=13, vocab_size=150)
    data.setup("fit")
    assert isinstance(data.spec, TokenSpec)
    return dataclasses.replace(data.spec, max_length=24), data.sentences("test")


def task(kind: str) -> Task:
    if kind == "images":
        return ImageClassifier(IMAGES, net=FirstPixels(), make_optimizer=ADAM, schedule=constant).eval()
    spec, _ = phrases()
    return TokenTagger(spec, net=TokenTable(spec), make_optimizer=ADAM, schedule=constant).eval()


def batches(kind: str, num_samples: int, shard: Shard) -> Iterable[Any]:
    """The test batches, of at most 3 samples, of one process."""
    if kind == "images":
        random = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (num_samples, 3, 2, 2), dtype=torch.uint8, generator=random)
        labels = torch.randint(0, 3, (num_samples,), generator=random)
        return ArrayLoader(images, labels, EvalOrder(torch.arange(num_samples), 3, shard=shard))
    spec, sentences = phrases()
    subwords = Subwords(sentences[:num_samples], spec)
    return TokenLoader(subwords, EvalOrder(torch.argsort(subwords.lengths, stable=True), 3, shard=shard))


def new_kept(counted: Task) -> KeptPredictions:
    labels = getattr(counted.spec, "labels", None) or counted.spec.classes  # type: ignore[union-attr]
    return KeptPredictions(labels, is_per_word=isinstance(counted.spec, TokenSpec))


def count(kind: str, num_samples: int, shard: Shard, kept: KeptPredictions) -> Task:
    """The task after all batches of this process."""
    counted = task(kind)
    for batch in batches(kind, num_samples, shard):
        counted.count(batch, kept)
    return counted


def found(counted: Task, predictions: Predictions) -> dict[str, Any]:
    """What must not depend on the number of processes, as JSON holds it."""
    scores = counted.score()
    rows = [dataclasses.asdict(prediction) for prediction in predictions]
    return json.loads(json.dumps({"counts": scores.counts, "numbers": scores.numbers, "predictions": rows}))


def main(rank: int, world_size: int, folder: Path) -> None:
    """Counts every case as process `rank` and leaves what it found in `folder`."""
    store = torch.distributed.FileStore(str(folder / "store"), world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = []
    for kind, num_samples in CASES:
        kept = new_kept(task(kind))
        counted = count(kind, num_samples, Shard(rank, world_size), kept)
        results.append(found(counted, kept.gather(num_samples)))
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
