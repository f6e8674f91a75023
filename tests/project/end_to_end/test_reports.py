"""The score tables of a run equal those of scikit-learn and seqeval for the same predictions."""

from __future__ import annotations

import os
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import classification_report

import arclight
from arclight.checkpoint.contents import restore
from arclight.config.instantiate import build
from arclight.interfaces import IGNORE_INDEX
from arclight.metrics.tables import Table
from project.lightning_modules.token_tagger import TokenTagger
from tests.project.engine.checkpoint.test_contents import TINY_TEXT

DATA = os.environ.get("ARCLIGHT_DATA", "")


def tags_of(folder: Path) -> tuple[list[list[str]], list[list[str]], TokenTagger]:
    """Gold and predicted tags of every test sentence, cut-off words as "O", by the best checkpoint."""
    restored = restore(folder)
    assert isinstance(restored.module, TokenTagger)
    data = build(restored.settings["data"], "data")
    data.data_info = restored.data_info
    data.prepare_data()
    data.setup("test")
    labels = restored.module.labels
    gold, predicted = [], []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            found = restored.module.predict_words(batch)
            for row, true in zip(found.tolist(), batch.word_labels.tolist(), strict=True):
                kept = [(g, p) for g, p in zip(true, row, strict=True) if g != IGNORE_INDEX]
                gold.append([labels[g] for g, _ in kept])
                predicted.append([labels[p] for _, p in kept])
            restored.module.update_metrics(batch)
    return gold, predicted, restored.module


def assert_equal(table: Table, report: dict[str, Any]) -> None:
    rows = {row.name: row for row in (*table.rows, *table.averages)}
    assert set(rows) == set(report)
    for name, row in rows.items():
        expected = [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert [row.precision, row.recall, row.f1, row.support] == pytest.approx(expected, abs=1e-12), name


def assert_reports_are_equal(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval is unmaintained
        from seqeval.metrics import classification_report as entity_report
        from seqeval.scheme import IOB2

        gold, predicted, module = tags_of(folder)
        entities, strict, tags = module.compute_metrics().tables
        settings = {"output_dict": True, "zero_division": 0}
        assert_equal(entities, entity_report(gold, predicted, **settings))
        assert_equal(strict, entity_report(gold, predicted, mode="strict", scheme=IOB2, **settings))
        flat_gold, flat_predicted = list(chain.from_iterable(gold)), list(chain.from_iterable(predicted))
        names = [label for label in module.labels if label != "O"]
        assert_equal(tags, classification_report(flat_gold, flat_predicted, labels=names, **settings))


def test_tables_of_synthetic_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["data.num_train=400", "data.num_test=200", "+data.max_length=24", "optimizer.lr=5e-3", "model.hidden_size=32"]
    run = arclight.run([*TINY_TEXT, *overrides, "trainer.max_epochs=3", "precision=fp32"])
    assert 0 < run.results["test/f1"] < 1
    assert_reports_are_equal(run.folder)


@pytest.mark.slow
@pytest.mark.skipif("not DATA", reason="ARCLIGHT_DATA names no folder with the real data")
def test_tables_of_conll2003(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["experiment=conll2003_bert", f"data.root={DATA}/conll2003", "model.checkpoint=null", "logger=csv"]
    run = arclight.run([*overrides, "optimizer.lr=1e-3", "trainer.max_epochs=1"])
    assert sum(row.support for row in run.model.scores.tables[0].rows) == 5648
    assert 0.3 < run.results["test/f1"] < 1
    assert_reports_are_equal(run.folder)


@pytest.mark.slow
@pytest.mark.skipif("not DATA", reason="ARCLIGHT_DATA names no folder with the real data")
def test_one_epoch_of_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = arclight.run(["experiment=cifar10_cnn", f"data.root={DATA}", "logger=csv", "trainer.max_epochs=1"])
    assert run.results["test/accuracy"] > 0.5
    assert sum(map(sum, run.model.scores.counts)) == 10_000
