"""Two small modules with their test splits, evaluated as one process of several; run as a script in real processes."""

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

from arclight.data.samplers import EvalSampler, Shard
from arclight.images.datamodule import ArrayLoader
from arclight.images.info import ImageInfo
from arclight.metrics.predictions import PredictionCollector, Predictions
from arclight.modules.supervised import SupervisedModule
from arclight.optim.schedulers import constant
from arclight.text.datamodule import TokenLoader
from arclight.text.info import TokenInfo
from arclight.text.subwords import Subwords
from project.data.synthetic_text import SyntheticText
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger

IMAGES = ImageInfo(channels=3, height=2, width=2, classes=("cat", "dog", "emu"), mean=(0.4,) * 3, std=(0.2,) * 3)
CASES = [(kind, num_samples) for kind in ("images", "text") for num_samples in (1, 2, 7, 13)]
ADAM: Any = functools.partial(torch.optim.Adam, lr=0.1)


class FirstPixels(nn.Module):
    """Logits are the first three values of the normalised image: bitwise equal in any batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]


class TokenTable(nn.Module):
    """Logits of each subword from a table: bitwise equal in any batch."""

    def __init__(self, data_info: TokenInfo) -> None:
        super().__init__()
        self.table = torch.randn(data_info.vocab_size, len(data_info.labels), generator=torch.Generator().manual_seed(0))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.table[input_ids]


@functools.cache
def phrases() -> tuple[TokenInfo, list[Any]]:
    """Returns data info whose `max_length` truncates long sentences, and 13 sentences."""
    data = SyntheticText(num_train=40, num_val=2, num_test=13, vocab_size=150)
    data.setup("fit")
    assert isinstance(data.data_info, TokenInfo)
    return dataclasses.replace(data.data_info, max_length=24), data.sentences("test")


def module(kind: str) -> SupervisedModule:
    if kind == "images":
        return ImageClassifier(IMAGES, net=FirstPixels(), make_optimizer=ADAM, scheduler=constant).eval()
    data_info, _ = phrases()
    return TokenTagger(data_info, net=TokenTable(data_info), make_optimizer=ADAM, scheduler=constant).eval()


def batches(kind: str, num_samples: int, shard: Shard) -> Iterable[Any]:
    """Returns the test batches of one process, at most 3 samples each."""
    if kind == "images":
        random = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (num_samples, 3, 2, 2), dtype=torch.uint8, generator=random)
        labels = torch.randint(0, 3, (num_samples,), generator=random)
        return ArrayLoader(images, labels, EvalSampler(torch.arange(num_samples), 3, shard=shard))
    data_info, sentences = phrases()
    subwords = Subwords(sentences[:num_samples], data_info)
    return TokenLoader(subwords, EvalSampler(torch.argsort(subwords.lengths, stable=True), 3, shard=shard))


def new_collector(counted: SupervisedModule) -> PredictionCollector:
    labels = getattr(counted.data_info, "labels", None) or counted.data_info.classes  # type: ignore[union-attr]
    return PredictionCollector(labels, counted.record_type)


def count(kind: str, num_samples: int, shard: Shard, collector: PredictionCollector) -> SupervisedModule:
    """Returns the module after all batches of this process."""
    counted = module(kind)
    for batch in batches(kind, num_samples, shard):
        counted.update_metrics(batch, collector)
    return counted


def found(counted: SupervisedModule, predictions: Predictions) -> dict[str, Any]:
    """Returns what must not depend on the number of processes."""
    scores = counted.compute_metrics()
    rows = [dataclasses.asdict(prediction) for prediction in predictions]
    return json.loads(json.dumps({"counts": scores.counts, "numbers": scores.metrics, "predictions": rows}))


def main(rank: int, world_size: int, folder: Path) -> None:
    """Evaluates every case as process `rank` and writes the results to `folder`."""
    store = torch.distributed.FileStore(str(folder / "store"), world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = []
    for kind, num_samples in CASES:
        collector = new_collector(module(kind))
        counted = count(kind, num_samples, Shard(rank, world_size), collector)
        results.append(found(counted, collector.gather(num_samples)))
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
