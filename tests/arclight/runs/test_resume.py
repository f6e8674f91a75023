"""The run directory: a new one, or that of the run to resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from arclight.checkpoint import contents
from arclight.config.compose import RunConfig
from arclight.config.locations import find_run
from arclight.distributed.environment import Launch
from arclight.errors import InputError
from arclight.runs import resume
from arclight.runs.run_directory import make_newest

SETTINGS: dict[str, Any] = {
    "seed": 0,
    "data": {"root": "data", "batch_size": 8},
    "trainer": {"max_epochs": 2, "devices": 1},
    "logger": {"csv": {}},
}


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_config(name: str, **fields: Any) -> RunConfig:
    settings = fields.pop("settings", SETTINGS)
    return RunConfig(settings, (), "synthetic_images", "cnn", Path("outputs/synthetic_images-cnn") / name, 0.0, **fields)


def write_run(name: str, status: str | None, settings: dict[str, Any] = SETTINGS, age: int = 0) -> Path:
    folder = Path("outputs/synthetic_images-cnn") / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "overrides.txt").touch()
    if status:
        (folder / "results.json").write_text(json.dumps({"status": status}))
    os.utime(folder / "config.yaml", (1e9 - age, 1e9 - age))
    return folder


def test_a_new_run_creates_its_directory() -> None:
    first, second = (resume.resolve_run_dir(run_config("run"), Launch()).folder for _ in range(2))
    assert [first.name, second.name] == ["run", "run_2"]


def test_two_runs_of_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(resume.create_run_dir, [tmp_path / "run"] * 20))
    assert sorted(folders) == sorted(tmp_path / name for name in ["run", *(f"run_{n}" for n in range(2, 21))])


def test_a_resumed_run_leaves_the_directory_of_another_run_of_the_same_second() -> None:
    wanted, other = write_run("old", "interrupted"), write_run("now", "finished")
    assert resume.resolve_run_dir(run_config("now", resume="auto"), Launch()).folder == wanted
    assert (other / "config.yaml").is_file()


@pytest.mark.parametrize("status", ["interrupted", "failed", "running", None])
def test_auto_resumes_the_newest_unfinished_run_of_the_same_config(status: str | None) -> None:
    write_run("old", status, age=2)
    wanted = write_run("new", status, age=1)
    write_run("done", "finished")
    write_run("other", status, {**SETTINGS, "seed": 1})
    new = run_config("now", resume="auto")
    new.folder.mkdir()
    assert resume.resolve_run_dir(new, Launch()).folder == wanted
    assert not new.folder.exists()


def test_auto_starts_a_new_run_where_there_is_nothing_to_resume() -> None:
    write_run("done", "finished")
    assert resume.resolve_run_dir(run_config("now", resume="auto"), Launch()).folder.name == "now"


def test_a_restarted_run_resumes_by_itself() -> None:
    wanted = write_run("before", "running")
    assert resume.resolve_run_dir(run_config("now"), Launch("torchrun", restart_count=1, run_id="none")).folder == wanted
    assert resume.resolve_run_dir(run_config("later"), Launch()).folder.name == "later"


def test_settings_without_effect_on_results_may_change() -> None:
    wanted = write_run("before", "interrupted")
    elsewhere = {**SETTINGS, "trainer": {"max_epochs": 2, "devices": 8}, "logger": {"wandb": {}}}
    elsewhere["data"] = {"root": "/scratch", "batch_size": 8}
    assert resume.resolve_run_dir(run_config("now", settings=elsewhere, resume="auto"), Launch()).folder == wanted


ANY_SEED = {**SETTINGS, "seed": None}
DRAWN = {**SETTINGS, "seed": 7, "seed_is_drawn": True}


def test_a_seed_is_drawn_for_a_new_run() -> None:
    drawn = [resume.resolve_run_dir(run_config("now", settings=ANY_SEED), Launch()).settings for _ in range(2)]
    assert all(0 <= settings["seed"] < 2**32 and settings["seed_is_drawn"] for settings in drawn)
    assert drawn[0]["seed"] != drawn[1]["seed"]
    assert resume.resolve_run_dir(run_config("now"), Launch()).settings == SETTINGS


def test_auto_resumes_a_run_whose_seed_was_drawn_with_its_seed() -> None:
    wanted = write_run("before", "interrupted", DRAWN, age=2)
    write_run("set", "interrupted", {**SETTINGS, "seed": 3})  # that of another run
    for settings in (ANY_SEED, {**SETTINGS, "seed": 7}):
        resumed = resume.resolve_run_dir(run_config("now", settings=settings, resume="auto"), Launch())
        assert (resumed.folder, resumed.settings["seed"]) == (wanted, 7)
    assert resume.same_runs(run_config("now", settings=ANY_SEED)) == [wanted]
    named = resume.resolve_run_dir(run_config("now", settings=ANY_SEED, resume=str(wanted)), Launch())
    assert named.settings == DRAWN


def test_a_run_whose_seed_was_set_keeps_it() -> None:
    folder = write_run("before", "interrupted")
    other = run_config("now", settings=ANY_SEED, resume=str(folder))
    with pytest.raises(InputError, match="seed: 0 -> None"):
        resume.resolve_run_dir(other, Launch())
    assert resume.resolve_run_dir(replace(other, resume_with_changes=True), Launch()).settings["seed"] == 0


def test_a_test_and_tags_may_change() -> None:
    wanted = write_run("before", "interrupted", {**SETTINGS, "tags": []})
    new = run_config("now", settings={**SETTINGS, "test": False, "tags": ["x"]}, resume="auto")
    assert resume.resolve_run_dir(new, Launch()).folder == wanted


def test_another_config_is_refused_with_the_difference() -> None:
    folder = write_run("before", "interrupted")
    other = run_config("now", settings={**SETTINGS, "seed": 7}, resume=str(folder))
    with pytest.raises(InputError, match=r"(?s)another config; .* add resume_with_changes=true:.*seed: 0 -> 7"):
        resume.resolve_run_dir(other, Launch())
    assert resume.resolve_run_dir(replace(other, resume_with_changes=True), Launch()).folder == folder


def test_a_finished_run_is_not_resumed() -> None:
    folder = write_run("before", "finished")
    with pytest.raises(InputError, match="is finished; to train it further, set trainer.max_epochs"):
        resume.resolve_run_dir(run_config("now", resume=str(folder)), Launch())


def test_latest_and_a_checkpoint_name_their_run() -> None:
    folder = write_run("before", "interrupted", age=1)
    for name in ("latest", str(folder / "checkpoints" / "last.ckpt"), str(folder)):
        assert resume.resolve_run_dir(run_config("now", resume=name), Launch()).folder == folder


@pytest.mark.parametrize("name", ["nowhere", "outputs"])
def test_a_directory_without_a_run_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not a run directory"):
        resume.resolve_run_dir(run_config("now", resume=name), Launch())
    with pytest.raises(InputError, match="latest: .* holds no run; start one"):
        resume.resolve_run_dir(run_config("now", resume="latest"), Launch())


def test_a_half_written_config_does_not_match() -> None:
    folder = write_run("before", "running")
    (folder / "config.yaml").write_text("seed: [")
    assert resume.resolve_run_dir(run_config("now", resume="auto"), Launch()).folder.name == "now"


def test_a_run_directory_is_locked() -> None:
    folder = write_run("before", "running")
    with (
        resume.locked(folder),
        pytest.raises(InputError, match="in use by a run that is still training"),
        resume.locked(folder),
    ):
        pass
    with resume.locked(folder), pytest.raises(InputError, match=r"resume=auto: .* is in use .*; to start another, leave"):
        resume.resolve_run_dir(run_config("now", resume="auto"), Launch())
    with resume.locked(folder):
        assert resume.resolve_run_dir(run_config("now"), Launch()).folder.name == "now"
    assert not (folder / resume.LOCK).exists()
    with resume.locked(folder):
        pass


def test_the_lock_of_a_killed_process_is_free() -> None:
    folder = write_run("before", "running")
    take = "lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    program = f"import sys, time, filelock; {take}; print('in', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program, str(folder / resume.LOCK)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "in\n"
        assert resume.is_locked(folder)
        with pytest.raises(InputError, match="in use by a run that is still training"), resume.locked(folder):
            pass
    finally:
        other.kill()
        other.communicate()
    assert (folder / resume.LOCK).exists()
    assert resume.resolve_run_dir(run_config("now", resume="auto"), Launch()).folder == folder
    with resume.locked(folder):
        pass


def test_an_unwritable_outputs_is_an_error() -> None:
    Path("outputs").write_text("a file")
    with pytest.raises(
        InputError, match=r"outputs/synthetic_images-cnn/run could not be written \(Not a directory; .* MB are free there\)"
    ):
        resume.resolve_run_dir(run_config("run"), Launch())


def test_the_run_that_started_last_is_the_newest_whatever_the_clock_says() -> None:
    """The clock was far ahead when the first run started, and has been set back since."""
    first = write_run("first", "interrupted", age=-(10**9))
    elsewhere = write_run("../other/run", "interrupted", {**SETTINGS, "seed": 1}, age=-(10**9) - 5)
    second = write_run("second", "interrupted", age=5)
    make_newest(second / "config.yaml")
    assert find_run("latest") == second
    assert resume.resolve_run_dir(run_config("now", resume="auto"), Launch()).folder == second
    for folder, steps in ((first, 1), (elsewhere, 2), (second, 3)):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        os.utime(folder / "checkpoints" / "last.ckpt", (3e9 - steps, 3e9 - steps))
    assert contents.find_checkpoint("latest") == second / "checkpoints" / "last.ckpt"


def test_discard_keeps_the_directory_of_a_run_that_trains() -> None:
    folder = write_run("before", "running")
    with resume.locked(folder):
        resume.discard(folder)
        assert folder.is_dir()
    resume.discard(folder)
    assert not folder.exists()


def test_auto_remembers_where_a_new_run_would_be() -> None:
    earlier = write_run("before", "interrupted")
    found = resume.resolve_run_dir(run_config("now", resume="auto"), Launch())
    assert (found.folder, found.new_folder) == (earlier, run_config("now").folder)
    assert resume.start_new_run(found) == run_config("now").folder
    assert resume.start_new_run(found).name == "now_2"
    assert resume.resolve_run_dir(run_config("later", resume=str(earlier)), Launch()).new_folder is None


def write_launch(folder: Path, run_id: str) -> None:
    (folder / "environment.json").write_text(json.dumps({"hardware": {"launch": {"run_id": run_id}}}))


@pytest.mark.parametrize(
    "launch",
    [
        Launch("torchrun", run_id="night"),  # a machine that came or went, which torchrun does not count
        Launch("torchrun", run_id="night", restart_count=1),
        Launch("slurm", run_id="night", restart_count=1),
    ],
)
def test_a_launch_finds_its_own_run(launch: Launch) -> None:
    wanted = write_run("mine", "interrupted", age=3)
    write_launch(wanted, "night")
    write_launch(write_run("another's", "interrupted", age=1), "day")
    write_launch(write_run("of other settings", "interrupted", {**SETTINGS, "seed": 1}), "night")
    assert resume.resolve_run_dir(run_config("now"), launch).folder == wanted


@pytest.mark.parametrize(
    "launch",
    [
        Launch("torchrun", run_id="none"),  # what torchrun is called that was given no name
        Launch("torchrun", run_id="day"),
        Launch("slurm", run_id="night"),  # a second command of one job
        Launch("slurm", run_id="day", restart_count=1),
        Launch(run_id="night"),
    ],
)
def test_the_run_of_another_launch_is_not_resumed(launch: Launch) -> None:
    write_launch(write_run("another's", "interrupted"), "night")
    assert resume.resolve_run_dir(run_config("now"), launch).folder.name == "now"


def test_a_launch_whose_run_is_finished_starts_another() -> None:
    write_launch(write_run("done", "finished"), "night")
    assert resume.resolve_run_dir(run_config("now"), Launch("torchrun", run_id="night")).folder.name == "now"


@pytest.mark.parametrize("has_config", [True, False], ids=["started", "killed before it wrote its config"])
def test_a_run_of_a_multirun_resumes_in_its_own_directory(has_config: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "in_multirun", lambda: True)
    own = write_run("0-synthetic_images-cnn", "running", age=9)
    if not has_config:
        (own / "config.yaml").unlink()
    write_run("1-synthetic_images-cnn", "finished")
    for word in ("none", "auto"):
        again = resume.resolve_run_dir(
            run_config("0-synthetic_images-cnn", resume=word), Launch("slurm", run_id="7", restart_count=1)
        )
        assert again.folder == own


def test_a_multirun_on_other_data_trains_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "in_multirun", lambda: True)
    done = write_run("../earlier/0-synthetic_images-cnn", "finished")
    elsewhere = {**SETTINGS, "data": {"root": "elsewhere", "batch_size": 8}}
    for settings, expected in ((SETTINGS, done), (elsewhere, Path("outputs/now/0-synthetic_images-cnn"))):
        new = run_config("../now/0-synthetic_images-cnn", settings=settings, resume="auto")
        new.folder.mkdir(parents=True, exist_ok=True)
        assert resume.resolve_run_dir(new, Launch()).folder.resolve() == expected.resolve()
        new.folder.unlink() if new.folder.is_symlink() else None


def test_equal_runs_of_a_multirun_do_not_share_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "in_multirun", lambda: True)
    write_run("0-synthetic_images-cnn", "finished")
    second = run_config("1-synthetic_images-cnn", resume="auto")
    assert resume.resolve_run_dir(second, Launch()).folder.name == "1-synthetic_images-cnn"
    earlier = [write_run(f"../earlier/{number}-synthetic_images-cnn", "interrupted", age=number) for number in (0, 1)]
    third = run_config("../now/1-synthetic_images-cnn", resume="auto")
    third.folder.mkdir(parents=True)
    assert resume.resolve_run_dir(third, Launch()).folder.resolve() == earlier[1].resolve()
