"""What the two LightningModules compute, compared with values computed by hand."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.images.info import ImageBatch, ImageInfo
from arclight.interfaces import IGNORE_INDEX
from arclight.optim.schedulers import constant
from arclight.text.info import TokenBatch, TokenInfo
from project.lightning_modules.image_classifier import ImageClassifier, shift
from project.lightning_modules.token_tagger import TokenTagger

IMAGES = ImageInfo(channels=3, height=2, width=2, classes=("cat", "dog", "emu"), mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.0))
TOKENS = TokenInfo(labels=("O", "B-PER", "I-PER"), tokenizer="{}", vocab_size=9, pad_id=0, max_length=16)
ADAM: Any = functools.partial(torch.optim.Adam, lr=0.1)


class FirstPixels(nn.Module):
    """Logits are the first three values of the normalised image."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return images.flatten(1)[:, :3]


class Table(nn.Module):
    """Logits (B, T, 3) that predict label i for token i, i < 3."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.dropout(torch.eye(3)[input_ids.clamp(max=2)] * 10)


def classifier(**settings: Any) -> ImageClassifier:
    return ImageClassifier(IMAGES, net=FirstPixels(), make_optimizer=ADAM, scheduler=constant, **settings)


def tagger(**settings: Any) -> TokenTagger:
    return TokenTagger(TOKENS, net=Table(), make_optimizer=ADAM, scheduler=constant, **settings)


def tokens(predicted: list[list[int]], words: list[list[int]], starts: list[list[int]] | None = None) -> TokenBatch:
    word_labels = torch.tensor(words)
    word_starts = torch.tensor(starts) if starts else torch.arange(word_labels.shape[1]).expand_as(word_labels)
    labels = word_labels if starts is None else torch.full((len(words), len(predicted[0])), IGNORE_INDEX)
    return TokenBatch(
        input_ids=torch.tensor(predicted),
        attention_mask=torch.ones(len(predicted), len(predicted[0]), dtype=torch.int64),
        labels=labels,
        word_starts=word_starts,
        word_labels=word_labels,
        indices=torch.arange(len(words)),
        num_tokens=int(labels.numel()),
        num_labelled=float((labels != IGNORE_INDEX).sum()),
    )


def test_raw_pixels_are_normalised_inside() -> None:
    model = classifier()
    model(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))  # 51 / 255 = 0.2
    torch.testing.assert_close(model.net.seen[0, :, 0, 0], torch.tensor([0.0, -1.0, -0.4]))  # no spread: only shifted


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_changes_no_result(channels_last: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(16, 3))
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    model = ImageClassifier(IMAGES, net=net, make_optimizer=ADAM, scheduler=constant, channels_last=channels_last)
    logits = model(images)
    mean, std = torch.tensor(IMAGES.mean).view(-1, 1, 1), torch.tensor([0.1, 0.2, 1.0]).view(-1, 1, 1)
    torch.testing.assert_close(logits, net((images / 255 - mean) / std), rtol=1e-4, atol=1e-5)


def test_padding_rows_count_in_no_metric() -> None:
    model = classifier()
    images = torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8)
    predicted = model(images).argmax(dim=1)
    labels = torch.tensor([int(predicted[0]), int(predicted[1] + 1) % 3, IGNORE_INDEX, IGNORE_INDEX])
    model.update_metrics(ImageBatch(images, labels, torch.tensor([0, 1, -1, -1])))
    scores = model.compute_metrics()
    assert sum(map(sum, scores.counts)) == 2
    assert scores.metrics["accuracy"] == 0.5
    expected = nn.functional.cross_entropy(model(images[:2]), labels[:2])
    assert scores.metrics["loss"] == pytest.approx(float(expected))


def test_metrics_do_not_depend_on_the_division_into_batches() -> None:
    images = torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8)
    labels, indices = torch.randint(0, 3, (7,)), torch.arange(7)
    whole, cut = classifier(), classifier()
    whole.update_metrics(ImageBatch(images, labels, indices))
    for rows in indices.split([1, 4, 2]):
        cut.update_metrics(ImageBatch(images[rows], labels[rows], rows))
    assert cut.compute_metrics().metrics == pytest.approx(whole.compute_metrics().metrics)
    assert cut.compute_metrics().counts == whole.compute_metrics().counts


def test_entities_are_scored_on_whole_spans() -> None:
    model = tagger().eval()
    # gold PER 0-1 and PER 3-3; predicted PER 0-0 and PER 3-3
    model.update_metrics(tokens([[1, 0, 0, 1]], [[1, 2, 0, 1]]))
    metrics = model.compute_metrics().metrics
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (0.5, 0.5, 0.5)
    assert metrics["accuracy"] == 0.75
    assert model.compute_metrics().per_class == {"PER": 0.5}


def test_a_word_that_was_cut_off_counts_as_predicted_outside() -> None:
    model = tagger().eval()
    model.update_metrics(tokens([[1, 2]], [[1, 2, 1]], starts=[[0, 1, -1]]))
    metrics = model.compute_metrics().metrics
    assert (metrics["precision"], metrics["recall"]) == (1.0, 0.5)
    assert model.compute_metrics().counts == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_the_loss_is_a_mean_over_labelled_words() -> None:
    model = tagger().eval()
    batch = tokens([[1, 0, 0]], [[1, 2, IGNORE_INDEX]])
    logits = model(batch.input_ids, batch.attention_mask)
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    torch.testing.assert_close(model.training_step(batch), expected)
    # half of the batch on each of two processes: half of the sum each
    torch.testing.assert_close(model.training_step(batch._replace(num_labelled=1.0)), expected * 2)


def test_dropout_is_on_in_training_only() -> None:
    model = tagger()
    batch = tokens([[1, 0, 0, 2] * 8], [[1, 2, 0, 1] * 8])
    assert len({float(model.train().training_step(batch)) for _ in range(4)}) > 1
    assert len({float(model.eval().training_step(batch)) for _ in range(4)}) == 1


@pytest.mark.parametrize("make", [classifier, tagger])
def test_label_smoothing_out_of_range_is_an_error(make: Any) -> None:
    with pytest.raises(InputError, match="module.label_smoothing=1.0 must be 0 or more and below 1"):
        make(label_smoothing=1.0)


@pytest.mark.parametrize("make", [classifier, tagger])
def test_the_learning_rate_is_described_with_its_rule(make: Any) -> None:
    assert make().learning_rate(256) == "0.1 (from config; not scaled with batch size)"
    assert make(lr_rule="linear", lr_batch_size=64).learning_rate(256) == "0.4 (0.1 x 4, linear: batch 256, chosen for 64)"
    assert make(lr_rule="sqrt", lr_batch_size=64).learning_rate(256) == "0.2 (0.1 x 2, sqrt: batch 256, chosen for 64)"
    with pytest.raises(InputError, match="module.lr_rule=sqrt needs module.lr_batch_size"):
        make(lr_rule="sqrt")


class Fitted(nn.Module):
    """Records the images that its first layer was computed from; the logits are the first values of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.fitted: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]

    def fit_first_layer(self, images: Tensor) -> None:
        self.fitted.append(images)


