"""Wrong inputs of every kind: the message names the place, the value and what to type, and nothing on disk is damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from arclight.__main__ import main
from arclight.config.compose import compose, report_errors
from arclight.config.locations import CONF
from arclight.launch import launcher
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES, TINY_TEXT

IMAGES = [*TINY_IMAGES, "precision=fp32", "logger=none"]
TEXT = [*TINY_TEXT, "precision=fp32", "logger=none"]
CIFAR = ["data.root=cifar", "model=small_cnn", "data.validation=20", "data.batch_size=16", "precision=fp32", "logger=none"]
COLUMNS = [
    *("data=conll_files", "data.root=conll", "data.train=eng.train", "data.validation=eng.testa", "data.test=eng.testb"),
    *("model=bert_tagger", "model.checkpoint=null", "data.batch_size=4", "precision=fp32", "logger=none"),
]
PICTURES = ["data=image_folder", "data.root=pictures", "model=small_cnn", "data.image_size=8", "precision=fp32", "logger=none"]

# what is typed after `python train.py`, and words of the message: the place, the value, what to type
ALONE = [
    (["modl=cnn"], ["modl=cnn", "Did you mean 'model'?", "python train.py model=cnn"]),
    (["data=cifar11"], ["data=cifar11", "conf/data/", "Did you mean 'cifar10'?", "python train.py data=cifar10"]),
    (["experment=dmeo"], ["Did you mean 'experiment=demo'?", "Try: python train.py experiment=demo"]),
    (["demo"], ["demo: this is not an override", "KEY=VALUE", "Did you mean 'experiment=demo'?"]),
    (["optimizer.lrr=1"], ["optimizer.lrr=1", "Did you mean 'lr'?", "python train.py optimizer.lr=1"]),
    (["+data.splitseed=1"], ["data.splitseed", "Did you mean 'split_seed'?", "python train.py +data.split_seed=1"]),
    (["+trainer.max_epoch=3"], ["trainer.max_epoch", "Did you mean 'max_epochs'?", "python train.py trainer.max_epochs=3"]),
    (["+nonsense=1"], ["nonsense", "the config has no key", "set by +nonsense=1"]),
    (["data.root='open"], ["data.root='open: Hydra cannot read the value", "must be quoted"]),
    (["data=image_folder"], ["data.root must be given", "add data.root=..."]),
    (["preflight=ful"], ["preflight=ful", "quick, full, none"]),
]
# these are typed together, as many as have no key in common
NAMES = [
    (["experiment=dmeo"], ["conf/experiment/ has no dmeo.yaml", "Did you mean 'demo'?"]),
    (["optimizer=sdg"], ["optimizer=sdg", "Did you mean 'sgd'?"]),
    (["optimizer=zebra"], ["conf/optimizer/ has no zebra.yaml", "Known: adam, adamw, muon, sgd"]),
    (["logger=[csv,wandbb]"], ["conf/logger/ has no wandbb.yaml", "Did you mean 'wandb'?"]),
    (["strategy=dpp"], ["strategy=dpp", "Did you mean 'ddp'?"]),
    (["precision=bf17"], ["precision=bf17", "Did you mean 'bf16'?"]),
    (["sede=3"], ["sede=3", "Did you mean 'seed'?"]),
    (["data.augment.corp=2"], ["data.augment.corp=2", "Did you mean 'crop'?"]),
    (["optimizre.lr=1"], ["optimizre", "Did you mean 'optimizer.lr'?"]),
    (["data.split_seed=1"], ["data.split_seed=1", "Did you mean '+data.split_seed'?"]),
    (["hparams_search=mnist_optuna"], ["hparams_search=mnist_optuna: a search is a multirun here", "python train.py -m"]),
    (["~callbacks.early_stoping"], ["~callbacks.early_stoping", "Did you mean 'early_stopping'?"]),
    (["optimizer.lr.x=1"], ["optimizer.lr is 0.001", "holds no keys"]),
    (["seed=${nothing.here}"], ["seed=${nothing.here}", "not found", "name a key that is there"]),
]
VALUES = [
    (["seed=-1"], ["seed=-1", "0 to 4294967295"]),
    (["seed=1.5"], ["seed=1.5", "whole number"]),
    (["test=maybe"], ["test=maybe must be true or false"]),
    (["tags=baseline"], ["tags=baseline must be a list: tags=[baseline]"]),
    (["tags=['']"], ["must be a list of texts of 1 to 64 characters"]),
    (["checkpoint.save_top_k=0"], ["checkpoint.save_top_k=0", "1 or more, or -1"]),
    (["checkpoint.save_top_k=two"], ["checkpoint.save_top_k='two'", "whole number"]),
    (["optimizer.lr=fast"], ["optimizer.lr='fast'", "must be a number", "set by optimizer.lr=fast"]),
    (["optimizer.lr='0.1'"], ["optimizer.lr='0.1'", "must be a number"]),
    (["optimizer.lr=-1"], ["optimizer.lr=-1", "0 or more"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    (["optimizer.weight_decay=-1"], ["optimizer.weight_decay=-1", "0 or more"]),
    (["+optimizer.betas=[0.9,1.5]"], ["optimizer", "1.5"]),
    (["optimizer=sgd", "optimizer.momentum=0"], ["optimizer", "momentum"]),
    (["optimizer=muon", "optimizer.momentum=1"], ["optimizer.momentum=1", "below 1"]),
    (["optimizer=muon", "optimizer.weight_decay=0.1"], ["optimizer.weight_decay=0.1", "optimizer.normalize=true"]),
    (["scheduler=one_cycle", "scheduler.warmup_fraction=2"], ["scheduler.warmup_fraction=2", "between 0 and 1"]),
    (["scheduler=steps", "scheduler.milestones=[0.5,7]"], ["scheduler.milestones", "7", "between 0 and 1"]),
    (["data.batch_size=0"], ["data.batch_size=0", "1 or more"]),
    (["data.batch_size=many"], ["data.batch_size='many'", "whole number"]),
    (["data.batch_size=16.0"], ["data.batch_size=16.0", "whole number"]),
    (["data.batch_size=true"], ["data.batch_size=True", "whole number"]),
    (["data.max_batch_per_device=0"], ["data.max_batch_per_device=0", "1 or more"]),
    (["data.num_train=-3"], ["data.num_train=-3", "or more"]),
    (["data.augment.flip=alternatin"], ["data.augment.flip='alternatin'", "Did you mean 'alternating'?"]),
    (["data.augment.crop=-1"], ["crop=-1", "0 (off) or more"]),
    (["data._target_=project.data.Nowhere"], ["data", "project.data.Nowhere", "names nothing that can be imported"]),
    (["model.widths=[0]"], ["model.widths=[0]", "each 1 or more"]),
    (["model.widths=wide"], ["model.widths='wide'", "a list"]),
    (["model=cnn", "model.dropout=1.5"], ["model.dropout=1.5", "below 1"]),
    (["module.label_smoothing=1.5"], ["module.label_smoothing=1.5", "below 1"]),
    (["module.lr_rule=linnear"], ["module.lr_rule='linnear'", "Did you mean 'linear'?"]),
    (["module.lr_rule=linear"], ["module.lr_rule=linear", "needs module.lr_batch_size"]),
    (["module.test_time_augmentation=flop"], ["module.test_time_augmentation='flop'", "Did you mean 'flip'?"]),
    (["trainer.max_epochs=-3"], ["trainer.max_epochs=-3", "-1 or more"]),
    (["trainer.max_epochs=-1"], ["trainer.max_epochs=-1", "needs to know the end"]),
    (["trainer.max_time=soon"], ["trainer.max_time=soon", "DD:HH:MM:SS"]),
    (["trainer.limit_val_batches=1.5"], ["trainer.limit_val_batches=1.5", "a fraction from 0.0 to 1.0"]),
    (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "0 or more"]),
    (["+trainer.gradient_clip_algorithm=nrm"], ["trainer.gradient_clip_algorithm=nrm", "norm or value"]),
    (["trainer.accelerator=gpuu"], ["trainer.accelerator=gpuu", "Did you mean 'gpu'?"]),
    (["trainer.precision=bf17-mixed"], ["trainer.precision=bf17-mixed", "Did you mean 'bf16-mixed'?"]),
    (["trainer.strategy=dpp"], ["trainer.strategy=dpp", "Did you mean 'ddp'?"]),
    (["trainer.devices=zero"], ["trainer.devices=zero", "neither a number"]),
    (["trainer.devices=0"], ["trainer.devices=0", "1 or more"]),
    (["hardware.threads=0"], ["hardware.threads=0", "1 or more, or auto"]),
    (["hardware.timeout_s=-5"], ["hardware.timeout_s=-5", "above 0"]),
    (["+hardware.thread=2"], ["hardware.thread", "Did you mean 'threads'?"]),
    (["callbacks.early_stopping=7"], ["callbacks.early_stopping=7", "must hold a _target_", "~callbacks.early_stopping"]),
    (["callbacks.early_stopping.patience=x"], ["callbacks.early_stopping.patience='x'", "whole number"]),
    (["+callbacks.early_stopping.monitor=val/acuracy"], ["monitor=val/acuracy", "Did you mean 'val/accuracy'?"]),
    (["callbacks=weight_averaging", "callbacks.weight_averaging.decay=2"], ["callbacks.weight_averaging", "decay"]),
    (["checkpoint.every_minutes=0"], ["checkpoint.every_minutes=0", "more than 0"]),
    (["checkpoint.every_steps=0"], ["checkpoint.every_steps=0", "1 or more"]),
    (["checkpoint.safetensors=maybe"], ["checkpoint.safetensors='maybe'", "true or false"]),
    (["logger=wandb", "logger.wandb.mode=onlin"], ["logger.wandb.mode='onlin'", "Did you mean 'online'?"]),
    (["logger=wandb", "logger.wandb.project=a/b"], ["logger.wandb.project=a/b", "128 characters"]),
]
TEXT_VALUES = [
    (["data.packing=bucket"], ["data.packing='bucket'", "Did you mean 'buckets'?"]),
    (["data.packing=rows", "data.tokens_per_row=16"], ["data.tokens_per_row=16", "set data.tokens_per_row=128 or more"]),
    (["+data.max_length=2"], ["data.max_length=2", "3 or more"]),
    (["+data.vocab_size=5"], ["data.vocab_size=5", "or more"]),
    (["model.dropout=-1"], ["model.dropout=-1", "at least 0 and below 1"]),
    (["model.hidden_size=127"], ["model.hidden_size=127", "model.num_attention_heads=2"]),
    (["module.layer_decay=0"], ["module.layer_decay=0", "above 0"]),
    (["model.checkpoint=/nowhere/at/all"], ["model.checkpoint=/nowhere/at/all", "no such directory", "save_pretrained()"]),
    (["data.tokenizer=./nowhere"], ["data.tokenizer=./nowhere", "no such directory"]),
]
TOGETHER = [
    ([*IMAGES, "data.batch_size=65"], ["data.batch_size=65", "64 samples", "take data.batch_size=64 or less"]),
    ([*IMAGES, "data.augment.crop=400"], ["data.augment.crop=400", "smaller than the images"]),
    ([*IMAGES, "precision=fp16"], ["trainer.precision=16-mixed", "CPUs do not train in fp16", "chosen by precision=fp16"]),
    ([*IMAGES, "precision=tf32", "hardware.threads=0"], ["2 errors", "hardware.matmul_precision=high", "hardware.threads=0"]),
    ([*IMAGES, "trainer=gpu"], ["trainer.accelerator=gpu", "no GPU", "trainer=cpu"]),
    ([*IMAGES, "trainer.sync_batchnorm=true"], ["trainer.sync_batchnorm=true", "NVIDIA GPUs"]),
    ([*IMAGES, "strategy=ddp_cpu", "trainer.devices=3"], ["data.batch_size=16", "3 processes", "15 or 18"]),
    (
        [*IMAGES, "trainer.accumulate_grad_batches=3"],
        ["data.batch_size=16", "trainer.accumulate_grad_batches=3", "leave the latter"],
    ),
    (
        [
            *IMAGES,
            "optimizer=muon",
            "strategy=fsdp",
            "trainer=cpu",
            "trainer.devices=2",
            "data.batch_size=15",
            "optimizer.lr=x",
        ],
        ["3 errors", "data.batch_size=15", "optimizer.lr='x'", "optimizer=muon", "take strategy=ddp, or optimizer=sgd"],
    ),
    (["experiment=demo", "model=bert_tagger", "model.checkpoint=null"], ["different tasks", "model=cnn", "data=conll2003"]),
    (["experiment=demo_tagger", "model=cnn"], ["different tasks", "model=bert_tagger", "data=cifar10"]),
    ([*IMAGES, "trainer.num_nodes=2"], ["trainer.num_nodes=2", "MASTER_ADDR"]),
]


def cut_short(folder: Path) -> None:
    file = folder / "cifar" / "cifar-10-batches-bin" / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-5])


def other_labels(folder: Path) -> None:
    file = folder / "cifar" / "cifar-10-batches-bin" / "data_batch_2.bin"
    file.write_bytes(b"\x63" + file.read_bytes()[1:])


def no_archive(folder: Path) -> None:
    (folder / "cifar.tar.gz").write_bytes(b"no archive")


def lost_file(folder: Path) -> None:
    (folder / "cifar" / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()


def words(text: str) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        (folder / "conll" / "eng.testa").write_text(text)

    return arrange


def no_picture(folder: Path) -> None:
    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(10):
            (folder / "pictures" / label / f"{number}.png").write_bytes(b"no picture")


def no_classes(folder: Path) -> None:
    (folder / "pictures").mkdir()


def outputs_is_a_file(folder: Path) -> None:
    (folder / "outputs").write_text("")


def empty_encoder(folder: Path) -> None:
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text("{}")


def nothing(folder: Path) -> None: ...


FILES = [
    (CIFAR, cut_short, ["cifar-10-batches-bin", "test_batch.bin", "not a multiple of 3073", "Delete it"]),
    (CIFAR, other_labels, ["data_batch_2.bin", "label 99 in record 0", "0 to 9"]),
    (CIFAR, lost_file, ["data_batch_3.bin is missing", "Delete it"]),
    ([*CIFAR, "data.root=cifar.tar.gz"], no_archive, ["cifar.tar.gz", "incomplete or corrupt archive", "replace it"]),
    ([*CIFAR, "data.validation=500"], nothing, ["data.validation=500", "1 to 199"]),
    ([*CIFAR, "data.root=cifr", "+data.download=false"], nothing, ["data.root=cifr", "no such directory"]),
    (COLUMNS, words("EU B-ORG\nrejects\n"), ["eng.testa", "2", "rejects"]),
    (COLUMNS, words("EU B-ORG\nrejects X-Y\n"), ["eng.testa", "X-Y"]),
    (COLUMNS, words("EU B-SHIP\n\n"), ["SHIP", "eng.testa"]),
    (COLUMNS, words(""), ["eng.testa"]),
    ([*COLUMNS, "data.train=eng.trian"], nothing, ["data.train=eng.trian", "Did you mean 'eng.train'?"]),
    ([*COLUMNS, "data.root=conl"], nothing, ["data.root=conl", "no such directory", "Did you mean 'conll'?"]),
    ([*COLUMNS, "data.tag_column=9"], nothing, ["eng.train", "9"]),
    ([*COLUMNS, "data.separator=''"], nothing, ["data.separator=''", "null"]),
    ([*COLUMNS, "model.checkpoint=encoder"], empty_encoder, ["model.checkpoint=encoder", "model.safetensors", "hf download"]),
    (PICTURES, no_picture, ["pictures", ".png: not a readable image", "fix or delete them"]),
    (PICTURES, no_classes, ["data.root=pictures", "<root>/<class>/*"]),
    (IMAGES, outputs_is_a_file, ["outputs/", "cannot be written", "Not a directory"]),
]


def damaged(content: bytes | None) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        for file in (folder / "run" / "checkpoints").glob("*.ckpt"):
            if content is None:
                whole = bytearray(file.read_bytes())
                whole[len(whole) // 2] ^= 255
                file.write_bytes(whole)
            else:
                file.write_bytes(content)

    return arrange


def other_version(folder: Path) -> None:
    for file in (folder / "run" / "checkpoints").glob("*.ckpt"):
        contents = torch.load(file, weights_only=True)
        contents["arclight"]["version"] = 99
        torch.save(contents, file)


def foreign(folder: Path) -> None:
    for file in (folder / "run" / "checkpoints").glob("*.ckpt"):
        torch.save({"state_dict": {}}, file)


def hostile(folder: Path) -> None:
    for file in (folder / "run" / "checkpoints").glob("*.ckpt"):
        torch.save({"state_dict": Runs()}, file)


class Runs:
    """What a pickle of it would run when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was_run",)


