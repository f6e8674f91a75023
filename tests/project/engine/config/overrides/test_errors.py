"""All errors of a command line, each with its override and the name that was probably meant, and the right command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.config.compose import compose
from arclight.config.overrides.errors import find_errors, overrides_in
from tests.project.engine.config.conftest import message_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])


def test_all_errors_are_reported_at_once_with_the_right_command() -> None:
    assert message_of(["modl=cnn", "optimizer.lrr=1", "seed=3", "data=cifar11"]) == (
        "3 errors:\n"
        "  modl=cnn: the config has no key 'modl'. Did you mean 'model'?\n"
        "  data=cifar11: conf/data/ has no cifar11.yaml. Did you mean 'cifar10'?\n"
        "  optimizer.lrr=1: optimizer has no key 'lrr'. Did you mean 'lr'?\n"
        "Try: python train.py model=cnn optimizer.lr=1 seed=3 data=cifar10"
    )


@pytest.mark.parametrize(
    ("override", "message", "meant"),
    [
        ("experment=dmeo", "the config has no key 'experment'. Did you mean 'experiment=demo'?", "experiment=demo"),
        ("logger=[csv,wandbb]", "conf/logger/ has no wandbb.yaml. Did you mean 'wandb'?", "logger=[csv,wandb]"),
        ("optimizer=zebra", "conf/optimizer/ has no zebra.yaml. Known: adam, adamw, muon, sgd.", None),
        ("sede=3", "the config has no key 'sede'. Did you mean 'seed'?", "seed=3"),
        ("daat.root=x", "the config has no key 'daat'. Did you mean 'data.root'?", "data.root=x"),
        ("optimizre.lrr=1", "the config has no key 'optimizre'. Did you mean 'optimizer.lr'?", "optimizer.lr=1"),
        ("data.augment.corp=1", "data.augment has no key 'corp'. Did you mean 'crop'?", "data.augment.crop=1"),
        ("optimizer.lr.x=1", "optimizer.lr is 0.001, which holds no keys", None),
        ("~trainer.max_epoch", "trainer has no key 'max_epoch'. Did you mean 'max_epochs'?", "~trainer.max_epochs"),
        ("data.split_seed=1", "data has no key 'split_seed'. Did you mean '+data.split_seed'?", "+data.split_seed=1"),
        ("trainer.profilr=x", "trainer has no key 'profilr'. Did you mean '+trainer.profiler'?", "+trainer.profiler=x"),
        ("trainer.zebra=1", "trainer has no key 'zebra'. Known: accelerator, ", None),
    ],
)  # fmt: skip
def test_a_name_that_is_not_there(override: str, message: str, meant: str | None) -> None:
    (error,) = find_errors([override])
    assert str(error).startswith(f"{override}: {message}")
    command = message_of([override]).partition("\nTry: python train.py ")[2]
    assert command == shlex.join([meant] if meant else [])


def test_a_plus_before_a_key_that_is_there() -> None:
    (error,) = find_errors(["+seed=3"])
    assert str(error) == "+seed=3: seed is in the config already: write it without the +"
    assert compose(["+seed=3"]).settings["seed"] == 3  # as a command, it is read as that


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("demo", "demo: this is not an override, which has the form KEY=VALUE. Did you mean 'experiment=demo'?"),
        ("seed", "seed: this is not an override, which has the form KEY=VALUE. Did you mean 'seed=...'?"),
        ("data.root='unclosed", "data.root='unclosed: Hydra cannot read the value"),
        (
            "optimizer.lr=${nothing.here}",
            "optimizer.lr=${nothing.here}: Interpolation key 'nothing.here' not found; name a key",
        ),
        ("data=image_folder", "data.root must be given: add data.root=... to the command"),
        ("optimizer.lr=${oc.env:NOT_SET_ANYWHERE}", "optimizer.lr=${oc.env:NOT_SET_ANYWHERE}: Environment variable 'NOT_SET"),
    ],
)
def test_a_value_that_cannot_be_had(override: str, message: str) -> None:
    (error,) = find_errors([override])
    assert str(error).startswith(message)


def test_what_is_right_has_no_errors() -> None:
    right = ["experiment=demo", "optimizer.lr=1,2", "+trainer.profiler=simple", "~callbacks.early_stopping", "hydra.job.name=x"]
    assert find_errors(right) == []


def test_options_on_the_search_path_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "narrow.yaml").write_text(
        "defaults:\n  - /module@_global_.module: image_classifier\n_target_: project.models.cnn.Cnn\nwidths: [4]\n"
    )
    search_path = f"hydra.searchpath=[file://{tmp_path / 'mine'}]"
    assert find_errors(["model=narrow", search_path, "model.widths=[8]"]) == []
    (wrong_key,) = find_errors([search_path, "model=narrow", "model.widht=3"])
    assert str(wrong_key) == "model.widht=3: model has no key 'widht'. Did you mean 'widths'?"
    (wrong_option,) = find_errors([search_path, "model=narow"])
    assert wrong_option.suggestions == ("model=narrow",)


def test_options_of_a_multirun_are_checked_one_by_one() -> None:
    errors = find_errors(["data=synthetic_images,cifar11", "data.num_train=8", "seeed=1,2"])
    assert [(error.key, *error.suggestions) for error in errors] == [
        ("data", "data=synthetic_images,cifar10"),
        ("seeed", "seed"),
    ]


def test_a_key_is_looked_for_in_the_group_that_was_meant() -> None:
    errors = find_errors(["modl=resnet18", "model.width=8"])
    assert [error.key for error in errors] == ["modl"]


@pytest.mark.parametrize(
    ("override", "message", "meant"),
    [
        ("+data.splitseed=3", "data.splitseed: Cifar10 takes no 'splitseed'. Did you mean 'split_seed'?", "+data.split_seed=3"),
        ("+data.batchsize=3", "data.batchsize: Cifar10 takes no 'batchsize'. Did you mean 'batch_size'?", "data.batch_size=3"),
    ],
)
def test_an_argument_that_is_added(override: str, message: str, meant: str) -> None:
    assert message_of([override, "sede=3"]) == (
        "2 errors:\n"
        "  sede=3: the config has no key 'sede'. Did you mean 'seed'?\n"
        f"  {message} (set by {override})\n"
        f"Try: python train.py {meant} seed=3"
    )


def test_options_of_hydra_are_not_overrides() -> None:
    assert overrides_in(["-m", "--cfg", "job", "seed=3", "--multirun"]) == ["seed=3"]


def test_the_command_is_quoted_and_that_of_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message_of(["nam='a b'"]).endswith("Try: python train.py \"name='a b'\"")
    monkeypatch.setattr(sys, "argv", ["/somewhere/arclight/__main__.py", "benchmark", "sede=3"])
    assert message_of(["sede=3"]).endswith("Try: python -m arclight benchmark seed=3")


def test_keys_that_files_set_are_checked_too(conf: Path) -> None:
    (conf / "local" / "default.yaml").write_text("# @package _global_\ndata:\n  rot: /x\noptimizer: {lrr: 3}\n")
    assert message_of([]) == (
        "2 errors:\n"
        "  data.rot: Cifar10 takes no 'rot'. Did you mean 'root'? (set in conf/local/default.yaml)\n"
        "  optimizer.lrr: Adam takes no 'lrr'. Did you mean 'lr'? (set in conf/local/default.yaml)"
    )


def test_a_file_of_this_machine_needs_its_first_line(conf: Path) -> None:
    (conf / "local" / "default.yaml").write_text("data:\n  root: /x\n")
    assert message_of([]).startswith(
        "conf/local/default.yaml: its keys do not reach the config; its first line must be '# @package"
    )


def test_a_file_that_is_not_yaml_is_named(conf: Path) -> None:
    (conf / "local" / "default.yaml").write_text("data: [1\n")
    assert "conf/local/default.yaml" in message_of(["optimizer.lrr=1"])


def test_typos_are_reported_without_torch() -> None:
    code = (
        "import sys\nfrom arclight.config.compose import compose\nfrom arclight.errors import InputError\n"
        "for overrides in (['optimizer.lrr=1'], ['data.split_seed=1'], ['+trainer.profilr=x']):\n"
        "    try: compose(overrides)\n    except InputError: print(sorted({'torch', 'lightning'} & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n" * 3


def test_a_glob_of_options() -> None:
    errors = find_errors(["experiment=glob(demo*)", "data.bogus=1"])
    assert [error.key for error in errors] == ["data.bogus"]


def test_several_values_without_a_multirun() -> None:
    errors = find_errors(["optimizer.lr=1e-3,1e-2", "logger=csv,wandb"], is_multirun=False)
    assert "A run of each: add -m to the command" in str(errors[0])
    assert "logger=[csv,wandb]" in str(errors[1])
    assert find_errors(["optimizer.lr=1e-3,1e-2"]) == []


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("trainer.min_epochs=2", "+trainer.min_epochs"),  # not max_epochs: the Trainer takes it
        ("trainer.gradient_clip_algorithm=norm", "+trainer.gradient_clip_algorithm"),
        ("min_epochs=2", "+trainer.min_epochs"),
        ("max_epoch=2", "trainer.max_epochs"),
        ("batch_siz=2", "data.batch_size"),
        ("patience=2", "callbacks.early_stopping.patience"),
    ],
)
def test_what_is_taken_is_suggested_first(override: str, meant: str) -> None:
    (error,) = find_errors([override])
    assert error.suggestions == (meant,)


def test_a_command_that_would_fail_is_not_offered() -> None:
    message = message_of(["max_epoch=3", "data.batch_size=abc"])
    assert "Did you mean 'trainer.max_epochs'?" in message
    assert "data.batch_size='abc' must be a whole number" in message
    assert "Try:" not in message


@pytest.mark.parametrize("value", ["null", "{lr: 1}", "[1]"])
def test_a_group_chooses_a_file(value: str) -> None:
    groups = ("optimizer", "callbacks", "data", "trainer")
    for group, error in zip(groups, find_errors([f"{group}={value}" for group in groups]), strict=True):
        assert str(error).startswith(f"{group}={value}: {group} chooses a file of conf/{group}/")


FILES = {
    "optimizer: null": "optimizer=None must hold keys, not a value",
    "callbacks: text": "callbacks=text must hold keys, not a value",
    "optimizer: [1]": "Cannot merge DictConfig with ListConfig",
    "defaults: [/experiment/mine]": "choose each other in their defaults lists without end",
    "seed: " + "9" * 5000: "conf/experiment/mine.yaml cannot be read: Exceeds the limit (4300 digits)",
    "- 1": "Cannot merge DictConfig with ListConfig",
    "5": "conf/experiment/mine.yaml must hold keys and values, and holds a int",
    "a: [1": "conf/experiment/mine.yaml",
    "defaults: 5": "defaults must be a list",
    "null: 1": "Incompatible key type 'NoneType'",
    "optimizer: {1: 2}": "optimizer.1: Adam takes no '1'",
    "name: null": "name=None must be text",
    "seed: ${seed}": "Recursive interpolation detected",
    "name: caf\udce9": "conf/experiment/mine.yaml is not UTF-8 (byte 29)",  # latin-1
}


@pytest.mark.parametrize(("text", "message"), FILES.items(), ids=lambda text: text[:20])
def test_a_recipe_that_is_wrong_is_one_message(text: str, message: str, conf: Path) -> None:
    content = f"# @package _global_\n{text}\n".encode(errors="surrogateescape")
    (conf / "experiment" / "mine.yaml").write_bytes(content)
    assert message in message_of(["experiment=mine"])


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_a_recipe_without_its_first_line_is_not_ignored(group: str, conf: Path) -> None:
    (conf / group / "mine.yaml").write_text("optimizer:\n  lr: 1\n")
    assert message_of([f"{group}=mine"]).startswith(
        f"the chosen file of conf/{group}/: its keys do not reach the config; its first line must be '# @package _global_'"
    )


def test_what_every_run_needs_is_not_left_out() -> None:
    keys = ["seed", "name", "optimizer", "callbacks", "checkpoint", "resume", "preflight"]
    errors = find_errors([f"~{key}" for key in keys])
    assert [str(error).partition(" is needed and must not be left out")[0] for error in errors] == [
        f"~{key}: {key}" for key in keys
    ]
    assert message_of(["~callbacks"]).startswith("callbacks is needed and must not be left out; callbacks=none chooses nothing")


def test_a_directory_of_all_data_sets(conf: Path) -> None:
    (conf / "local" / "default.yaml").write_text("# @package _global_\ndata_root: /scratch\n")
    roots = [compose([f"data={name}"]).settings["data"].get("root") for name in ("cifar10", "conll2003", "synthetic_images")]
    assert roots == ["/scratch/cifar10", "/scratch/conll2003", None]
