"""What users of lightning-hydra-template type: each row of conf/other_templates.yaml and of the page about it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from arclight.config import locations
from arclight.config.compose import compose
from arclight.config.other_templates import translate_arguments, translate_overrides
from tests.project.engine.config.conftest import message_of

TABLES: dict[str, dict[str, Any]] = yaml.safe_load((locations.CONF / "other_templates.yaml").read_text())
PAGE = locations.CONF.parent / "docs" / "coming_from_lightning_hydra_template.md"
ROWS = re.findall(r"^\| `([^`]+)` \| (works|read as|message) \| (?:`([^`]+)` )?\|$", PAGE.read_text(), re.MULTILINE)
WITH_LOGGER = {"mlflow": ["logger=mlflow"]}  # options that have the keys


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_has_the_rows() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize(("typed", "outcome", "here"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_page(typed: str, outcome: str, here: str) -> None:
    overrides = shlex.split(typed)
    if outcome == "message":
        assert here in message_of(overrides)
        return
    assert translate_overrides(overrides) == shlex.split(here or typed)
    if not typed.startswith("ckpt_path"):  # there is no such run
        compose(overrides)


@pytest.mark.parametrize("row", TABLES["overrides"])
def test_a_row_of_overrides(row: str) -> None:
    read = translate_overrides([row])
    assert read == TABLES["overrides"][row]
    compose([row])


@pytest.mark.parametrize(("group", "option"), [(group, name) for group, rows in TABLES["options"].items() for name in rows])
def test_a_row_of_options(group: str, option: str) -> None:
    new = TABLES["options"][group][option]
    assert (locations.CONF / group / f"{new}.yaml").is_file()
    assert translate_overrides([f"{group}={option}"]) == [f"{group}={new}"]
    assert translate_overrides([f"{group}=x,{option}", "seed=1"]) == [f"{group}=x,{new}", "seed=1"]


@pytest.mark.parametrize("old", TABLES["groups"])
def test_a_row_of_groups(old: str) -> None:
    new = TABLES["groups"][old]
    assert (locations.CONF / new).is_dir()
    assert translate_overrides([f"{old}=x", f"{old}.y=1"]) == [f"{new}=x", f"{new}.y=1"]


@pytest.mark.parametrize("old", TABLES["keys"])
def test_a_row_of_keys(old: str) -> None:
    options = WITH_LOGGER.get(old.split(".")[1] if "." in old else "", [])
    leaf = {"model.net.": "dropout", "model.optimizer.": "lr", "model.scheduler.": "warmup_fraction"}.get(old, "")
    *_, read = translate_overrides([*options, f"{old}{leaf}=1"])
    assert read.partition("=")[0].lstrip("+") in [new + leaf for new in TABLES["keys"][old]]
    if old != "ckpt_path":
        node: Any = compose([*options]).settings
        for part in read.partition("=")[0].split("."):
            assert part in node or read.startswith("resume"), f"{old}: there is no {read}"
            node = node[part]


@pytest.mark.parametrize("row", TABLES["messages"])
def test_a_row_of_messages(row: str) -> None:
    group = {"paths.data_dir": ["data=synthetic_images"]}.get(row, [])
    override = row if "=" in row else f"{row}=1"
    assert message_of([*group, override]) == f"{override}: {TABLES['messages'][row]}"


def test_a_message_comes_with_all_other_errors() -> None:
    assert message_of(["train=False", "extras.print_config=true", "sede=3", "lr=0.1", "optimizer.lrr=1"]) == (
        "4 errors:\n"
        "  train=False: this command trains. To test a trained run: python -m arclight evaluate RUN\n"
        "  extras.print_config=true: the config is printed without a run by: python train.py --cfg job\n"
        "  sede=3: the config has no key 'sede'. Did you mean 'seed'?\n"
        "  optimizer.lrr=1: optimizer has no key 'lrr'. Did you mean 'lr'?"
    )


def test_one_line_reports_what_is_read_as_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train.py", "-m", "trainer=ddp_sim", "lr=0.1,0.2", "+seed=3", "--cfg", "job", "train=true"]
    translate_arguments(arguments)
    assert arguments == [
        *("train.py", "-m", "strategy=ddp_cpu", "trainer.devices=2", "optimizer.lr=0.1,0.2", "seed=3", "--cfg", "job"),
    ]
    assert capsys.readouterr().err == (
        "trainer=ddp_sim is read as strategy=ddp_cpu trainer.devices=2; lr=0.1,0.2 is read as optimizer.lr=0.1,0.2\n"
    )
    translate_arguments(arguments)
    assert capsys.readouterr().err == ""


def test_only_rank_0_reports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, str(value))
    assert translate_overrides(["lr=0.1"]) == ["optimizer.lr=0.1"]
    assert capsys.readouterr().err == ""


def test_what_the_user_typed_wins() -> None:
    assert translate_overrides(["trainer.devices=4", "trainer=ddp_sim"]) == ["trainer.devices=4", "strategy=ddp_cpu"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["-m", "--cfg", "job", "seed=1", "data.root=/x"],
        ["~callbacks.early_stopping", "+trainer.profiler=simple", "++seed=3", "nonsense", "data.root='a=b"],
        ["+optimizer={lr: 0.3}"],
        ["+hydra.job.name=x"],
        ["+module=image_classifier"],
    ],
)
def test_what_stays_as_it_is(overrides: list[str]) -> None:
    kept = [text.lstrip("+") if text.startswith(("++seed", "+optimizer")) else text for text in overrides]
    assert translate_overrides(overrides) in (overrides, kept)


def test_a_plus_before_a_group_that_has_an_option_is_dropped() -> None:
    assert translate_overrides(["+experiment=demo", "+debug=fdr"]) == ["experiment=demo", "debug=one_batch"]
    assert compose(["+experiment=demo"]).data == "synthetic_images"


def test_names_of_the_project_win(conf: Path) -> None:
    (conf / "trainer" / "ddp.yaml").write_text("defaults: [auto]\nstrategy: ddp\n")
    (conf / "debug" / "default.yaml").write_text("# @package _global_\nseed: 5\n")
    (conf / "model" / "own.yaml").write_text(
        "_target_: lightning.pytorch.demos.boring_classes.BoringModel\noptimizer: {lr: 0.1}\nlr: 0.1\n"
    )
    (conf / "extras").mkdir()
    (conf / "extras" / "default.yaml").write_text("print_config: true\n")
    text = (conf / "train.yaml").read_text().replace("  - debug", "  - extras: default\n  - debug")
    (conf / "train.yaml").write_text(f"{text}train: true\n")
    typed = [
        *("trainer=ddp", "debug=default", "model=own", "model.optimizer.lr=1", "train=false", "extras.print_config=true"),
        "model.lr=2",
    ]
    assert translate_overrides(typed) == typed
    assert translate_overrides(["model=own", "lr=3"]) == ["model=own", "model.lr=3"]


def test_an_argument_that_no_file_sets_gets_a_plus() -> None:
    assert translate_overrides(["model.optimizer.betas=[0.8,0.9]"]) == ["+optimizer.betas=[0.8,0.9]"]


def test_a_data_module_without_a_root() -> None:
    assert "this data module takes no root" in message_of(["data=synthetic_images", "paths.data_dir=x"])


def test_a_project_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "CONF", tmp_path)
    assert translate_overrides(["trainer=ddp", "lr=1"]) == ["trainer=ddp", "lr=1"]


def test_the_run_directory_from_python() -> None:
    assert compose(["hydra.run.dir=runs/x"]).folder == Path("runs/x")


def test_a_seed_that_is_drawn_later_cannot_be_referred_to() -> None:
    message = message_of(["seed=null", "+data.split_seed=${seed}"])
    assert message.startswith("seed=null: data.split_seed=${seed} refers to the seed; set seed to a number")