GOES_ON = ["resume=run", "resume_with_changes=true", "trainer.max_epochs=2"]
RUNS = [
    (["resume=nowhere"], nothing, ["nowhere is not a run directory", "see outputs/"]),
    (["resume=latest"], nothing, ["latest", "holds no run", "python train.py"]),
    (["resume=run"], nothing, ["resume=run", "that run is finished", "trainer.max_epochs=... resume_with_changes=true"]),
    (["resume=run", "seed=7"], nothing, ["resume=run", "seed: 0 -> 7", "resume_with_changes=true"]),
    (GOES_ON, damaged(None), ["last.ckpt cannot be read as a checkpoint", "start a new run without resume"]),
    (GOES_ON, damaged(b""), ["last.ckpt cannot be read as a checkpoint: it is empty", "no intact checkpoint is left"]),
    (GOES_ON, other_version, ["last.ckpt has checkpoint version 99", "reads version 2", "with the arclight that wrote it"]),
    (GOES_ON, foreign, ["last.ckpt is not a checkpoint of arclight"]),
    (GOES_ON, hostile, ["last.ckpt cannot be read as a checkpoint"]),
    ([*GOES_ON, "model.widths=[8]"], nothing, ["holds weights of a different net", "without resume"]),
    (
        [*GOES_ON, "model=resnet18", "optimizer.lr=x"],
        nothing,
        ["holds the weights of Cnn, not of ResNet18", "optimizer.lr='x'"],
    ),
]
VERBS = [
    (["evaluate", "nowhere"], nothing, ["nowhere: no such run directory or checkpoint"]),
    (["evaluate", "latest"], nothing, ["latest", "holds no run with a checkpoint"]),
    (["evaluate", "run"], damaged(b""), ["best.ckpt cannot be read as a checkpoint: it is empty"]),
    (["evaluate", "run"], damaged(None), ["best.ckpt cannot be read as a checkpoint"]),
    (["evaluate", "run"], hostile, ["best.ckpt cannot be read as a checkpoint"]),
    (["evaluate", "run", "data.num_tset=8"], nothing, ["data.num_tset", "Did you mean 'num_test'?"]),
    (["evaluate", "run", "seed=3"], nothing, ["seed=3", "data.KEY=VALUE"]),
    (["report", "nowhere"], nothing, ["nowhere is not a run directory", "`latest`, the newest one"]),
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    os.chdir(folder)
    try:
        return folder / launcher.run(compose([*IMAGES, "trainer.max_epochs=1"])).folder
    finally:
        os.chdir(before)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cifar_folder: Path, conll_folder: Path, run_dir: Path
) -> Iterator[Path]:
    """A working folder with data of both tasks and a run, which must stay as it is."""
    for name, source in (("cifar", cifar_folder), ("conll", conll_folder), ("run", run_dir)):
        shutil.copytree(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for name in ("HYDRA_FULL_ERROR", "ARCLIGHT_DEBUG"):
        monkeypatch.setenv(name, "0")  # what is set inside goes away with it
    conf = contents_of(CONF)
    yield tmp_path
    assert contents_of(CONF) == conf


def contents_of(folder: Path) -> dict[str, str]:
    """The files of a folder by what they hold."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def message_of(act: Callable[[], Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what stderr shows when an error ends the program; the directory is then as before."""
    before = contents_of(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended, report_errors():
        act()
    assert ended.value.code == 2
    after = contents_of(folder)
    assert after == before, sorted(set(after.items()) ^ set(before.items()))
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "error: " in message
    return message


def check_words(message: str, wanted: list[str]) -> None:
    lacking = [word for word in wanted if word not in message]
    assert not lacking, f"{lacking} not in: {message}"


def case(value: Any) -> str:
    return "_".join(value[-2:]) if isinstance(value, list) else getattr(value, "__name__", "")


def together(table: list[tuple[list[str], list[str]]]) -> list[tuple[list[str], list[str]]]:
    """The rows in as few commands as can be: no two of a command touch the same node of the config."""
    commands: list[tuple[list[str], list[str], set[str]]] = []
    for overrides, wanted in table:
        touched = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
        for typed, words_wanted, nodes in commands:
            if not touched & nodes:
                typed += overrides
                words_wanted += wanted
                nodes |= touched
                break
        else:
            commands.append((list(overrides), list(wanted), touched))
    return [(typed, words_wanted) for typed, words_wanted, _ in commands]


SETTINGS = [
    *ALONE,
    *together(NAMES),
    *(([*IMAGES, *overrides], wanted) for overrides, wanted in together(VALUES)),
    *(([*TEXT, *overrides], wanted) for overrides, wanted in together(TEXT_VALUES)),
    *TOGETHER,
]


@pytest.mark.parametrize(("overrides", "wanted"), SETTINGS, ids=lambda value: case(value)[:60])
def test_settings(overrides: list[str], wanted: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available() and overrides[-1] in ("trainer=gpu", "precision=fp16", "trainer.sync_batchnorm=true"):
        pytest.skip("a GPU can do that")
    check_words(message_of(lambda: launcher.run(compose(overrides)), folder, capsys), wanted)


@pytest.mark.parametrize(("overrides", "arrange", "wanted"), FILES, ids=lambda value: case(value)[:60])
def test_files(
    overrides: list[str], arrange: Callable[[Path], None], wanted: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrange(folder)
    check_words(message_of(lambda: launcher.run(compose(overrides)), folder, capsys), wanted)


@pytest.mark.parametrize(("overrides", "arrange", "wanted"), RUNS, ids=lambda value: case(value)[:60])
def test_runs(
    overrides: list[str], arrange: Callable[[Path], None], wanted: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrange(folder)
    check_words(message_of(lambda: launcher.run(compose(overrides)), folder, capsys), wanted)
    assert not (folder / "was_run").exists()


@pytest.mark.parametrize(("arguments", "arrange", "wanted"), VERBS, ids=lambda value: case(value)[:60])
def test_verbs(
    arguments: list[str], arrange: Callable[[Path], None], wanted: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrange(folder)
    check_words(message_of(lambda: main(arguments), folder, capsys), wanted)
    assert not (folder / "was_run").exists()


def test_wandb_in_an_unknown_mode(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    message = message_of(lambda: launcher.run(compose([*IMAGES, "logger=wandb"])), folder, capsys)
    check_words(message, ["WANDB_MODE=sometimes", "online, offline", "unset WANDB_MODE"])


def test_a_disk_without_room(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    message = message_of(lambda: launcher.run(compose(IMAGES)), folder, capsys)
    check_words(message, ["0 MB free", "free some space"])


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, (ALONE, NAMES, VALUES, TEXT_VALUES, TOGETHER, FILES, RUNS, VERBS))) >= 120


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["modl=cnn", "optimizer.lrr=1", "data=cifar11"], "python train.py model=cnn optimizer.lr=1 data=cifar10"),
        (["data=image_folder"], "add data.root=... to the command"),
        (["experiment=demo", "+data.num_tran=3"], "python train.py experiment=demo data.num_train=3"),
    ],
)
def test_what_is_typed(arguments: list[str], wanted: str, tmp_path: Path) -> None:
    """The command itself: one message, its exit status, nothing left behind."""
    command = [sys.executable, str(CONF.parent / "train.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert wanted in ended.stderr
    assert "Traceback" not in ended.stderr
    assert contents_of(tmp_path) == {}
