"""The example tasks exported: the same labels on real test batches, and in the libraries that others use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from arclight.errors import InputError
from arclight.export.directory import export
from arclight.export.onnx_file import OnnxSession
from arclight.export.parity import data_on_disk, own_metrics
from arclight.images import export as image_export
from arclight.images.decoding import Resize
from arclight.images.info import ImageInfo
from arclight.text.export import hugging_face, program
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger


def test_images_onnx(classifier: ImageClassifier, tmp_path: Path) -> None:
    import PIL.Image

    pytest.importorskip("onnxruntime")
    exported = export("latest", {}, file_format="onnx")
    assert (exported.parity.source, exported.parity.num_labels, exported.parity.num_different) == ("test split", 48, 0)
    normalization = exported.metadata["normalization"]
    assert normalization["mean"] == pytest.approx(classifier.data_info.mean, abs=1e-6)
    assert normalization["std"] == pytest.approx(classifier.data_info.std, abs=1e-6)

    session = OnnxSession(exported.directory / "model.onnx")
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    logits, probabilities = session((pixels,))
    with torch.no_grad():
        expected = classifier.mean_over_views(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))

    assert {*image_export.RESIZED} == {*get_args(Resize)}
    assert len((exported.directory / "run_onnx.py").read_text().splitlines()) <= 20
    PIL.Image.fromarray(np.asarray(pixels[0])).save(tmp_path / "one.png")
    command = [sys.executable, str(exported.directory / "run_onnx.py"), str(tmp_path / "one.png")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert answer[1:] == [classifier.labels[int(expected[0].argmax())], f"{float(expected[0].softmax(0).max()):.4f}"]

    # the module's own test, computed by the file
    data = data_on_disk(classifier.made, {})
    assert data is not None
    own = own_metrics(classifier, data)
    forward = image_export.image_program(classifier, classifier.data_info).forward_with(session)
    assert own_metrics(classifier, data, forward) == pytest.approx(own, abs=1e-5)
    zero = own_metrics(classifier, data, lambda images: torch.zeros(len(images), len(classifier.labels)))
    assert zero["test/loss"] == pytest.approx(np.log(len(classifier.labels)))


def test_tagger_onnx(tagger: TokenTagger) -> None:
    pytest.importorskip("onnxruntime")
    exported = export("latest", {}, file_format="onnx")
    assert exported.parity.source == "test split"
    test = data_on_disk(tagger.made, {})
    assert exported.parity.num_labels == sum(len(sentence.words) for sentence in test.sentences("test"))
    session = OnnxSession(exported.directory / "model.onnx")
    # a word without subwords is O, padding changes nothing, and lengths differ from the example's
    ids = torch.tensor([[2, 9, 10, 3, 0, 0, 0, 0, 0, 0, 0, 0]])
    mask = (ids != 0).long()
    logits = session((ids, mask, torch.tensor([[1, -1, 2]])))[0]
    with torch.no_grad():
        expected = tagger(ids[:, :4], mask[:, :4])[0]
    torch.testing.assert_close(logits[0, [0, 2]], expected[1:3], atol=1e-4, rtol=1e-4)
    assert int(logits[0, 1].argmax()) == 0
    data = test
    own = own_metrics(tagger, data)
    forward = program.tag_program(tagger, tagger.data_info).forward_with(session)
    assert own_metrics(tagger, data, forward) == pytest.approx(own, abs=1e-5)

    assert len((exported.directory / "run_onnx.py").read_text().splitlines()) <= 20
    sentence = data.sentences("test")[0]
    command = [sys.executable, str(exported.directory / "run_onnx.py"), " ".join(sentence.words)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [tagged.rpartition("/")[2] for tagged in answer] == tags_of(tagger, sentence.words)


def tags_of(tagger: TokenTagger, words: Any) -> list[str]:
    """Returns the tags of the trained model for words that none of its subwords exceed."""
    from tokenizers import Tokenizer

    encoding = Tokenizer.from_str(tagger.data_info.tokenizer).encode(list(words), is_pretokenized=True)
    with torch.no_grad():
        best = tagger(torch.tensor([encoding.ids]), torch.tensor([encoding.attention_mask]))[0].argmax(-1)
    return [tagger.labels[int(best[encoding.word_to_tokens(number)[0]])] for number in range(len(words))]


def test_tagger_in_transformers(tagger: TokenTagger) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    exported = export("latest", {}, file_format="huggingface")
    assert exported.parity.num_different == 0
    model = AutoModelForTokenClassification.from_pretrained(exported.directory)
    tokenizer = AutoTokenizer.from_pretrained(exported.directory)
    assert (tokenizer.pad_token, tokenizer.cls_token, tokenizer.unk_token) == ("[PAD]", "[CLS]", "[UNK]")
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
    data = data_on_disk(tagger.made, {})
    assert data is not None
    for sentence in data.sentences("test"):
        found = {}
        for token in tag(" ".join(sentence.words)):
            found.setdefault(token["start"], token["entity"])
        starts = np.cumsum([0, *(len(word) + 1 for word in sentence.words[:-1])])
        assert [found[start] for start in starts] == tags_of(tagger, sentence.words)
    assert (exported.directory / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert hugging_face.__doc__


def test_net_without_a_model_of_transformers(tagger: TokenTagger, tmp_path: Path) -> None:
    tagger.net.head = nn.Sequential(tagger.net.head)
    with pytest.raises(InputError, match="BertTagger does not consist of an `encoder` of transformers and a linear `head`"):
        hugging_face.save_token_classifier(tagger, tagger.data_info, tmp_path, lambda logits, starts: logits)
    tagger.net.head = nn.Linear(7, 2)
    with pytest.raises(InputError, match="transformers has no tagger of this kind for a 'bert' encoder: "):
        hugging_face.save_token_classifier(tagger, tagger.data_info, tmp_path, lambda logits, starts: logits)


class ResNet(nn.Module):
    """A net of transformers, as its users wrap it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        config = ResNetConfig(
            num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=num_classes
        )
        self.model = ResNetForImageClassification(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def test_images_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    info = ImageInfo(channels=3, height=32, width=32, classes=("cat", "dog"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    module: LightningModule = ImageClassifier(info, net=ResNet(2), make_optimizer=torch.optim.SGD, scheduler=None).eval()
    run = image_export.save_image_model(module, info, tmp_path)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    expected = image_export.image_program(module, info)((pixels,))[0]
    torch.testing.assert_close(run((pixels,))[0], expected, atol=1e-5, rtol=1e-4)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "cat", 1: "dog"}
    assert '"image_mean"' in (tmp_path / "preprocessor_config.json").read_text()


def test_cnn_is_not_in_transformers(classifier: ImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--format huggingface: Cnn is not an architecture of transformers; set --format onnx"):
        image_export.save_image_model(classifier, classifier.data_info, tmp_path)


def test_data_that_is_not_here(classifier: ImageClassifier, caplog: pytest.LogCaptureFixture) -> None:
    assert data_on_disk(classifier.made, {"root": "/no/such/directory"}) is None
    assert "data.root=/no/such/directory is not on this machine: compared on example inputs" in caplog.text
    with pytest.raises(InputError, match="num_tests"):
        data_on_disk(classifier.made, {"num_tests": 1})
    classifier.made.settings["data"]["num_tests"] = 1
    assert data_on_disk(classifier.made, {}) is None
