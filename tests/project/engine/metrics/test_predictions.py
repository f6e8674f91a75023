"""Metrics and predictions under any number of processes equal those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from arclight.config.locations import CONF
from arclight.data.samplers import Shard
from arclight.images.info import ImageInfo
from arclight.metrics.records import ClassPrediction
from arclight.optim.schedulers import constant
from project.data.synthetic_images import SyntheticImages
from project.lightning_modules.image_classifier import ImageClassifier
from tests.project.engine.metrics.counted import ADAM, CASES, FirstPixels, count, found, module, new_collector


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize(("kind", "num_samples"), CASES)
def test_metric_states_of_all_processes_sum_to_those_of_one(kind: str, num_samples: int, world_size: int) -> None:
    """Also with more processes than samples, where some get only padding rows."""
    collector, alone_collector = new_collector(module(kind)), new_collector(module(kind))
    alone = count(kind, num_samples, Shard(), alone_collector)
    ranks = [count(kind, num_samples, Shard(rank, world_size), collector) for rank in range(world_size)]

    def states(rank: torch.nn.Module) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": getattr(metric, key)
            for name, metric in rank.named_children()
            for key in getattr(metric, "_defaults", {})
        }

    expected = states(alone)
    assert expected
    for name, tensor in expected.items():
        parts = [states(rank)[name] for rank in ranks]
        assert all(part.isfinite().all() for part in parts), name
        total = torch.stack(parts).sum(0)
        if tensor.is_floating_point():
            torch.testing.assert_close(total, tensor)
        else:
            assert torch.equal(total, tensor), name
    assert list(collector.gather(num_samples)) == list(alone_collector.gather(num_samples))


@pytest.mark.processes
def test_two_processes_compute_the_same_metrics_and_predictions_as_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.project.engine.metrics.counted"]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path)], cwd=CONF.parent, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1]
    for result, (kind, num_samples) in zip(both[0], CASES, strict=True):
        collector = new_collector(module(kind))
        alone = found(count(kind, num_samples, Shard(), collector), collector.gather(num_samples))
        assert result["predictions"] == alone["predictions"]
        assert result["counts"] == alone["counts"]
        assert result["numbers"] == pytest.approx(alone["numbers"])


@pytest.mark.parametrize(("limit", "num_predicted"), [(1.0, 11), (2, 8), (0.5, 4)])
def test_only_tests_collect_predictions(limit: float, num_predicted: int) -> None:
    data = SyntheticImages(num_train=8, num_val=8, num_test=11, batch_size=4, eval_batch_size=4)
    data.setup("fit")
    assert isinstance(data.data_info, ImageInfo)
    classifier = ImageClassifier(
        data.data_info, net=torch.nn.Sequential(FirstPixels(), Pad(len(data.data_info.classes))), **SETTINGS
    )
    trainer = Trainer(limit_test_batches=limit, limit_val_batches=1, **QUIET)
    trainer.validate(classifier, datamodule=data, verbose=False)
    assert classifier.predictions is None
    for _ in range(2):  # a second test starts from an empty collector
        trainer.test(classifier, datamodule=data, verbose=False)
        assert classifier.predictions is not None
        assert [prediction.index for prediction in classifier.predictions] == list(range(num_predicted))
    labels = [prediction.label for prediction in classifier.predictions if isinstance(prediction, ClassPrediction)]
    assert labels == [data.data_info.classes[label] for label in data.arrays["test"].labels[:num_predicted]]


class Pad(torch.nn.Module):
    """Pads three logits to the number of classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, logits: Tensor) -> Tensor:
        return torch.nn.functional.pad(logits, (0, self.num_classes - logits.shape[1]))


SETTINGS = {"make_optimizer": ADAM, "scheduler": constant}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