def test_a_net_that_offers_it_has_its_first_layer_computed_before_training_only() -> None:
    net = Fitted()
    model = ImageClassifier(IMAGES, net=net, make_optimizer=ADAM, scheduler=constant)
    raw = torch.full((4, 3, 2, 2), 51, dtype=torch.uint8)
    model.trainer = SimpleNamespace(datamodule=SimpleNamespace(sample=lambda count: raw[:count]))  # type: ignore[assignment]
    model.setup("test")
    assert not net.fitted
    model.setup("fit")
    (images,) = net.fitted
    assert torch.equal(images, model.normalize(raw))
    model.trainer = SimpleNamespace(datamodule=SimpleNamespace())  # type: ignore[assignment]  # batches without a data set
    model.setup("fit")
    assert len(net.fitted) == 1


@pytest.mark.parametrize(("views", "places"), [("none", [(0, 1.0)]), ("flip", [(0, 0.5), (1, 0.5)])])
def test_a_test_takes_the_mean_over_the_views(views: Any, places: list[tuple[int, float]]) -> None:
    model = classifier(test_time_augmentation=views)
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    sides = [images, images.flip(3)]
    expected = sum(weight * model(sides[side]) for side, weight in places)
    torch.testing.assert_close(model.mean_over_views(images), expected)


def test_shifted_views_weigh_as_much_as_the_unshifted_two() -> None:
    model = classifier(test_time_augmentation="flip_and_shift")
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(1, 3, 2, 2)
    down, up = (torch.tensor(pixels, dtype=torch.uint8).expand(1, 3, 2, 2) for pixels in ([[1, 1], [1, 1]], [[4, 4], [4, 4]]))
    assert torch.equal(shift(image, 1), down)
    assert torch.equal(shift(image, -1), up)
    views = [(image, 0.25), (image.flip(3), 0.25), (down, 0.25), (up, 0.25)]  # a shifted image of one colour is its own mirror
    expected = sum(weight * model(view) for view, weight in views)
    torch.testing.assert_close(model.mean_over_views(image), expected)


def test_validation_takes_the_image_alone() -> None:
    model = classifier(test_time_augmentation="flip")
    images = torch.tensor([[250, 0], [0, 0]], dtype=torch.uint8).expand(1, 3, 2, 2)
    batch = ImageBatch(images, torch.tensor([0]), torch.tensor([0]))
    model.update_metrics(batch)
    torch.testing.assert_close(model.mean_loss(), float(nn.functional.cross_entropy(model(images), batch.labels)))


class Squared(ImageClassifier):
    """A classifier with a loss of its own."""

    def loss(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        losses = (logits - nn.functional.one_hot(labels, 3)).square().sum(1)
        return losses.mean() if reduction == "mean" else losses.sum()


def test_one_override_changes_the_loss_of_training_and_validation() -> None:
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    batch = ImageBatch(images, torch.randint(0, 3, (5,)), torch.arange(5))
    model = Squared(IMAGES, net=FirstPixels(), make_optimizer=ADAM, scheduler=constant)
    model.update_metrics(batch)
    expected = float((model(images) - nn.functional.one_hot(batch.labels, 3)).square().sum(1).mean())
    assert float(model.training_step(batch)) == pytest.approx(expected)
    assert model.compute_metrics().metrics["loss"] == pytest.approx(expected)


def test_labels_are_smoothed_in_training_only() -> None:
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    batch = ImageBatch(images, torch.randint(0, 3, (5,)), torch.arange(5))
    model = classifier(label_smoothing=0.5)
    smoothed = nn.functional.cross_entropy(model(images), batch.labels, label_smoothing=0.5)
    assert float(model.train().training_step(batch)) == pytest.approx(float(smoothed))
    model.eval().update_metrics(batch)
    assert model.mean_loss() == pytest.approx(float(nn.functional.cross_entropy(model(images), batch.labels)))
