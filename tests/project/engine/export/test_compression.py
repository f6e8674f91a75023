"""Smaller models of the example tasks, measured before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from arclight.errors import InputError
from arclight.export import command_line, compression, pruning
from arclight.export.compression import METHODS, CompressionOptions, compress, score_of
from arclight.export.latency import Latency, measure_latency
from arclight.export.onnx_file import OnnxSession
from arclight.interfaces import Monitor
from project.lightning_modules.image_classifier import ImageClassifier
from project.lightning_modules.token_tagger import TokenTagger

pytest.importorskip("onnxruntime")


def test_int8_tagger(tagger: TokenTagger, tmp_path: Path) -> None:
    made = compress("latest", {}, method="int8_dynamic", max_loss=1.0)
    assert made.score == "test/f1"
    assert made.after.num_bytes < 0.6 * made.before.num_bytes
    assert made.after.metrics["test/accuracy"] == pytest.approx(made.before.metrics["test/accuracy"], abs=0.2)
    assert sorted(path.name for path in made.directory.iterdir()) == ["metadata.json", "model.onnx", "run_onnx.py"]
    stored = OnnxSession(made.directory / "model.onnx").session.get_modelmeta().custom_metadata_map
    assert json.loads(stored["labels"]) == list(tagger.labels)
    assert json.loads(stored["compression"])["method"] == "int8_dynamic"
    assert made.to_table().row_count == 2


def test_int8_images_from_the_command_line(
    classifier: ImageClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from arclight.__main__ import main

    main(["compress", "latest", "--method", "int8_static", "--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    assert "test/accuracy" in printed
    assert "int8_static" in printed
    assert (tmp_path / "new" / "model.onnx").stat().st_size < 0.3 * 4 * 4_224_970
    assert METHODS.keys() == {*command_line.METHODS}


def test_pruned_weights_stay_zero(classifier: ImageClassifier) -> None:
    made = compress("latest", {}, method="prune", options=CompressionOptions(amount=0.75, epochs=1))
    # biases are never removed
    assert made.after.num_nonzero == pytest.approx(0.25 * made.before.num_nonzero, rel=0.01)
    assert all(torch.isfinite(value).all() for value in classifier.state_dict().values())


def test_removed_channels_make_the_file_smaller(classifier: ImageClassifier) -> None:
    made = compress("latest", {}, method="prune_structured", options=CompressionOptions(amount=0.5, epochs=1))
    assert made.after.num_bytes < 0.3 * made.before.num_bytes
    assert classifier.net.blocks[0][0].out_channels == 16
    assert classifier.net.head[-1].out_features == len(classifier.labels)


def test_removed_hidden_units_of_a_transformer(tagger: TokenTagger) -> None:
    hidden = tagger.net.encoder.config.intermediate_size
    made = compress("latest", {}, method="prune_structured", options=CompressionOptions(amount=0.5, epochs=0))
    assert {layer.intermediate.dense.out_features for layer in tagger.net.encoder.encoder.layer} == {hidden // 2}
    assert made.after.num_nonzero < made.before.num_nonzero


def test_loss_is_refused(classifier: ImageClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([{"test/accuracy": 0.9}, {"test/accuracy": 0.7}])
    monkeypatch.setattr(compression, "own_metrics", lambda *given: next(scores))
    with pytest.raises(
        InputError, match="test/accuracy changes from 0.9000 to 0.7000, a loss of 0.2000, which is more than --max-loss 0.1"
    ):
        compress("latest", {}, method="int8_dynamic", max_loss=0.1, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wrong_options(classifier: ImageClassifier, tmp_path: Path) -> None:
    for wrong, message in ({"amount": 1.0}, "--amount 1.0 must be above 0"), ({"epochs": -1}, "--epochs -1 must be 0 or more"):
        with pytest.raises(InputError, match=message):
            compress("latest", {}, method="prune", options=CompressionOptions(**wrong))
    for parameter in classifier.parameters():
        parameter.requires_grad = False
    with pytest.raises(InputError, match="--amount 0.5 removes nothing: no layer has enough channels that are trained"):
        compress("latest", {}, method="prune_structured")
    with pytest.raises(InputError, match="no convolution and no linear layer whose weights are trained"):
        compress("latest", {}, method="prune")
    classifier.made.settings["data"] = {}
    with pytest.raises(InputError, match="compress needs the data of the run"):
        compress("latest", {}, method="prune")
    assert pruning.ROUND_TO


def test_the_score_that_counts() -> None:
    assert score_of(Monitor("val/f1", "max"), {"test/f1": 1.0}) == ("test/f1", "max")
    assert score_of(None, {"test/loss": 1.0}) == ("test/loss", "min")
    with pytest.raises(InputError, match="logs neither its monitor nor test/loss, but test/other"):
        score_of(Monitor("val/f1", "max"), {"test/other": 1.0})


def test_latency_counts_calls_in_turn() -> None:
    called: list[str] = []
    latencies = measure_latency(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, num_rounds=2, num_calls=3, num_warm=1
    )
    assert "".join(called) == "aaaabbbbbbbbaaaa"
    assert all(isinstance(value, Latency) and 0 <= value.p50 <= value.p99 for value in latencies.values())
