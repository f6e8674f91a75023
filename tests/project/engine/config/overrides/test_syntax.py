"""Values that Hydra cannot read: texts are read as what they are, others come with a command that works in a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from arclight.config.compose import compose
from arclight.config.overrides.syntax import parse, quoted_override, read_as_text, shell_quoted
from arclight.errors import InputError

TEXTS = ["~", "~/pictures", "/a=b", "/a#b", "/ä", "/a/日本", ",", ";", "!x", "&", "<tag>", "`x`", "x@y~z", "+-", "a b;c"]
QUOTED = ["/a[b", "/a(b)", "/a'b", 'a"b', "{x", "[1,2", "a,", "\\'", 'it\'s "x" $HOME', "a\\'b\\"]


@pytest.mark.parametrize("value", TEXTS)
def test_a_text_is_read_as_it_is(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = parse(read_as_text(f"+data.root={value}"))
    assert read is not None
    assert read.value() == value


@pytest.mark.parametrize(
    "override", ["seed=1,2", "tags=[a,b]", "optimizer.lr=1e-3", "x=null", "~x", "-m", "demo", "data.root='a"]
)
def test_what_can_be_read_or_is_no_text_stays(override: str) -> None:
    assert read_as_text(override) == override


@pytest.mark.parametrize("value", [*TEXTS, *QUOTED, "", " a ", "a\\", "1", "null", "${seed}"])
def test_quotes_keep_every_text(value: str) -> None:
    override = quoted_override("data.root", value)
    read = parse(override)
    assert read is not None
    assert read.value() == value
    assert shlex.split(shell_quoted(override)) == [override]


def test_the_command_that_is_offered_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    overrides = ["seed=3", *(f"tags={value}" for value in QUOTED[:1]), f"data.root={QUOTED[2]}", f"name={QUOTED[3]}"]
    with pytest.raises(InputError) as raised:
        compose(overrides)
    message, _, command = str(raised.value).partition("\nTry: python train.py ")
    assert message.count("Hydra cannot read the value") == 3
    settings = compose(shlex.split(command)).settings
    assert (settings["seed"], settings["tags"], settings["data"]["root"], settings["name"]) == (3, *QUOTED[:1], *QUOTED[2:4])
