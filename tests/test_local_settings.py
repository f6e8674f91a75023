"""One key is set in the owner's file; whatever else stands there, stands there afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from arclight.errors import InputError
from arclight.local_settings import set_local

COMMENT = "found by largest-batch: data=cifar10"


def edited(path: Path, text: str | None) -> str:
    if text is not None:
        path.write_text(text)
    set_local("data", "max_batch_per_device", 16, comment=COMMENT, path=path)
    assert [file.name for file in path.parent.iterdir()] == ["default.yaml"]
    return path.read_text()


NEW = f"# @package _global_\ndata:\n  # {COMMENT}\n  max_batch_per_device: 16\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, NEW),
        ("", NEW),
        ("# mine\n", NEW.replace("_global_\n", "_global_\n# mine\n")),
        ("# @package _global_\n\n", NEW),
        # another group, no newline at the end
        (
            "# @package _global_\ntracker: # team\n  wandb:\n    entity: us",
            f"# @package _global_\ntracker: # team\n  wandb:\n    entity: us\ndata:\n  # {COMMENT}\n"
            "  max_batch_per_device: 16\n",
        ),
        # the group is there, with an indentation of its own and comments
        (
            "# @package _global_\ndata: # here\n    # big disk\n    root: /scratch # fast\nseed: 3\n",
            f"# @package _global_\ndata: # here\n    # big disk\n    # {COMMENT}\n    max_batch_per_device: 16\n"
            "    root: /scratch # fast\nseed: 3\n",
        ),
        # the key is there: its value and our own comment change, others stay
        (
            "# @package _global_\ndata:\n  root: x\n  # found by largest-batch: model=old\n  max_batch_per_device: 4 # small\n",
            f"# @package _global_\ndata:\n  root: x\n  # {COMMENT}\n  max_batch_per_device: 16 # small\n",
        ),
        (
            "# @package _global_\ndata:\n  # measured by hand\n  max_batch_per_device: null\n  root: x\n",
            f"# @package _global_\ndata:\n  # measured by hand\n  # {COMMENT}\n  max_batch_per_device: 16\n  root: x\n",
        ),
        # flow style
        (
            "# @package _global_\ndata: {root: x}\n",
            f"# @package _global_\n# {COMMENT}\ndata: {{max_batch_per_device: 16, root: x}}\n",
        ),
        ("# @package _global_\ndata: {}\n", f"# @package _global_\n# {COMMENT}\ndata: {{max_batch_per_device: 16}}\n"),
        (
            "# @package _global_\n{seed: 3}\n",
            f"# @package _global_\n# {COMMENT}\n{{data: {{max_batch_per_device: 16}}, seed: 3}}\n",
        ),
        # a group without content
        (
            "# @package _global_\ndata: # later\nseed: 3\n",
            f"# @package _global_\ndata: # later\n  # {COMMENT}\n  max_batch_per_device: 16\nseed: 3\n",
        ),
        ("# @package _global_\ndata: null\n", f"# @package _global_\ndata:\n  # {COMMENT}\n  max_batch_per_device: 16\n"),
        ("# @package _global_\ndata:", f"# @package _global_\ndata:\n  # {COMMENT}\n  max_batch_per_device: 16\n"),
    ],
)
def test_the_key_is_set_and_the_rest_stays(before: str | None, after: str, tmp_path: Path) -> None:
    path = tmp_path / "local" / "default.yaml"
    if before is not None:
        path.parent.mkdir()
    assert edited(path, before) == after
    old = yaml.safe_load(before or "") or {}
    assert yaml.safe_load(after) == {**old, "data": {**(old.get("data") or {}), "max_batch_per_device": 16}}
    assert edited(path, None) == after  # once more changes nothing


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# @package _global_\n- a\n", "is no mapping of keys; it must look as conf/local/README.md shows"),
        ("# @package _global_\njust text\n", "is no mapping of keys"),
        ("# @package _global_\ndata: [1]\n", "data is no mapping of keys, so that data.max_batch_per_device=16 has no place"),
        ("# @package _global_\ndata: 0\n", "data is no mapping of keys"),
        ("data:\n  root: x\n", "its first line must be '# @package _global_', else its keys never reach the config"),
        ("data:\n  root: x\n# @package _global_\n", "its first line must be"),
        ("# @package _global_\na: {b\n", "is no YAML: "),
        ("# @package _global_\na: !unknown 3\n", "is no YAML of plain values: "),
        (
            "# @package _global_\nother: &x {root: y}\ndata: *x\n",
            "not edited safely; set data.max_batch_per_device to 16 in it by",
        ),
        ("# @package _global_\nseed: 3\n...\n", "not edited safely; set data.max_batch_per_device to 16"),
    ],
)
def test_a_file_that_cannot_take_the_key_is_told_and_left_alone(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "default.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        set_local("data", "max_batch_per_device", 16, comment=COMMENT, path=path)
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["default.yaml"]


def test_a_link_stays_a_link_and_rights_stay_rights(tmp_path: Path) -> None:
    target, path = tmp_path / "kept.yaml", tmp_path / "default.yaml"
    target.write_text("# @package _global_\nseed: 3\n")
    target.chmod(0o600)
    path.symlink_to(target)
    set_local("data", "max_batch_per_device", 16, comment=COMMENT, path=path)
    assert path.is_symlink()
    assert yaml.safe_load(target.read_text()) == {"seed": 3, "data": {"max_batch_per_device": 16}}
    assert target.stat().st_mode & 0o777 == 0o600
