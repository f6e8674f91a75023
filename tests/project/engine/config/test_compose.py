"""The config that a command line stands for, and what a wrong one is told."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from arclight.config import locations
from arclight.config.compose import RunConfig, compose, report_errors, with_overrides_of
from arclight.config.locations import unique_dir
from arclight.errors import InputError, ProcessError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_composition_is_a_function_of_the_overrides() -> None:
    first, second = compose(["seed=3", "optimizer.lr=0.5"]), compose(["seed=3", "optimizer.lr=0.5"])
    assert first.settings == second.settings
    assert first.settings["seed"] == 3
    assert first.settings["optimizer"]["lr"] == 0.5
    assert (first.data, first.model, first.overrides) == ("cifar10", "cnn", ("seed=3", "optimizer.lr=0.5"))


def test_composition_makes_no_folder(tmp_path: Path) -> None:
    assert compose([]).folder.parent == Path("outputs/cifar10-cnn")
    assert not (tmp_path / "outputs").exists()


def test_a_config_is_handed_over_whole() -> None:
    composed = compose(["seed=3", "logger=[csv,tensorboard]", "resume=auto"])
    assert RunConfig.from_json(composed.to_json()) == composed
    assert composed.resume == "auto"
    assert "resume" not in json.dumps(composed.settings)
    assert composed.overrides == ("seed=3", "logger=[csv,tensorboard]")


def test_a_run_that_is_gone_on_with_brings_its_overrides(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "overrides.txt").write_text("experiment=demo\ndata.num_train=64\nseed=3\n")
    for name in (run, run / "checkpoints" / "last.ckpt"):
        composed = compose([f"resume={name}", "seed=4"])
        assert (composed.data, composed.settings["data"]["num_train"], composed.settings["seed"]) == ("synthetic_images", 64, 4)
        assert composed.overrides == ("experiment=demo", "data.num_train=64", "seed=4")


def test_later_overrides_replace_those_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "overrides.txt").write_text("data=synthetic_images\nseed=1\n+a.b=1\n")
    assert with_overrides_of(str(tmp_path), ["seed=2", "data=cifar10"]) == ["+a.b=1", "seed=2", "data=cifar10"]


@pytest.mark.parametrize(
    "foreign",
    [
        "model._target_=os.system",
        "+callbacks.x={_target_: os.system}",
        "hydra.searchpath=[file:///elsewhere]",
        "hydra/launcher=theirs",
        "++hydra.callbacks={}",
    ],
)
def test_a_run_that_chooses_code_is_resumed_only_when_the_user_types_it(tmp_path: Path, foreign: str) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "overrides.txt").write_text(f"seed=1\n{foreign}\n")
    with pytest.raises(InputError, match=r"overrides\.txt chooses code to run.*; if you trust it, type it: python"):
        with_overrides_of(str(tmp_path), [])
    assert with_overrides_of(str(tmp_path), [foreign]) == ["seed=1", foreign]


def test_settings_are_plain_and_resolved() -> None:
    settings = compose(["experiment=conll2003_bert", "model.checkpoint=/somewhere"]).settings
    assert settings["data"]["tokenizer"] == "/somewhere"
    assert settings["name"] == "conll2003-bert_tagger"
    assert type(settings["data"]) is dict


def test_a_model_brings_its_task() -> None:
    assert compose([]).settings["module"]["_target_"].endswith("ImageClassifier")
    assert compose(["model=bert_tagger"]).settings["module"]["_target_"].endswith("TokenTagger")


def test_this_machines_own_settings_come_before_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    import shutil

    shutil.copytree(locations.CONF, conf)
    (conf / "local" / "default.yaml").write_text("# @package _global_\ndata:\n  root: /scratch\n  batch_size: 8\n")
    monkeypatch.setattr(locations, "CONF", conf)
    settings = compose(["data.batch_size=4"]).settings
    assert (settings["data"]["root"], settings["data"]["batch_size"]) == ("/scratch", 4)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.batchsize=3"], r"^data.batchsize=3: data has no key 'batchsize'. Did you mean 'batch_size'\?"),
        (["+data.batchsize=3"], r"data.batchsize: Cifar10 takes no 'batchsize'. Did you mean 'batch_size'\?"),
        (["data=image_folder"], r"^data.root must be given: add data.root=\.\.\. to the command$"),
    ],
)
def test_a_mistake_names_the_way_out(overrides: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compose(overrides)


def test_hydra_is_as_it_was_where_it_was_set_up_before() -> None:
    with initialize_config_dir(str(locations.CONF), **locations.VERSION_BASE):
        before = GlobalHydra.instance().hydra
        assert compose(["seed=3"]).settings["seed"] == 3
        assert GlobalHydra.instance().hydra is before


def test_hydra_does_not_seem_to_have_started_a_call_from_python() -> None:
    compose([])
    assert not HydraConfig.initialized()


def test_no_folder_is_made_for_a_config_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        compose(["data.batchsize=3"])
    assert not (tmp_path / "outputs").exists()


def test_a_free_folder_stays_the_same_within_a_process(tmp_path: Path) -> None:
    wanted = str(tmp_path / "run")
    assert unique_dir(wanted) == wanted
    (tmp_path / "run").mkdir()
    assert unique_dir(wanted) == wanted
    unique_dir.cache_clear()
    assert unique_dir(wanted) == f"{wanted}_2"


def test_of_processes_started_together_the_first_chooses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert not unique_dir(str(tmp_path / "elsewhere")).startswith(str(tmp_path / "elsewhere"))


def test_conf_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locations, "CONF", tmp_path)
    with pytest.raises(InputError, match="no conf/train.yaml here or above: start in your project"):
        compose([])


def test_a_mistake_is_one_message_and_exit_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(__import__("os").environ))
    with pytest.raises(SystemExit) as ended, report_errors():
        raise InputError("seed=x is no number")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: seed=x is no number\n"


def test_a_process_that_died_is_one_message_and_exit_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(SystemExit) as ended, report_errors():
        raise ProcessError("process 1 of 2 was ended by SIGKILL")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "process 3: error: process 1 of 2 was ended by SIGKILL\n"


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCLIGHT_DEBUG", "1")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(InputError), report_errors():
        raise InputError("seed=x is no number")


def test_a_place_where_no_run_can_live_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as ended, report_errors():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "outputs/synthetic_images-cnn")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: outputs/synthetic_images-cnn cannot be written (Read-only file system): "
        "runs are written to outputs/; start where you may write\n"
    )
    with pytest.raises(FileNotFoundError), report_errors():
        Path("elsewhere").read_text()


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(ZeroDivisionError), report_errors():
        1 / 0  # noqa: B018


def test_a_project_beside_an_installed_engine_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src" / "birds_of_prey").mkdir(parents=True)
    (tmp_path / "src" / "birds_of_prey" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    locations.make_packages_importable(tmp_path / "conf")
    assert sys.path[-1] == str(tmp_path / "src")
    length = len(sys.path)
    locations.make_packages_importable(tmp_path / "conf")
    assert len(sys.path) == length


def test_started_processes_find_the_same_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locations.CONF_VARIABLE, str(tmp_path))
    assert locations.find_conf() == tmp_path
