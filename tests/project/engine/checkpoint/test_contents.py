"""A model is rebuilt from its checkpoint alone, and a wrong file is reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

import arclight
from arclight.checkpoint.contents import (
    CheckpointContents,
    accepted,
    build_module,
    check_fits,
    find_checkpoint,
    newest_intact,
    restore,
    steps_done,
)
from arclight.checkpoint.metadata import metadata_of
from arclight.errors import InputError

TINY_IMAGES = [
    "experiment=demo",
    "data.num_train=64",
    "data.num_val=32",
    "data.num_test=32",
    "data.batch_size=16",
    "model=small_cnn",
]
TINY_TEXT = [
    "experiment=demo_tagger",
    "data.num_train=32",
    "data.num_val=16",
    "data.num_test=16",
    "model.num_hidden_layers=1",
    "model.hidden_size=16",
]


@pytest.fixture(scope="module", params=["images", "text"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("run")
    before = Path.cwd()
    os.chdir(folder)
    try:
        overrides = TINY_IMAGES if request.param == "images" else TINY_TEXT
        made = arclight.run([*overrides, "trainer.max_epochs=1", "precision=fp32"])
        yield made, folder / made.folder
    finally:
        os.chdir(before)


def test_the_model_is_rebuilt_from_the_file_alone(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = run
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("arclight.config.locations.CONF", tmp_path / "gone")
    restored = restore(folder)
    assert restored.data_info == made.model.data_info
    assert restored.path == folder / "checkpoints" / "best.ckpt"
    assert not restored.module.training
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, restored.module.state_dict()[name]), name


def test_checkpoints_hold_plain_data_only(run: Any) -> None:
    _, folder = run
    for name in ("best", "last"):
        contents = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert contents["arclight"]["version"] == 2
        assert contents["epoch"] == 0


def test_a_run_is_found_by_directory_by_file_and_as_latest(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = run
    best = folder / "checkpoints" / "best.ckpt"
    assert find_checkpoint(folder) == best
    assert find_checkpoint(best) == best
    assert find_checkpoint("latest", outputs=folder.parent.parent).parent == best.parent


def test_without_a_best_checkpoint_the_last_is_found(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert find_checkpoint(tmp_path).name == "last.ckpt"


def test_a_directory_is_a_checkpoint_once_its_save_has_finished(tmp_path: Path) -> None:
    best, last = (tmp_path / "runs" / "run" / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    best.mkdir(parents=True)
    (best / "ab-00000-of-00001.safetensors").touch()
    with pytest.raises(InputError, match="best.ckpt is an incomplete checkpoint: contents.pt is missing"):
        find_checkpoint(best)
    with pytest.raises(InputError, match="no epoch of this run has finished"):
        find_checkpoint(tmp_path / "runs" / "run")
    with pytest.raises(InputError, match="holds no run with a checkpoint"):
        find_checkpoint("latest", outputs=tmp_path)
    last.mkdir()
    (last / "contents.pt").touch()
    assert (
        find_checkpoint(last)
        == find_checkpoint(tmp_path / "runs" / "run")
        == find_checkpoint("latest", outputs=tmp_path)
        == last
    )
    (best / "contents.pt").touch()
    assert find_checkpoint(tmp_path / "runs" / "run") == best


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such run directory or checkpoint"),
        (lambda path: path.mkdir(), "no epoch of this run has finished"),
        (lambda path: path.write_bytes(b"no checkpoint"), "cannot be read as a checkpoint"),
        (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
        (lambda path: torch.save({"state_dict": {}}, path), "is not a checkpoint of arclight"),
        (lambda path: torch.save([1], path), "is not a checkpoint of arclight"),
        (
            lambda path: torch.save({"arclight": {"version": 99}}, path),
            "has checkpoint version 99; this arclight reads version 2",
        ),
        (
            lambda path: torch.save({"arclight": {"version": 0, "settings": {}}}, path),
            "has checkpoint version 0; this arclight reads version 2",
        ),
        (lambda path: torch.save({"arclight": {"settings": {}}}, path), "is not a checkpoint of arclight"),
        (
            lambda path: torch.save({"arclight": {"version": 2, "settings": {}, "options": {}}}, path),
            "is an incomplete or corrupt checkpoint: data_info and blueprint missing",
        ),
        (lambda path: torch.save(os.system, path), "cannot be read as a checkpoint"),
    ],
)
def test_a_wrong_run_is_reported(make: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(InputError, match=message):
        restore(path)


def test_no_latest_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run with a checkpoint; train one with `python train.py`"):
        find_checkpoint("latest", outputs=tmp_path)


def test_model_and_data_of_different_tasks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError,
        match=r"model and data are of different tasks.*for this data take .*model=cnn.*for this model take data=conll2003",
    ):
        arclight.run(["experiment=demo", "model=bert_tagger", "model.checkpoint=null"])
    with pytest.raises(
        InputError,
        match=r"model and data are of different tasks.*for this data take model=bert_tagger; for this model take data=cifar10",
    ):
        arclight.run(["experiment=demo_tagger", "model=cnn"])
    assert not list(tmp_path.glob("outputs/*/*"))


def test_channels_last_of_the_plan_goes_to_a_module_that_accepts_it(run: Any) -> None:
    made, folder = run
    settings = restore(folder).settings
    for channels_last in (True, False):
        module = build_module(
            settings, made.model.data_info, blueprint=getattr(made.model.net, "blueprint", {}), channels_last=channels_last
        )
        if hasattr(module, "memory_format"):
            assert module.memory_format is (torch.channels_last if channels_last else torch.contiguous_format)
    set_twice = {**settings, "module": {**settings["module"], "channels_last": True}}
    with pytest.raises(InputError, match="set hardware.channels_last instead"):
        build_module(set_twice, made.model.data_info, channels_last=True)


def leave_checkpoints(folder: Path, *, version: int = 2) -> tuple[Path, Path]:
    (folder / "checkpoints").mkdir(parents=True)
    paths = folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "last.previous.ckpt"
    for steps, path in zip((8, 6), paths, strict=True):
        ours = {"version": version, "settings": {}, "options": {}, "data_info": {}, "blueprint": {}}
        torch.save({"arclight": ours, "global_step": steps, "weight": torch.arange(64.0)}, path)
    return paths


def test_a_new_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_intact(tmp_path) is None
    assert steps_done(None) == 0


@pytest.mark.parametrize("keep", [0, 1000], ids=["empty", "truncated"])
def test_a_run_resumes_from_the_newest_intact_checkpoint(keep: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last, previous = leave_checkpoints(tmp_path)
    assert newest_intact(tmp_path) == last
    last.write_bytes(last.read_bytes()[:keep])
    assert newest_intact(tmp_path) == previous
    assert f"{last} cannot be read as a checkpoint" in caplog.text
    assert f"resuming from {previous}" in caplog.text
    assert steps_done(previous) == 6
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt.damaged", "last.previous.ckpt"}
    previous.write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)last.previous.ckpt cannot be read .* it is empty.*no intact checkpoint is left"):
        newest_intact(tmp_path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    leave_checkpoints(tmp_path, version=99)
    with pytest.raises(InputError, match="last.ckpt has checkpoint version 99; this arclight reads version 2"):
        newest_intact(tmp_path)


def test_weights_of_a_different_net_are_reported(run: Any, tmp_path: Path) -> None:
    made, folder = run
    check_fits(made.model, folder / "checkpoints" / "last.ckpt")
    other = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(iter(other["state_dict"]))
    other["state_dict"][name] = torch.zeros(1, 2)
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=rf"(?s)holds weights of a different net, 1 of .* differ .*{name}: \(1, 2\) -> "):
        check_fits(made.model, tmp_path / "other.ckpt")


def test_any_lightning_module_can_be_saved() -> None:
    checkpoint: dict[str, Any] = {}
    settings = {"seed": 1, **{key: {} for key in ("data", "model", "optimizer", "scheduler", "trainer")}}
    CheckpointContents(settings, "data", "model").on_save_checkpoint(None, LightningModule(), checkpoint)  # type: ignore[arg-type]
    metadata = metadata_of(checkpoint, Path("last.ckpt"))
    assert (metadata["data_info"], metadata["blueprint"], metadata["settings"]) == (None, {}, settings)


def test_constructors_get_the_objects_that_they_accept() -> None:
    offers = {"in_features": 3, "bias": None, "data_info": "unknown to it"}
    assert accepted({"_target_": "torch.nn.Linear"}, "model", offers) == {"in_features": 3}
