"""A whole run from Python: its directory, its reproducibility, and errors that end it early."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import arclight
from arclight.callbacks.throughput import Throughput
from arclight.errors import InputError
from arclight.runs import evaluation, experiment
from arclight.runs.run import Run
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

pytestmark = pytest.mark.with_report


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str) -> Run:
    return arclight.run(["precision=fp32", *overrides, "trainer.max_epochs=2"])


@pytest.mark.parametrize(("overrides", "score"), [(TINY_IMAGES, "accuracy"), (TINY_TEXT, "f1")])
def test_the_run_directory(overrides: list[str], score: str) -> None:
    run = train(*overrides, "trainer.log_every_n_steps=1")
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        *("config.yaml", "overrides.txt", "environment.json", "metrics.csv", "results.json", "scores.json", "report.html"),
        *("checkpoints", "train.log", "predictions.jsonl", "mistakes.json", "data.json"),
    }
    errors = json.loads((run.folder / "mistakes.json").read_text())["mistakes"]
    assert 0 < len(errors) <= 24
    assert all(("image" if score == "accuracy" else "words") in error for error in errors)
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "last.previous.ckpt"}
    results = json.loads((run.folder / "results.json").read_text())
    assert results == pytest.approx(run.results)
    assert results["status"] == "finished"
    assert (results["epochs"], results["seed"]) == (2, 0)
    assert 0 <= results[f"test/{score}"] <= 1
    assert run.score == results[f"val/{score}"]
    assert results["train/samples_per_s"] > 0
    assert 0 <= results["train/data_wait_share"] <= 1
    assert ("train/tokens_per_s" in results) == (score == "f1")
    assert 0 < results["time/first_step_s"] < results["time/total_s"]
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) >= results["steps"]
    assert all(math.isfinite(loss) for loss in losses)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert "report.html" in names


def test_a_loss_that_becomes_nan_is_reported_at_once_and_by_everything_that_shows_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unstable = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every_n_steps=1", "callbacks=none", "test=false"]
    run = train(*TINY_IMAGES, *unstable)
    assert run.results["steps"] == 8  # it trains on
    assert run.status == "diverged"
    found = re.fullmatch(r"train/loss is (nan|inf) from step (\d) on", run.results["error"])
    assert found is not None
    warnings = re.findall(r"WARNING arclight.callbacks.loss_logging: (.*)", (run.folder / "train.log").read_text())
    assert [each.partition(". Lower optimizer.lr")[0] for each in warnings] == [found[0]]
    assert capsys.readouterr().err.count(f"WARNING: {found[0]}. Lower optimizer.lr") == 1
    page = (run.folder / "report.html").read_text()
    assert ">diverged</span>" in page
    assert found[0] in page


def test_a_run_without_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*TINY_IMAGES, "test=False", "tags=[baseline]")
    assert run.results["status"] == "finished"
    assert not any(key.startswith("test/") for key in run.results)
    assert not (run.folder / "scores.json").exists()
    assert f"skipped (test=false); later: python -m arclight evaluate {run.folder}" in " ".join(capsys.readouterr().out.split())
    assert "not tested: test=false" in (run.folder / "train.log").read_text()
    assert (run.config["test"], run.config["tags"]) == (False, ["baseline"])
    assert "accuracy" in evaluation.evaluate(str(run.folder), {}).metrics


def test_a_seed_that_is_drawn_is_recorded_and_repeats_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*TINY_IMAGES, "test=false", "seed=null"]
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "fit", lambda components, results, ckpt_path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(*overrides)
    (folder,) = Path("outputs").glob("*/*")
    seed = Run(folder).config["seed"]
    run = train(*overrides, "resume=auto")
    assert run.folder == folder
    assert run.config["seed"] == run.results["seed"] == seed
    again = train(*overrides[:-1], f"seed={seed}")
    assert again.folder != folder
    assert again.results["val/loss"] == run.results["val/loss"]


def test_callbacks_and_checkpoints_of_other_templates(capfd: pytest.CaptureFixture[str]) -> None:
    run = train(*TINY_IMAGES, "test=false", "callbacks=default", "callbacks.model_checkpoint.save_top_k=2")
    assert "Total params" in capfd.readouterr().out
    assert len(list((run.folder / "checkpoints").glob("best-epoch_*-step_*.ckpt"))) == 2


@pytest.mark.parametrize("overrides", [TINY_IMAGES, TINY_TEXT])
def test_two_equal_runs_give_equal_weights(overrides: list[str]) -> None:
    first, second, third = train(*overrides), train(*overrides), train(*overrides, "seed=1")
    weights = [torch.cat([p.flatten() for p in run.model.net.parameters()]) for run in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    timeless = [{k: v for k, v in run.results.items() if k.startswith(("val/", "test/"))} for run in (first, second)]
    assert timeless[0] == timeless[1]
    assert first.folder != second.folder


@pytest.mark.parametrize(
    "overrides", [[*TINY_IMAGES, "model=cnn", "model.hidden=8", "model.dropout=0.0"], [*TINY_TEXT, "model.dropout=0.0"]]
)
def test_accumulated_micro_batches_train_like_one_batch(overrides: list[str]) -> None:
    whole, parts = train(*overrides), train(*overrides, "data.max_batch_per_device=4")
    assert parts.results["steps"] == whole.results["steps"]
    for name, weight in whole.model.net.named_parameters():
        torch.testing.assert_close(dict(parts.model.net.named_parameters())[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["null", "value"])
def test_bf16_clips_with_the_fused_update(algorithm: str) -> None:
    clip = [
        "trainer.gradient_clip_val=1e-9",
        f"+trainer.gradient_clip_algorithm={algorithm}",
        "optimizer=sgd",
        "optimizer.lr=1",
    ]
    run = train(*TINY_IMAGES, *clip, "precision=bf16")
    before = arclight.run([*TINY_IMAGES, "optimizer=sgd", "optimizer.lr=0", "precision=fp32", "trainer.max_epochs=1"])
    for name, weight in run.model.net.named_parameters():
        torch.testing.assert_close(weight, dict(before.model.net.named_parameters())[name], rtol=0, atol=1e-2)


@pytest.mark.parametrize("overrides", [TINY_IMAGES, TINY_TEXT])
def test_overfitting_sees_the_same_batches_in_every_epoch(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    real = Throughput.on_train_batch_end

    def watch(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        seen.append(batch.indices.tolist())
        real(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Throughput, "on_train_batch_end", watch)
    batch_size = ["data.batch_size=8"]
    arclight.run(["debug=overfit", *overrides, *batch_size, "trainer.max_epochs=3", "precision=fp32"])
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert seen[0] != seen[1]


def test_the_test_split_is_not_touched_by_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from project.data.synthetic_images import SyntheticImages

    loaded: list[str] = []
    real = SyntheticImages.load
    monkeypatch.setattr(SyntheticImages, "load", lambda self, part: (loaded.append(part), real(self, part)))
    fit = experiment.fit

    def watch(parts: Any, results: Any, begin: Any) -> None:
        fit(parts, results, begin)
        assert loaded == ["fit"]

    monkeypatch.setattr(experiment, "fit", watch)
    train(*TINY_IMAGES)
    assert loaded == ["fit", "test"]


def test_a_run_is_evaluated_again_to_the_same_scores() -> None:
    run = train(*TINY_IMAGES)
    scores = evaluation.evaluate(str(run.folder), {}, folder=run.folder / "evaluations" / "now")
    written = [folder / "predictions.jsonl" for folder in (run.folder, run.folder / "evaluations" / "now")]
    assert written[0].read_text() == written[1].read_text()
    assert {f"test/{name}": value for name, value in scores.metrics.items()} == pytest.approx(
        {name: value for name, value in run.results.items() if name.startswith("test/") and name.count("/") == 1}
    )
    assert evaluation.evaluate(str(run.folder), {}, split="val").metrics["accuracy"] == pytest.approx(
        run.results["val/accuracy"]
    )


@pytest.mark.parametrize("strategy", ["fsdp", "ddp", "ddp_find_unused_parameters_true"])
def test_a_run_of_many_processes_is_evaluated_in_one(strategy: str) -> None:
    run = train(*TINY_IMAGES)
    best = run.folder / "checkpoints" / "best.ckpt"
    contents = torch.load(best, weights_only=True)
    contents["arclight"]["settings"]["trainer"] |= {"strategy": strategy, "devices": 2, "num_nodes": 2}
    torch.save(contents, best)
    assert evaluation.evaluate(str(run.folder), {}).metrics["accuracy"] == run.results["test/accuracy"]


def test_other_data_can_be_evaluated() -> None:
    run = train(*TINY_IMAGES)
    assert sum(map(sum, evaluation.evaluate(str(run.folder), {"num_test": 17}).counts)) == 17


def test_the_status_of_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(experiment, "test", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        train(*TINY_IMAGES)
    (folder,) = Path("outputs/synthetic_images-small_cnn").iterdir()
    assert json.loads((folder / "results.json").read_text())["status"] == "failed"
    assert "the disk is on fire" in (folder / "train.log").read_text()
    assert (folder / "report.html").is_file()


def test_the_status_of_an_interrupted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "test", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(*TINY_IMAGES)
    (folder,) = Path("outputs/synthetic_images-small_cnn").iterdir()
    assert json.loads((folder / "results.json").read_text())["status"] == "interrupted"


def test_a_report_that_fails_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(experiment, "write_report", fail)
    run = train(*TINY_IMAGES)
    assert run.results["status"] == "finished"
    assert "no fonts" in (run.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.batch_size=65"], "data.batch_size=65 is larger than the training split of 64 samples; take data.batch_size=64"),
        (["data.batch_size=0"], "data.batch_size=0 must be 1 or more"),
        (["data.batch_size=many"], "data.batch_size='many' must be a whole number"),
        (["module.label_smoothing=1.5"], "module.label_smoothing=1.5 must be 0 or more and below 1"),
        (["optimizer.lr=-1"], "optimizer.lr=-1 must be a finite number of 0 or more"),
        (["+trainer.max_epoch=3"], r"trainer.max_epoch: Trainer takes no 'max_epoch'. Did you mean 'max_epochs'\?"),
        (["callbacks.early_stopping=7"], "callbacks.early_stopping=7 must hold a _target_"),
        (["+logger.wandb=1"], "logger.wandb=1 must hold a _target_"),
        (["seed=-1"], "seed=-1 must be a whole number from 0 to 4294967295"),
        (["seed=abc"], "seed=abc must be a whole number"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs='abc' must be a"),
        (["optimizer.lr=abc"], "optimizer.lr='abc' must be a"),
        (
            ["+data.roott=x", "+model.width=3"],
            r"(?s)data.roott: SyntheticImages takes no 'roott'.*model.width: Cnn takes no 'width'",
        ),
        (["trainer=gpu"], "trainer.accelerator=gpu: torch finds no GPU on this machine"),
    ],
)
def test_an_input_error_is_reported_and_leaves_nothing_behind(overrides: list[str], message: str) -> None:
    if "trainer=gpu" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=message):
        arclight.run([*TINY_IMAGES, *overrides])
    assert not Path("outputs/synthetic_images-small_cnn").exists()


def test_a_refused_resume_leaves_the_run_unchanged(bert_folder: Path) -> None:
    made = train(*TINY_TEXT)
    files = [file for file in made.folder.iterdir() if file.is_file() and file.name != "train.log"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    changed = [*TINY_TEXT, f"model.checkpoint={bert_folder}", "+data.max_length=64"]
    with pytest.raises(InputError, match="holds weights of a different net"):
        train(*changed, f"resume={made.folder}", "resume_with_changes=true")
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
