from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from arclight.data import download
from arclight.data.download import CHUNK, fetch, md5_of, progress, unpack
from arclight.errors import InputError

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes: several pieces
CONTENT_MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path; records what was asked for. A path may be cut off or may take no ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/file": CONTENT}
        self.cut_after: dict[str, list[int]] = {}  # bytes of each answer, one after the other, then no more cuts
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path and Range

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cuts = self.server.cut_after.get(self.path, [])
        self.wfile.write(content[start:][: cuts.pop(0) if cuts else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def check(path: Path) -> None:
    if md5_of(path) != CONTENT_MD5:
        raise InputError("another md5")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_md5_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert md5_of(tmp_path / "abc") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321


def test_a_file_is_downloaded_into_a_new_directory_and_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    destination = tmp_path / "new" / "file"
    fetch([server.url()], destination, check=check)
    assert destination.read_bytes() == CONTENT
    assert visible(destination.parent) == ["file"]
    fetch([server.url()], destination, check=check)
    assert server.asked == [("/file", None)]


@pytest.mark.parametrize(
    ("part", "ranges", "then"),
    [
        pytest.param(CONTENT[:1000], True, [], id="its beginning: resumed"),
        pytest.param(CONTENT, True, [], id="all of it: taken"),
        pytest.param(b"x" * 1000, False, [], id="a server without ranges: starts over"),
        pytest.param(b"x" * 1000, True, [("/file", None)], id="of another file: thrown away and started over"),
        pytest.param(CONTENT + b"x", True, [("/file", None)], id="too much: thrown away and started over"),
    ],
)
def test_what_is_there_of_a_part(
    tmp_path: Path, server: Server, part: bytes, ranges: bool, then: list[tuple[str, str | None]]
) -> None:
    server.ranges = ranges
    (tmp_path / "file.part").write_bytes(part)
    fetch([server.url()], tmp_path / "file", check=check)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert visible(tmp_path) == ["file"]
    assert server.asked == [("/file", f"bytes={len(part)}-"), *then]


def test_a_transfer_that_is_cut_off_resumes_at_once(tmp_path: Path, server: Server) -> None:
    server.cut_after["/file"] = [5 * CHUNK, 5 * CHUNK + 100]
    fetch([server.url()], tmp_path / "file", check=check)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [("/file", None), ("/file", f"bytes={5 * CHUNK}-"), ("/file", f"bytes={10 * CHUNK}-")]


def test_a_transfer_that_stays_cut_off_leaves_its_part_and_the_next_call_resumes(tmp_path: Path, server: Server) -> None:
    server.cut_after["/file"] = [100_000, 0]
    kept = 100_000 // CHUNK * CHUNK  # whole chunks only
    with pytest.raises(
        InputError,
        match=rf"\(0 bytes read, {len(CONTENT) - kept} more expected\)\nThe first {kept:,} bytes are kept\. Try again",
    ):
        fetch([server.url()], tmp_path / "file", check=check)
    assert visible(tmp_path) == ["file.part"]
    fetch([server.url()], tmp_path / "file", check=check)
    assert server.asked[-1] == ("/file", f"bytes={kept}-")
    assert visible(tmp_path) == ["file"]


def test_after_a_wrong_file_the_next_url_is_tried(tmp_path: Path, server: Server) -> None:
    server.files["/wrong"] = CONTENT[::-1]
    fetch([server.url("/missing"), server.url("/wrong"), server.url()], tmp_path / "file", check=check)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [("/missing", None), ("/wrong", None), ("/file", None)]
    assert visible(tmp_path) == ["file"]


def test_when_no_url_gives_it_one_error_lists_each_reason_and_nothing_is_left(
    tmp_path: Path, server: Server, closed_port: int
) -> None:
    server.files["/wrong"] = b"short"
    urls = [server.url("/missing"), server.url("/wrong"), f"http://127.0.0.1:{closed_port}/file"]
    with pytest.raises(InputError) as caught:
        fetch(urls, tmp_path / "file", check=check)
    assert str(caught.value).splitlines() == [
        "cannot download file:",
        f"  {urls[0]}: HTTP 404 Not Found",
        f"  {urls[1]}: another md5",
        f"  {urls[2]}: Connection refused",
        f"Try again, or put the file at {tmp_path / 'file'}.",
    ]
    assert visible(tmp_path) == []


def test_an_unreachable_network_keeps_an_earlier_part(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:10])
    with pytest.raises(InputError, match=r"Connection refused\nThe first 10 bytes are kept\."):
        fetch([f"http://127.0.0.1:{closed_port}/file"], tmp_path / "file", check=check)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:10]


