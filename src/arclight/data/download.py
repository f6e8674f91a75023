"""Downloads that resume, are verified and happen once per node; archives unpacked with limits."""

from __future__ import annotations

import gzip
import hashlib
import logging
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock

from arclight.errors import InputError

_log = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 20  # to connect, and between two chunks
ATTEMPTS = 5  # for one URL, as long as each of them brings new bytes
CHUNK = 1 << 16  # bytes read at once
UNPACKED_LIMIT = 1 << 30  # bytes of one archive
MAX_MEMBERS = 100_000  # files and directories of one archive


def fetch(urls: Sequence[str], destination: Path, *, check: Callable[[Path], None]) -> None:
    """Downloads a file unless it exists. An interrupted download leaves `<destination>.part`, which the next call resumes.

    Many processes may call this at once: one downloads, the others wait for it.

    Args:
        urls: mirrors of one file, tried in turn.
        destination: path of the file; its directory is made if needed.
        check: raises InputError when the file it is given is damaged.

    Raises:
        InputError: when the directory cannot be written, or no URL gives the file; it lists what each URL answered.
    """
    if destination.exists():
        return
    with _exclusive(destination):
        if destination.exists():
            return
        part = destination.with_name(f"{destination.name}.part")
        if part.is_symlink():  # not ours: it may lead to any file
            part.unlink()
        failures = []
        for url in urls:
            if (failure := _download(url, part, check)) is None:
                part.replace(destination)
                return
            failures.append(f"  {url}: {failure}\n")
        kept = f"The first {size:,} bytes are kept. " if (size := _size(part)) else ""
        if not kept:
            part.unlink(missing_ok=True)
        raise InputError(
            f"cannot download {destination.name}:\n{''.join(failures)}{kept}Try again, or put the file at {destination}."
        )


def _download(url: str, part: Path, check: Callable[[Path], None]) -> str | None:
    """Returns None once `part` is complete and verified, else the reason why this URL does not give the file."""
    from requests import RequestException  # takes a while to import

    reason = ""
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            _transfer(url, part)
        except RequestException as error:
            reason = _reason(error)
            if _size(part) <= before:
                return reason
            continue
        except OSError as error:
            raise InputError(f"cannot write {part}: {error.strerror}; run again to resume the download") from error
        try:
            check(part)
        except InputError as error:
            part.unlink()
            reason = str(error)
            if before == 0:
                return reason
            continue  # the old beginning may belong to another file: download all of it
        return None
    return reason


def _transfer(url: str, part: Path) -> None:
    """Appends the missing bytes to `part`; starts over where the server does not support ranges."""
    import requests

    before = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={before}-"} if before else {})
    with requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing comes after `part`: it is complete, or of another file, which the check finds out
        response.raise_for_status()
        _log.info("downloading %s", url)
        is_rest = response.status_code == HTTPStatus.PARTIAL_CONTENT
        num_chunks = -(-int(response.headers.get("Content-Length", 0)) // CHUNK) or None
        with part.open("ab" if is_rest else "wb") as file:
            for chunk in progress(response.iter_content(CHUNK), f"download {part.stem}", num_chunks):
                file.write(chunk)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: BaseException) -> str:
    """Returns the cause of an error of `requests`, which wraps those of the network several times."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    while error.__context__ is not None:
        error = error.__context__
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S} s"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def progress(items: Iterable[T], title: str, total: int | None) -> Iterable[T]:
    """Returns the items, with a progress bar while they are consumed if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(items, title, total, console=Console(stderr=True), disable=not sys.stderr.isatty())


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Context manager that keeps other processes from making `path`; on InputError it cleans up after itself."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    new_directories = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write in {path.parent}: {error.strerror}; choose a writable data.root") from error
    try:
        yield
    except InputError:
        Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for directory in new_directories:
                directory.rmdir()
        raise
    finally:
        lock.release()


def md5_of(path: Path) -> str:
    """Returns the file's md5, 32 hexadecimal digits: it detects damage, not forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, directory: Path) -> None:
    """Unpacks a tar file (plain or .gz) into a new directory; does nothing if it exists. A single top directory is left out.

    Raises:
        InputError: when the archive is damaged, would write outside the directory, holds links or devices, more than
            UNPACKED_LIMIT bytes or MAX_MEMBERS members, or when the directory cannot be written.
    """
    with _exclusive(directory):
        if directory.exists():
            return
        unfinished = directory.with_name(f".{directory.name}.unpacking")
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process
        try:
            inside = unfinished / "all"
            inside.mkdir(parents=True)
            _extract(archive, inside)
            top = list(inside.iterdir())
            (top[0] if len(top) == 1 and top[0].is_dir() else inside).replace(directory)
        except InputError:
            raise
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, RecursionError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise InputError(f"{archive} is an incomplete or corrupt archive ({reason}); replace it") from error
        except OSError as error:
            raise InputError(f"cannot unpack {archive} to {directory}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _extract(archive: Path, directory: Path) -> None:
    unpacked = 0
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        plain: Any = gzip.GzipFile(fileobj=file) if is_gzip else file
        stream: Any = _Bounded(plain, archive)  # as much of a file as tarfile uses
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for number, member in enumerate(tar):
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(f"{archive} holds '{member.name}', which would be written outside its directory")
                if not (member.isfile() or member.isdir()):
                    raise InputError(f"{archive} holds '{member.name}', which is neither a file nor a directory")
                unpacked += max(0, member.size)
                if unpacked > UNPACKED_LIMIT or number >= MAX_MEMBERS:
                    raise _too_large(archive)
                tar.extract(member, directory, filter="data")
        while stream.read(CHUNK):
            pass  # to the end of the compressed stream, where its checksum is


def _too_large(archive: Path) -> InputError:
    limits = f"{UNPACKED_LIMIT:,} bytes or {MAX_MEMBERS:,} files"
    return InputError(f"{archive} unpacks to more than {limits}; unpack it yourself if you trust it")


class _Bounded:
    """A decompressed tar file that raises InputError where it becomes too long, headers and padding included.

    tarfile reads headers of any length into memory at once, and a small archive can hold terabytes of zeros.
    """

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self.stream, self.archive, self.tell = stream, archive, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK:
            raise _too_large(self.archive)
        self._check(self.tell())
        return self.stream.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        return self.stream.seek(position)

    def _check(self, position: int) -> None:
        if position > 2 * UNPACKED_LIMIT + CHUNK:
            raise _too_large(self.archive)
