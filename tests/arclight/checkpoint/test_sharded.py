"""A sharded checkpoint loads with any number of processes, and an incomplete one is reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from arclight.checkpoint.atomic_write import NotWrittenError, sha256
from arclight.checkpoint.sharded import check_sharded, load_sharded, rows_of_rank, write_contents
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.errors import InputError

WEIGHT = torch.arange(10.0).view(5, 2)
BIAS = torch.tensor([7], dtype=torch.bfloat16)
FILES = ["ab-00000-of-00002.safetensors", "ab-00001-of-00002.safetensors"]


def checksums(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: sha256(folder / name) for name in names}


def meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


CONTENTS_OF_TWO = {
    "epoch": 3,
    "state_dict": {"weight": meta(WEIGHT)},
    "moments": [{"of": meta(BIAS), "step": torch.ones(())}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As two processes write it, the second with no row of the bias."""
    folder = tmp_path / "last.ckpt"
    folder.mkdir()
    save_file({"/state_dict/weight": WEIGHT[:3].clone(), "/moments/0/of": BIAS}, folder / FILES[0])
    save_file({"/state_dict/weight": WEIGHT[3:].clone(), "/moments/0/of": BIAS[:0]}, folder / FILES[1])
    write_contents(folder, CONTENTS_OF_TWO, checksums(folder, FILES))
    return folder


def test_one_process_loads_everything(folder: Path) -> None:
    contents = load_sharded(folder)
    assert contents["epoch"] == 3
    assert torch.equal(contents["state_dict"]["weight"], WEIGHT)
    assert torch.equal(contents["moments"][0]["of"], BIAS)
    assert contents["moments"][0]["step"] == 1


def test_skipped_keys_stay_meta_tensors(folder: Path) -> None:
    (folder / FILES[1]).write_bytes((folder / FILES[0]).read_bytes())  # too many rows, which nothing reads
    contents = load_sharded(folder, skip=("state_dict",), load_tensor=lambda reader, name, like: torch.zeros(()))
    assert contents["state_dict"]["weight"].is_meta


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_any_number_of_processes_loads_its_rows(folder: Path, world_size: int) -> None:
    parts = []
    for rank in range(world_size):

        def load_rows(reader: Any, name: str, like: Tensor, rank: int = rank) -> Tensor:
            return reader.rows(name, like, *rows_of_rank(len(like), rank, world_size))

        parts.append(load_sharded(folder, load_tensor=load_rows)["state_dict"]["weight"])
    assert torch.equal(torch.cat(parts), WEIGHT)
    for part, expected in zip(parts, WEIGHT.chunk(world_size), strict=False):
        assert torch.equal(part, expected)


def save_again(folder: Path, factor: int, *, keep: int = 1) -> str:
    name = f"{factor:02}-00000-of-00001.safetensors"
    save_file({"/state_dict/weight": WEIGHT * factor}, folder / name)
    write_contents(folder, {"state_dict": {"weight": meta(WEIGHT)}}, checksums(folder, [name]), keep=keep)
    return name


def test_a_save_replaces_the_previous_one(folder: Path) -> None:
    (folder / "cd-00000-of-00001.safetensors.part").touch()  # of a save that was killed
    name = save_again(folder, 2)
    assert torch.equal(load_sharded(folder)["state_dict"]["weight"], WEIGHT * 2)
    assert {path.name for path in folder.iterdir()} == {"contents.pt", name}
    assert [path.name for path in folder.parent.iterdir()] == ["last.ckpt"]


def test_the_first_save_has_no_previous_one(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    save_again(tmp_path / "last.ckpt", 2, keep=3)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_previous_checkpoints_are_kept(folder: Path) -> None:
    for factor in (2, 3, 4):
        save_again(folder, factor, keep=3)
    names = ["last.ckpt", "last.previous.ckpt", "last.previous_2.ckpt"]
    assert sorted(path.name for path in folder.parent.iterdir()) == names
    for name, factor in zip(names, (4, 3, 2), strict=True):
        check_sharded(folder.with_name(name))
        assert torch.equal(load_sharded(folder.with_name(name))["state_dict"]["weight"], WEIGHT * factor)


def test_a_full_disk_leaves_the_previous_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(NotWrittenError, match=r"contents.pt could not be written: .*No space left"):
        save_again(folder, 2)
    check_sharded(folder)
    assert torch.equal(load_sharded(folder)["state_dict"]["weight"], WEIGHT)


def test_flipped_bits_are_detected(folder: Path) -> None:
    check_sharded(folder)
    for name in FILES:
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 2):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            (folder / name).write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name} cannot be read as a checkpoint"):
                check_sharded(folder)
        (folder / name).write_bytes(whole)
    check_sharded(folder)


def test_another_version_is_reported(folder: Path) -> None:
    torch.save({"version": 3, "files": {}, "contents": {}}, folder / "contents.pt")
    with pytest.raises(InputError, match="last.ckpt is a sharded checkpoint of version 3; this arclight reads version 2"):
        load_sharded(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def test_incomplete_and_damaged_directories_are_reported(folder: Path) -> None:
    changes = [
        (
            lambda: (folder / FILES[1]).rename(folder / "elsewhere"),
            f"is an incomplete checkpoint: {FILES[1]} is missing",
        ),
        (lambda: save_file({}, folder / FILES[1]), f"{FILES[1]} cannot be read as a checkpoint"),
        (lambda: save_file({"/state_dict/weight": WEIGHT[:1].clone()}, folder / FILES[1]), "weight has 4 rows instead of 5"),
        (lambda: cut(folder / FILES[0]), f"{FILES[0]} cannot be read as a checkpoint"),
        (lambda: (folder / FILES[0]).write_bytes(b""), f"{FILES[0]} cannot be read as a checkpoint"),
        (lambda: cut(folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (lambda: torch.save({"files": os.system}, folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (lambda: torch.save([1], folder / "contents.pt"), "contents.pt cannot be read as a checkpoint"),
        (
            lambda: (folder / "contents.pt").unlink(),
            "is an incomplete checkpoint: contents.pt is missing",
        ),
    ]
    for change, message in changes:
        change()
        with pytest.raises(InputError, match=message):
            load_sharded(folder)
        with pytest.raises(InputError, match=r"cannot be read as a checkpoint|is an incomplete checkpoint"):
            check_sharded(folder)


def test_other_strategies_load_and_replace_a_directory(folder: Path) -> None:
    files = CheckpointFiles()
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT)
    files.save_checkpoint({"state_dict": {"weight": WEIGHT * 3}}, folder)
    assert folder.is_file()
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT * 3)
    files.save_checkpoint({"state_dict": {"weight": WEIGHT * 4}}, folder)
    assert torch.equal(files.load_checkpoint(folder, weights_only=True)["state_dict"]["weight"], WEIGHT * 4)
