"""A student's loss with a teacher, and which teachers are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.export import distillation
from arclight.export.distillation import Distillation
from arclight.interfaces import IGNORE_INDEX
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger
from project.models.cnn import Cnn
from tests.arclight.export.modules import Gan
from tests.project.engine.export.conftest import OPTIMIZER


class Fixed(nn.Module):
    """Returns the same logits for every input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits


def loss_of(module: Any, student: Tensor, teacher: Tensor, labels: Tensor, weight: float, temperature: float = 2.0) -> Tensor:
    """Returns the loss of a module whose net, and whose teacher, returns these logits."""
    module.net = Fixed(student)
    return Distillation("x", weight, temperature).loss_with(Fixed(teacher), module)((torch.zeros(1),), labels)


def test_loss_of_images(classifier: ImageClassifier) -> None:
    student, teacher, labels = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    cross_entropy = nn.functional.cross_entropy(student, labels)
    taught = (teacher / 2).softmax(1)
    divergence = 4 * (taught * (taught.log() - (student / 2).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(loss_of(classifier, student, teacher, labels, 0.3), 0.7 * cross_entropy + 0.3 * divergence)
    assert float(loss_of(classifier, student, student, labels, 1.0).detach()) == pytest.approx(0, abs=1e-5)


def test_only_labelled_subwords_count(tagger: TokenTagger) -> None:
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[IGNORE_INDEX, 1, IGNORE_INDEX], [2, IGNORE_INDEX, IGNORE_INDEX]])
    loss = loss_of(tagger, student, teacher, labels, 1.0)
    rows = [(0, 1), (1, 0)]
    parts = [
        loss_of(tagger, student[r][p][None, None], teacher[r][p][None, None], labels[r][p][None, None], 1.0) for r, p in rows
    ]
    torch.testing.assert_close(loss, sum(parts))


def test_student_trains_towards_the_teacher(classifier: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import Trainer

    from arclight.runs.evaluation import load_data

    monkeypatch.setattr(distillation, "restore", lambda run: classifier.made)
    torch.manual_seed(1)
    info = classifier.data_info
    student = ImageClassifier(info, net=Cnn(info, widths=[8], hidden=None), **OPTIMIZER)
    data = load_data(classifier.made, {"batch_size": 8}, split=None)
    data.setup("fit")
    images = next(iter(data.train_dataloader())).images
    with torch.no_grad():
        before = (student(images).softmax(1) - classifier(images).softmax(1)).abs().sum()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Distillation("latest", weight=1.0)],
    )
    trainer.fit(student, datamodule=data)
    student.eval()
    with torch.no_grad():
        after = (student(images).softmax(1) - classifier(images).softmax(1)).abs().sum()
    assert after < before
    assert "training_loss" not in vars(student)
    assert not any("teacher" in name for name in student.state_dict())


def test_teachers_that_do_not_fit(classifier: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"weight": 0.0}, {"weight": 1.5}, {"temperature": 0.0}):
        with pytest.raises(InputError, match=r"callbacks.distillation.\w+=[\d.]+ must be above 0"):
            Distillation("x", **wrong)
    other = replace(classifier.data_info, classes=tuple(f"{name}s" for name in classifier.data_info.classes))
    callback, made = Distillation("latest"), classifier.made
    monkeypatch.setattr(distillation, "restore", lambda run: replace(made, data_info=other))
    with pytest.raises(InputError, match="teacher=latest: it was trained with another data_info.classes"):
        callback.on_fit_start(None, classifier)
    monkeypatch.setattr(distillation, "restore", lambda run: replace(made, module=Gan()))
    with pytest.raises(InputError, match="teacher and student must inherit from SupervisedModule"):
        callback.on_fit_start(None, classifier)
    monkeypatch.setattr(distillation, "restore", lambda run: made)
    classifier.compile_loss("default")
    with pytest.raises(InputError, match="hardware.compile=true and a teacher exclude each other"):
        callback.on_fit_start(None, classifier)