def test_a_silent_server_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(InputError, match=r"no answer within 0\.05 s"):
        fetch([f"http://127.0.0.1:{silent.getsockname()[1]}/file"], tmp_path / "file", check=check)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"cannot write in {tmp_path}/file/folder: .*; choose a writable data\.root"):
        fetch(["http://127.0.0.1/file"], tmp_path / "file" / "folder" / "file", check=check)


def test_a_part_that_cannot_be_written_is_reported(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file.part").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*file\.part: Is a directory"):
        fetch([server.url()], tmp_path / "file", check=check)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_reported(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def on_full_disk(path: Path, mode: str = "r") -> object:
        return original(Path("/dev/full") if path.name == "file.part" else path, mode)

    monkeypatch.setattr(Path, "open", on_full_disk)
    with pytest.raises(InputError, match=r"cannot write .*file\.part: No space left on device; run again to resume"):
        fetch([server.url()], tmp_path / "file", check=check)


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path, server: Server) -> None:
    (tmp_path / "precious").write_bytes(CONTENT[:10])
    (tmp_path / "file.part").symlink_to(tmp_path / "precious")
    fetch([server.url()], tmp_path / "file", check=check)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert (tmp_path / "precious").read_bytes() == CONTENT[:10]


def test_many_threads_load_once(tmp_path: Path, server: Server) -> None:
    def load() -> None:
        fetch([server.url()], tmp_path / "file", check=check)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [("/file", None)]


