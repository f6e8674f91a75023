"""Files from the net: whole, checked, loaded once per node however many processes ask; archives, unpacked with suspicion."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from arclight.errors import InputError

_log = logging.getLogger(__name__)

TIMEOUT_S = 20  # to connect, and between two pieces of an answer
ATTEMPTS = 5  # for one URL, as long as each of them brings new bytes
PIECE = 1 << 18  # bytes read at once
UNPACKED_LIMIT = 1 << 30  # bytes; far above any archive that is unpacked here
MOST_MEMBERS = 100_000  # files and folders in one


def fetch(urls: Sequence[str], destination: Path, *, check: Callable[[Path], None]) -> None:
    """Afterwards `destination` is the whole file, which `check` has passed; if it is there already, nothing happens.

    An interrupted transfer leaves `<destination>.part`, where the next call goes on. Many processes may call this at once: one
    loads, the others wait for it.

    Args:
        urls: places of one and the same file, tried in turn.
        destination: path of the file; its folder is made if needed.
        check: raises InputError when the file it is given is damaged.

    Raises:
        InputError: when the folder cannot be written, or no URL gives the file; tells what each URL answered.
    """
    if destination.exists():
        return
    with _locked(destination):
        if destination.exists():
            return
        part = destination.with_name(f"{destination.name}.part")
        failures = []
        for url in urls:
            failure = _fetch_from(url, part, check)
            if failure is None:
                part.replace(destination)
                return
            failures.append(f"  {url}: {failure}")
        told = "\n".join(failures)
        raise InputError(
            f"cannot download {destination.name}:\n{told}\n{_kept(part)}Try again, or put the file at {destination} by hand."
        )


def _fetch_from(url: str, part: Path, check: Callable[[Path], None]) -> str | None:
    """None once `part` is whole and checked, otherwise the reason why this URL cannot give it."""
    reason = ""
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            _transfer(url, part)
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
            if _size(part) <= before:
                return reason
            continue
        try:
            check(part)
        except InputError as error:
            part.unlink()
            if before == 0:
                return str(error)
            reason = str(error)  # the old beginning may belong to another file: once more from the start
            continue
        return None
    return reason


def _transfer(url: str, part: Path) -> None:
    """Adds to `part` what it lacks; begins anew where the server takes no ranges."""
    before = _size(part)
    headers = {"User-Agent": "arclight"} | ({"Range": f"bytes={before}-"} if before else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - addresses stand in our code
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is nothing after `part`: it is whole, or of another file, and the check tells which
        raise
    with response:
        start = before if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _log.info("downloading %s", url)
        with progress(f"download {part.stem}", total, start) as advance:
            _append(response, part, start, advance)
    if total is not None and _size(part) < total:
        raise ConnectionError(f"cut off after {_size(part):,} of {total:,} bytes")


def _append(response: http.client.HTTPResponse, part: Path, start: int, advance: Callable[[int], None]) -> None:
    try:
        file = part.open("ab" if start else "wb")
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror}") from error
    with file:
        while piece := response.read(PIECE):
            try:
                file.write(piece)
            except OSError as error:
                raise InputError(f"cannot write {part}: {error.strerror}; it goes on from here when there is room") from error
            advance(len(piece))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _kept(part: Path) -> str:
    """What is said of the bytes that are kept for the next time."""
    if size := _size(part):
        return f"The first {size:,} bytes are kept. "
    part.unlink(missing_ok=True)
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_S} s"
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


@contextmanager
def progress(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A function that moves a bar on the terminal by so many units, or does nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=total, completed=done)
        yield lambda amount: bars.advance(bar, amount)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Inside, no other process makes `path`. When it could not be made, the lock and folders that are still empty go again."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"cannot write in {path.parent}: {error.strerror}; choose a data.root in a folder that can be written"
        ) from error
    try:
        yield
    except InputError:
        Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):  # something is in it
            for folder in new_folders:
                folder.rmdir()
        raise
    finally:
        lock.release()


def md5_of(path: Path) -> str:
    """The file's md5, 32 hexadecimal digits; good against damage, not against forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Afterwards `folder` holds everything in the tar file (plain or .gz), whole; if it is there already, nothing happens.

    An archive with one folder at its top gives that folder's content.

    Raises:
        InputError: when the archive is damaged, would write outside the folder, holds links or devices, more than
            UNPACKED_LIMIT bytes or MOST_MEMBERS files, or when the place cannot be written.
    """
    with _locked(folder):
        if folder.exists():
            return
        half_done = folder.with_name(f".{folder.name}.unpacking")
        shutil.rmtree(half_done, ignore_errors=True)  # left by a process that was killed
        try:
            inside = half_done / "all"
            inside.mkdir(parents=True)
            _extract(archive, inside)
            top = list(inside.iterdir())
            (top[0] if len(top) == 1 and top[0].is_dir() else inside).replace(folder)
        except InputError:
            raise
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, RecursionError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise InputError(f"{archive} is no whole archive ({reason}); put a whole one in its place") from error
        except OSError as error:
            raise InputError(f"cannot unpack {archive} to {folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(half_done, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    unpacked = 0
    with archive.open("rb") as file, _decompressed(file) as stream:
        bounded: BinaryIO = _Bounded(stream, archive)  # type: ignore[assignment]  # as much of one as tarfile asks for
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            for number, member in enumerate(tar):
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(
                        f"{archive} holds '{member.name}', which would be written outside its folder; do not use it"
                    )
                if not (member.isfile() or member.isdir()):
                    raise InputError(f"{archive} holds '{member.name}', which is neither file nor folder; do not use it")
                unpacked += max(0, member.size)
                if unpacked > UNPACKED_LIMIT or number >= MOST_MEMBERS:
                    raise _too_much(archive)
                tar.extract(member, folder, filter="data")
        while bounded.read(PIECE):
            pass  # to the end of the compressed stream, where its checksum stands


def _decompressed(file: BinaryIO) -> BinaryIO:
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if is_gzip else file  # type: ignore[return-value]


def _too_much(archive: Path) -> InputError:
    return InputError(
        f"{archive} unpacks to more than {UNPACKED_LIMIT:,} bytes or {MOST_MEMBERS:,} files; unpack it by hand if you trust it"
    )


class _Bounded:
    """A tar file, decompressed, that ends with an InputError where it becomes too long: headers and filling count, too.

    tarfile takes headers of any length into memory at once, and a small archive can hold terabytes of zeros.
    """

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self.stream, self.archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= PIECE or self.stream.tell() > 2 * UNPACKED_LIMIT + PIECE:
            raise _too_much(self.archive)
        return self.stream.read(size)

    def seek(self, place: int) -> int:
        if place > 2 * UNPACKED_LIMIT + PIECE:
            raise _too_much(self.archive)
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()
