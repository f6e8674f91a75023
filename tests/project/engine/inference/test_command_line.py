"""`evaluate` and `predict` on trained runs, against their own tests and outside scorers. Covers arclight.runs.robustness."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

import arclight
from arclight.__main__ import main
from arclight.console.terminal import format_metric
from arclight.errors import InputError
from arclight.runs import evaluation
from arclight.runs.run import Run
from project.data.synthetic_images import SyntheticImages
from project.data.synthetic_text import SyntheticText
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # seqeval is no longer maintained
    from seqeval.metrics import f1_score as entity_f1

SETTINGS = {
    "images": [*TINY_IMAGES, "module.test_time_augmentation=flip", "trainer.max_epochs=2"],
    "text": [*TINY_TEXT, "data.num_train=160", "model.hidden_size=32", "optimizer.lr=1e-2", "trainer.max_epochs=4"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Returns a trained run of each kind; the tests work in its directory."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("runs"))
    try:
        yield {kind: arclight.run(["precision=fp32", *overrides]) for kind, overrides in SETTINGS.items()}
    finally:
        os.chdir(before)


def predict(*arguments: str) -> int:
    """Returns the exit status of `predict`."""
    try:
        main(["predict", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("kind", SETTINGS)
def test_evaluate_gives_the_scores_of_the_run_to_the_last_digit(runs: dict[str, Run], kind: str) -> None:
    scores = evaluation.evaluate(str(runs[kind].folder), {})
    expected = {name: value for name, value in runs[kind].results.items() if name.startswith("test/")}
    found = {f"test/{name}": value for name, value in scores.metrics.items()}
    found |= {f"test/f1/{name}": value for name, value in scores.per_class.items()}
    assert {name: found[name] for name in found if name in expected} == {
        name: expected[name] for name in found if name in expected
    }
    assert len(found.keys() & expected.keys()) > 5


def test_predicted_images_score_as_in_the_test(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    data = SyntheticImages(num_train=64, num_val=32, num_test=32)
    data.setup("test")
    images, labels = data.arrays["test"]
    Path("files").mkdir()
    for row, image in enumerate(images):
        PIL.Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"files/{row:03}.png")
    assert predict(str(runs["images"].folder), "files", "--batch-size", "7", "--top-k", "2") == 0
    output = capsys.readouterr()
    records = [json.loads(line) for line in output.out.splitlines()]
    assert output.err == "32 predicted, 0 skipped\n"
    classes = runs["images"].restored.data_info.num_classes  # type: ignore[union-attr]
    names = runs["images"].restored.data_info.classes  # type: ignore[union-attr]
    predicted, true = [one["label"] for one in records], [names[label] for label in labels]
    results = runs["images"].results
    assert accuracy_score(true, predicted) == results["test/accuracy"]
    f1 = f1_score(true, predicted, average=None, labels=names, zero_division=0)
    assert list(f1) == pytest.approx([results[f"test/f1/{name}"] for name in names])
    assert [len(one["top"]) for one in records] == [min(2, classes)] * 32
    expected = [one.confidence for one in runs["images"].predictions]  # type: ignore[attr-defined]
    assert [one["probability"] for one in records] == pytest.approx(expected, abs=1e-5)


def test_predicted_tags_score_as_in_the_test(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    data = SyntheticText(num_train=160, num_val=16, num_test=16)
    lines = ["\n".join(f"{word} {tag}" for word, tag in zip(one.words, one.tags, strict=True)) for one in data.read("test")]
    Path("test.txt").write_text("\n\n".join(lines))
    assert predict(str(runs["text"].folder), "test.txt", "--format", "conll", "--batch-size", "3") == 0
    rows = [[line.split() for line in block.splitlines()] for block in capsys.readouterr().out.strip().split("\n\n")]
    true, predicted = ([[row[column] for row in sentence] for sentence in rows] for column in (1, 2))
    assert runs["text"].results["test/f1"] > 0
    assert entity_f1(true, predicted) == pytest.approx(runs["text"].results["test/f1"], abs=1e-12)
    assert predicted == [list(one.predicted) for one in runs["text"].predictions]  # type: ignore[attr-defined]


def test_bad_items_are_reported_skipped_and_counted(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mixed").mkdir()
    PIL.Image.new("RGB", (9, 5)).save("mixed/a.png")
    Path("mixed/b.png").touch()
    Path("mixed/c.jpg").write_text("no image")
    run = str(runs["images"].folder)
    assert predict(run, "mixed", "missing.png", "--format", "csv", "--output", "out.csv") == 3
    assert capsys.readouterr().err.splitlines() == [
        "skipped mixed/b.png: is empty (0 bytes)",
        "skipped mixed/c.jpg: not a readable image",
        "skipped missing.png: no such file",
        "1 predicted, 3 skipped",
    ]
    assert Path("out.csv").read_text().splitlines()[1].startswith("mixed/a.png,")
    assert predict(run, "mixed/c.jpg") == 3
    assert capsys.readouterr().err.endswith("0 predicted, 1 skipped; this run takes images\n")
    assert predict(str(runs["text"].folder), "mixed/a.png") == 3
    assert re.search("not UTF-8.*\n0 predicted, 1 skipped; this run takes text\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "a.png"], "nowhere: no such run"),
        (["IMAGES", "empty"], "empty: no files to predict; this run takes images .*png"),
        (["IMAGES", "a.png", "--format", "html"], "--format html is not for images; choose one of jsonl, csv, table"),
        (["IMAGES", "a.png", "--output", "none/x"], "--output none/x cannot be written: No such file"),
        (["IMAGES", "a.png", "--device", "tpu"], "device tpu must be auto, cpu, cuda"),
        (["other.ckpt", "a.png"], "other.ckpt has checkpoint version 99; this arclight reads version 2"),
    ],
)
def test_what_cannot_begin(
    runs: dict[str, Run], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir(exist_ok=True)
    folder = runs["images"].folder
    contents = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    contents["arclight"]["version"] = 99
    torch.save(contents, "other.ckpt")
    assert predict(*[str(folder) if one == "IMAGES" else one for one in arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_python(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((5, 9, 3), dtype=np.uint8)
    (one,) = runs["images"].predict(image)
    assert one == runs["images"].predict([image], top_k=None, device="cpu", batch_size=1)[0]
    with pytest.raises(InputError, match="item 2: not a readable image"):
        runs["images"].predict([image, b"none"])
    assert runs["images"].predict([b"none"], skip_errors=True) == [{"source": "item 1", "error": "not a readable image"}]
    texts = ["Peter is in Bonn.", "", "مرحبا 🙂"]
    records = runs["text"].predict(texts, skip_errors=True)
    assert [record.get("error", len(record.get("words", ()))) for record in records] == [5, "holds no word", 2]
    assert runs["text"].predict(texts[0]) == [records[0]]
    assert next(runs["text"].predict_stream(iter(texts))) == records[0]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Peter is in Bonn.")))
    assert runs["text"].predict(Path("-"))[0]["tags"] == records[0]["tags"]


@pytest.mark.parametrize(("kind", "metric", "names"), [("images", "accuracy", "noise blur"), ("text", "f1", "lower upper")])
def test_robustness(runs: dict[str, Run], kind: str, metric: str, names: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(runs[kind].folder), "--robustness"])
    output = capsys.readouterr().out
    (folder,) = (runs[kind].folder / "evaluations").iterdir()
    page = (folder / "robustness.html").read_text()
    assert all(name in output and name in page for name in names.split())
    assert "<svg" in page
    rows = dict(re.findall(r"^(\w+(?: case)?)  +(\S+ .*)$", output.partition(" by strength of damage")[2], re.MULTILINE))
    assert len(rows) == 3
    clean = format_metric(runs[kind].results[f"test/{metric}"])
    assert {cells.split()[0] for cells in rows.values()} == {clean}
    assert any(cells.split()[-2] != clean for cells in rows.values())


def test_robustness_needs_data_that_offers_it(runs: dict[str, Run]) -> None:
    prepared = evaluation.prepare(str(runs["images"].folder), {}, split="test", device="cpu")
    without = evaluation.Evaluation(prepared.restored, None, prepared.trainer, "test")
    with pytest.raises(InputError, match="--robustness: NoneType offers no perturbations"):
        list(without.damaged_scores())