def test_two_processes_load_once(tmp_path: Path, server: Server) -> None:
    code = (
        "import sys; from pathlib import Path; from arclight.data.download import fetch;"
        "fetch([sys.argv[1]], Path(sys.argv[2]), check=lambda path: None)"
    )
    command = [sys.executable, "-c", code, server.url(), str(tmp_path / "file")]
    processes = [subprocess.Popen(command, env=os.environ | {"no_proxy": "127.0.0.1"}) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [("/file", None)]


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "decode", 3)) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), "decode", 6)) == [0, 1, 2]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert re.search(r"decode.* 50%", captured.err)


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("top", ["", "only/"])
def test_an_archive_s_files_and_those_of_its_only_folder_are_put_into_the_folder(tmp_path: Path, top: str) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {f"{top}one": b"1", f"{top}in/two": b"22"})
    unpack(archive, tmp_path / "data" / "folder")
    assert (tmp_path / "data" / "folder" / "one").read_bytes() == b"1"
    assert (tmp_path / "data" / "folder" / "in" / "two").read_bytes() == b"22"
    assert visible(tmp_path / "data") == ["folder"]


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    unpack(tar_of(tmp_path / "a.tar.gz", {"one": b"1"}), tmp_path / "folder")
    assert visible(tmp_path / "folder") == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".folder.unpacking" / "all").mkdir(parents=True)
    (tmp_path / ".folder.unpacking" / "all" / "half").touch()
    unpack(tar_of(tmp_path / "a.tar.gz", {"one": b"1"}), tmp_path / "folder")
    assert visible(tmp_path / "folder") == ["one"]
    assert not (tmp_path / ".folder.unpacking").exists()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("../outside", tarfile.REGTYPE), r"holds '\.\./outside', which would be written outside"),
        (special("/outside", tarfile.REGTYPE), r"holds '/outside', which would be written outside"),
        (special("good/../../outside", tarfile.REGTYPE), "would be written outside its directory"),
        (special("link", tarfile.SYMTYPE, "/etc"), "holds 'link', which is neither a file nor a directory"),
        (special("link", tarfile.LNKTYPE, "good"), "holds 'link', which is neither a file nor a directory"),
        (special("device", tarfile.CHRTYPE), "holds 'device', which is neither a file nor a directory"),
        (special("device", tarfile.BLKTYPE), "holds 'device', which is neither a file nor a directory"),
        (special("pipe", tarfile.FIFOTYPE), "holds 'pipe', which is neither a file nor a directory"),
        (special("a" * 300, tarfile.REGTYPE), "cannot unpack .*: File name too long"),
    ],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    place = tmp_path / "place"
    archive = tar_of(tmp_path / "a.tar.gz", {"good": b"1", "bad": member})
    with pytest.raises(InputError, match=message):
        unpack(archive, place / "folder")
    assert visible(tmp_path) == ["a.tar.gz"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "UNPACKED_LIMIT", 1000)
    unpack(tar_of(tmp_path / "fits.tar.gz", {"one": bytes(600), "two": bytes(400)}), tmp_path / "fits")
    with pytest.raises(InputError, match=r"b\.tar\.gz unpacks to more than 1,000 bytes"):
        unpack(tar_of(tmp_path / "b.tar.gz", {"one": bytes(600), "two": bytes(401)}), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    monkeypatch.setattr(download, "MAX_MEMBERS", 3)
    unpack(tar_of(tmp_path / "few.tar.gz", dict.fromkeys("abc", b"")), tmp_path / "few")
    with pytest.raises(InputError, match=r"many\.tar\.gz unpacks to more than 1,000 bytes or 3 files"):
        unpack(tar_of(tmp_path / "many.tar.gz", dict.fromkeys("abcd", b"")), tmp_path / "folder")


def write_header_bomb(path: Path, kind: bytes, size: int) -> Path:
    """A header that says it is so long, and zeros without end after it."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, size
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf())
        for _ in range(8):
            file.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = write_header_bomb(tmp_path / "a.tar.gz", kind, 1 << 32)
    with pytest.raises(InputError, match=r"a\.tar\.gz unpacks to more than"):
        unpack(archive, tmp_path / "folder")


def test_zeros_after_the_end_are_not_read_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "UNPACKED_LIMIT", 1 << 20)
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(8):
            file.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"a\.tar\.gz unpacks to more than"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "folder")


@pytest.mark.parametrize(
    "record", [b"path=a\0b", b"size=-1", b"size=x", b"mtime=1e300", b"path=" + b"\xff\xfe", b"GNU.sparse.map=x"]
)
def test_extended_headers_that_make_no_sense_are_reported(tmp_path: Path, record: bytes) -> None:
    length = len(record) + 4
    content = b"%d " % length + record + b"\n"
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, len(content)
    plain = tarfile.TarInfo("plain")
    plain.size = 3
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf() + content.ljust(512, b"\0") + plain.tobuf() + b"abc".ljust(512, b"\0") + bytes(1024))
    with suppress(InputError):  # nothing else may come of it
        unpack(tmp_path / "a.tar.gz", tmp_path / "folder")
    assert visible(tmp_path) in (["a.tar.gz"], ["a.tar.gz", "folder"])


@pytest.mark.parametrize("damage", ["cut", "garbled", "no archive", "empty"])
def test_a_damaged_archive_is_named_with_the_fix(tmp_path: Path, damage: str) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {"one": os.urandom(50_000)})
    content = archive.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "garbled": content[:25_000] + b"\0" * 1000 + content[26_000:],
        "no archive": b"<html>not found</html>" * 100,
        "empty": b"",
    }
    archive.write_bytes(broken[damage])
    with pytest.raises(InputError, match=r"a\.tar\.gz is an incomplete or corrupt archive \(.*\); replace it"):
        unpack(archive, tmp_path / "folder")
    assert visible(tmp_path) == ["a.tar.gz"]


def test_an_archive_that_cannot_be_read_or_written_out_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot unpack .*missing\.tar\.gz to .*folder: No such file"):
        unpack(tmp_path / "missing.tar.gz", tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write in .*/file"):
        unpack(tmp_path / "missing.tar.gz", tmp_path / "file" / "folder")
