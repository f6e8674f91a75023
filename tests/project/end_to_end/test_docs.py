"""docs/add_a_piece.md: the pieces that a reader adds by following it train, and are as short as it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

import arclight
import project.data
import project.lightning_modules
import project.models
from arclight.config import locations

PAGE = Path(__file__).resolve().parents[3] / "docs" / "add_a_piece.md"
QUICK = (
    *("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.accelerator=cpu", "trainer.devices=1", "logger=csv"),
    *("precision=fp32", "data.batch_size=16", "model=small_cnn", "data=synthetic_images"),
)


class Section(NamedTuple):
    """What a reader of one section writes and types."""

    files: dict[str, str]
    commands: list[list[str]]


def read_sections() -> dict[str, Section]:
    """Returns the sections of the page by the piece that they add."""
    found = {}
    for title, text in re.findall(
        r"^## How do I \w+ \w+ ([\w ]+)\?\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        blocks = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        commands = re.findall(r"^python train\.py (.*)$", text, re.MULTILINE)
        found[title] = Section(dict(blocks), [shlex.split(command) for command in commands])
    return found


SECTIONS = read_sections()


def rows() -> dict[str, tuple[list[str], int]]:
    """Returns files and lines of the page's table by piece."""
    lines = [
        line.strip("|").split("|") for line in PAGE.read_text("utf-8").splitlines() if re.fullmatch(r"\| .*`.* \d+ \|", line)
    ]
    return {piece.strip(): (re.findall(r"`(\S+)`", files), int(count)) for piece, files, count in lines}


def test_the_table_counts_files_and_lines() -> None:
    assert len(rows()) == len(SECTIONS) == 5
    for (piece, (files, count)), section in zip(rows().items(), SECTIONS.values(), strict=True):
        assert files == list(section.files), piece
        written = [line for text in section.files.values() for line in text.splitlines() if line.strip()]
        assert count == len(written), piece
        assert len(files) <= 2
        assert count <= 40


@pytest.mark.parametrize("title", SECTIONS)
def test_what_a_section_adds_trains(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(locations.CONF, tmp_path / "conf")
    for name, text in SECTIONS[title].files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for package in (project.data, project.models, project.lightning_modules):
        folder = tmp_path / "src" / "project" / package.__name__.rpartition(".")[2]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    monkeypatch.setattr(locations, "CONF", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for command in SECTIONS[title].commands:
        typed = {override.partition("=")[0] for override in command}
        run = arclight.run([*(one for one in QUICK if one.partition("=")[0] not in typed), *command])
        assert run.status == "finished"
        assert any(key.startswith("test/") for key in run.results)
        if "monitor=val/top_two" in command:
            assert 0 <= run.results["test/top_two"] <= 1
