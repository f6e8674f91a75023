"""A checkpoint in parts is read with any number of processes, and one that is not whole is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from arclight.checkpoint.atomic_write import NotWrittenError, digest
from arclight.checkpoint.sharded import check, commit, own_rows, read
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.errors import InputError

WEIGHT = torch.arange(10.0).view(5, 2)
BIAS = torch.tensor([7], dtype=torch.bfloat16)
FILES = ["ab-00000-of-00002.safetensors", "ab-00001-of-00002.safetensors"]


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: digest(folder / name) for name in names}


def meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


CONTENTS_OF_TWO = {
    "epoch": 3,
    "state_dict": {"weight": meta(WEIGHT)},
    "moments": [{"of": meta(BIAS), "step": torch.ones(())}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As two processes leave it, the second with no row of the bias."""
    folder = tmp_path / "last.ckpt"
    folder.mkdir()
    save_file({"/state_dict/weight": WEIGHT[:3].clone(), "/moments/0/of": BIAS}, folder / FILES[0])
    save_file({"/state_dict/weight": WEIGHT[3:].clone(), "/moments/0/of": BIAS[:0]}, folder / FILES[1])
    commit(folder, CONTENTS_OF_TWO, digests(folder, FILES))
    return folder


def test_one_process_reads_all_of_it(folder: Path) -> None:
    contents = read(folder)
    assert contents["epoch"] == 3
    assert torch.equal(contents["state_dict"]["weight"], WEIGHT)
    assert torch.equal(contents["moments"][0]["of"], BIAS)
    assert contents["moments"][0]["step"] == 1


def test_what_is_left_out_has_no_values(folder: Path) -> None:
    (folder / FILES[1]).write_bytes((folder / FILES[0]).read_bytes())  # rows too many, that nobody looks at
    contents = read(folder, leave_out=("state_dict",), take=lambda stored, name, like: torch.zeros(()))
    assert contents["state_dict"]["weight"].is_meta


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_any_number_of_processes_reads_its_share(folder: Path, world_size: int) -> None:
    parts = []
    for rank in range(world_size):

        def take(stored: Any, name: str, like: Tensor, rank: int = rank) -> Tensor:
            return stored.rows(name, like, *own_rows(len(like), rank, world_size))

        parts.append(read(folder, take=take)["state_dict"]["weight"])
    assert torch.equal(torch.cat(parts), WEIGHT)
    for part, expected in zip(parts, WEIGHT.chunk(world_size), strict=False):
        assert torch.equal(part, expected)


def save_again(folder: Path, factor: int, *, keep: int = 1) -> str:
    name = f"{factor:02}-00000-of-00001.safetensors"
    save_file({"/state_dict/weight": WEIGHT * factor}, folder / name)
    commit(folder, {"state_dict": {"weight": meta(WEIGHT)}}, digests(folder, [name]), keep=keep)
    return name


def test_a_save_replaces_the_one_before_it(folder: Path) -> None:
    (folder / "cd-00000-of-00001.safetensors.part").touch()  # of a save that was killed
    name = save_again(folder, 2)
    assert torch.equal(read(folder)["state_dict"]["weight"], WEIGHT * 2)
    assert {path.name for path in folder.iterdir()} == {"contents.pt", name}
    assert [path.name for path in folder.parent.iterdir()] == ["last.ckpt"]


def test_before_the_first_save_there_is_none_to_keep(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    save_again(tmp_path / "last.ckpt", 2, keep=3)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_ones_before_are_kept_where_wanted(folder: Path) -> None:
    for factor in (2, 3, 4):
        save_again(folder, factor, keep=3)
    names = ["last.ckpt", "last.previous.ckpt", "last.previous_2.ckpt"]
    assert sorted(path.name for path in folder.parent.iterdir()) == names
    for name, factor in zip(names, (4, 3, 2), strict=True):
        check(folder.with_name(name))
        assert torch.equal(read(folder.with_name(name))["state_dict"]["weight"], WEIGHT * factor)


def test_a_save_that_the_disk_does_not_take_leaves_the_one_before_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(NotWrittenError, match=r"contents.pt could not be written: .*No space left"):
        save_again(folder, 2)
    check(folder)
    assert torch.equal(read(folder)["state_dict"]["weight"], WEIGHT)


def test_no_flipped_bit_of_a_part_goes_unseen(folder: Path) -> None:
    check(folder)
    for name in FILES:
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 2):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            (folder / name).write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name} cannot be read as a checkpoint"):
                check(folder)
        (folder / name).write_bytes(whole)
    check(folder)


def test_a_folder_of_version_1_has_no_digests_and_is_read(folder: Path) -> None:
    torch.save({"files": FILES, "contents": CONTENTS_OF_TWO}, folder / "contents.pt")
    check(folder)
    assert torch.equal(read(folder)["state_dict"]["weight"], WEIGHT)


def test_a_folder_of_a_later_version_is_told(folder: Path) -> None:
    torch.save({"version": 3, "files": {}, "contents": {}}, folder / "contents.pt")
    with pytest.raises(InputError, match="last.ckpt is a checkpoint folder of version 3; this arclight reads versions 1 and 2"):
        read(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def test_a_folder_that_is_not_whole_is_told(folder: Path) -> None:
    changes = [
        (lambda: (folder / FILES[1]).rename(folder / "elsewhere"), f"is no whole checkpoint: {FILES[1]} lacks"),
        (lambda: save_file({}, folder / FILES[1]), f"{FILES[1]} cannot be read as a checkpoint"),
        (lambda: save_file({"/state_dict/weight": WEIGHT[:1].clone()}, folder / FILES[1]), "weight has 4 rows instead of 5"),
        (lambda: cut(folder / FILES[0]), f"{FILES[0]} cannot be read as a checkpoint"),
        (lambda: (folder / FILES[0]).write_bytes(b""), f"{FILES[0]} cannot be read as a checkpoint"),
        (lambda: cut(folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (lambda: torch.save({"files": os.system}, folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (lambda: torch.save([1], folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (lambda: (folder / "contents.pt").unlink(), "is no whole checkpoint: contents.pt lacks; its first save was cut short"),
    ]
    for change, told in changes:
        change()
        with pytest.raises(InputError, match=told):
            read(folder)
        with pytest.raises(InputError, match=r"cannot be read as a checkpoint|is no whole checkpoint"):
            check(folder)


def test_other_strategies_go_on_in_the_place_of_a_folder(folder: Path) -> None:
    files = CheckpointFiles()
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT)
    files.save_checkpoint({"state_dict": {"weight": WEIGHT * 3}}, folder)
    assert folder.is_file()
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT * 3)
    files.save_checkpoint({"state_dict": {"weight": WEIGHT * 4}}, folder)
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT * 4)
