import os
from pathlib import Path

import pytest

from arclight.config.atomic_file import write_atomically


@pytest.mark.parametrize(("data", "content"), [("Grüße\r\n", "Grüße\r\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_replaces_a_file_with_text_or_bytes(data: str | bytes, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    write_atomically(path, data)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_an_error_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    (tmp_path / f"file.txt.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
