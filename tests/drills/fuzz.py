"""Changes bytes in valid files, and values in valid checkpoints: each file must be read, or refused with one error message.

    python tests/drills/fuzz.py --seconds 60
    python tests/drills/fuzz.py --only columns,archive --seed 3

Any other exception, more than LONGEST_S seconds or more than MOST_MEMORY is a finding: it gets one line and its file is kept.
The exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import logging
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from arclight.checkpoint.contents import restore, sharded
from arclight.config.compose import read_settings
from arclight.data.download import unpack
from arclight.errors import InputError
from arclight.metrics.records import read_predictions
from arclight.report.report import write_report
from arclight.runs.evaluation import evaluate
from arclight.text.columns import read_columns
from arclight.text.tag_schemes import in_iob2
from project.data.cifar10 import CLASS_NAMES, DIRECTORY, RECORD, TEST_FILES, TRAIN_FILES, Cifar10
from tests.drills.alterations import alter, image_checkpoint, saved, text_checkpoint

LONGEST_S = 10  # seconds for one file, on a busy machine
MOST_MEMORY = 16 << 30  # bytes of address space
SELDOM = {"run_dir": 50, "altered": 5, "config": 5}  # slow readers: once in this many rounds
TEXT = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n\nZürich\tNN\tI-NP B-LOC\n\n"
RESULTS = '{"status": "finished", "monitor": "val/accuracy", "val/accuracy": 0.5, "test/accuracy": 0.25, "steps": 12}'
PREDICTIONS = '{"index": 0, "label": "cat", "predicted": "dog", "confidence": 0.5}\n' * 3
CONFIG = "seed: 0\ndata:\n  _target_: project.data.synthetic_images.SyntheticImages\n  sizes: [1, 2.5, null]\n  name: 'x: y'\n"
WORDS = (
    b"\0",
    b"\xff" * 4,
    b"\n",
    b"\r\n",
    b"[" * 2000,
    b"{" * 2000,
    b"9" * 400,
    b"&a [*a]",
    b"!!python/name:os.system ",
    b"\xef\xbb\xbf",
)


def changed(content: bytes, draw: random.Random) -> bytes:
    """Returns the content with one to four random changes."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place : place + draw.choice((1, 2, 4, 8))] = draw.randbytes(draw.choice((1, 2, 4, 8)))
        elif kind == 2:
            del data[place : place + draw.choice((1, 16, 512, len(data)))]
        elif kind == 3:
            data[place:place] = draw.choice(WORDS)
        elif kind == 4:
            other = draw.randrange(len(data) + 1)
            data[place:place] = data[other : other + draw.choice((1, 64, 512))]
        elif kind == 5:
            data[place : place + 8] = draw.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8), b"77777777"))
        else:
            number = str(draw.choice((-1, 0, 1 << 31, 1 << 63, 10**30))).encode()
            data[place : place + len(number)] = number
    return bytes(data)


# the readers, by kind: write the changed file and read it


def columns(folder: Path, content: bytes, draw: random.Random) -> None:
    (folder / "a.txt").write_bytes(content)
    separator = draw.choice((None, " ", "\t", ","))
    columns = {"word_column": draw.choice((0, 1, -2, 7)), "tag_column": draw.choice((-1, 3, 0))}
    encoding = draw.choice(("utf-8", "utf-8", "latin-1", "utf-16", "utf-7", "cp037", "idna", "punycode", "unicode_escape"))
    in_iob2(read_columns(folder / "a.txt", separator=separator, encoding=encoding, **columns))


def cifar_files(folder: Path) -> Path:
    place = folder / DIRECTORY
    place.mkdir()
    (place / CLASS_NAMES).write_text("cat\ndog\nemu\n\n")
    records = np.concatenate([np.arange(4, dtype=np.uint8)[:, None] % 3, np.ones((4, RECORD - 1), np.uint8)], 1)
    for name in (*TRAIN_FILES, *TEST_FILES):
        (place / name).write_bytes(records.tobytes())
    return place


def read_cifar(root: Path) -> None:
    data = Cifar10(str(root), batch_size=2, validation=2, download=False)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    next(iter(data.train_dataloader()))


def cifar(folder: Path, content: bytes, draw: random.Random) -> None:
    place = cifar_files(folder)
    name = draw.choice((CLASS_NAMES, TRAIN_FILES[2], TEST_FILES[0]))
    (place / name).write_bytes(changed((place / name).read_bytes(), draw))
    read_cifar(folder)


def archive(folder: Path, content: bytes, draw: random.Random) -> None:
    """Reads a .tar.gz that was changed before compression, so that tarfile sees the change, or after."""
    (folder / "cifar-10-binary.tar.gz").write_bytes(content)
    read_cifar(folder)


def small_archive(folder: Path, content: bytes, draw: random.Random) -> None:
    (folder / "a.tar.gz").write_bytes(content)
    unpack(folder / "a.tar.gz", folder / "out")


def checkpoint(folder: Path, content: bytes, draw: random.Random) -> None:
    (folder / "a.ckpt").write_bytes(content)
    restore(folder / "a.ckpt")


def altered(folder: Path, content: bytes, draw: random.Random) -> None:
    """Reads a well-formed checkpoint whose config or data info was altered, and evaluates it if that succeeds."""
    (folder / "a.ckpt").write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()):
        evaluate(str(folder / "a.ckpt"), {})


def contents(folder: Path, content: bytes, draw: random.Random) -> None:
    """Reads the file of a sharded checkpoint that torch writes."""
    (folder / "a.safetensors").write_bytes(save({"/state_dict/w": torch.ones(3, 2)}))
    (folder / "contents.pt").write_bytes(content)
    sharded.load_sharded(folder)


def weights(folder: Path, content: bytes, draw: random.Random) -> None:
    torch.save(
        {"files": ["a.safetensors"], "contents": {"state_dict": {"w": torch.empty(3, 2, device="meta")}}},
        folder / "contents.pt",
    )
    (folder / "a.safetensors").write_bytes(content)
    sharded.load_sharded(folder)


def config(folder: Path, content: bytes, draw: random.Random) -> None:
    with contextlib.suppress(ValueError):  # callers handle it
        read_settings(content.decode("utf-8"))


def run_dir(folder: Path, content: bytes, draw: random.Random) -> None:
    for name, text in (("results.json", RESULTS), ("predictions.jsonl", PREDICTIONS), ("config.yaml", CONFIG)):
        (folder / name).write_bytes(changed(text.encode(), draw))
    with contextlib.suppress(InputError):
        read_predictions(folder / "predictions.jsonl")
    write_report(folder)


def archive_bytes(draw: random.Random, *, is_whole: bool) -> bytes:
    packed = io.BytesIO()
    form = draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tempfile.TemporaryDirectory() as made, tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        if is_whole:
            tar.add(cifar_files(Path(made)), DIRECTORY)
        else:
            Path(made, "a").write_bytes(b"abc")
            tar.add(made, "ü" * 60 if form == tarfile.PAX_FORMAT else "x" * 90)
    if draw.random() < 0.7:
        head = bytearray(packed.getvalue())
        return gzip.compress(repaired(changed(bytes(head[:4096]), draw) + bytes(head[4096:]), draw), 1)
    return changed(gzip.compress(packed.getvalue(), 1), draw)


def repaired(content: bytes, draw: random.Random) -> bytes:
    """Returns the archive, mostly with valid header checksums again, so that changed headers are accepted."""
    data = bytearray(content)
    for start in range(0, min(len(data), 8192) - 511, 512) if draw.random() < 0.8 else ():
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            data[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(data)


Target = Callable[[Path, bytes, random.Random], None]


def kinds() -> dict[str, tuple[Target, Callable[[random.Random], bytes]]]:
    """Returns for each kind its reader and a function that makes a changed file."""
    examples = (image_checkpoint(), text_checkpoint())
    whole = saved(examples[0])
    parts = saved({"files": ["a.safetensors"], "contents": {"state_dict": {"w": torch.empty(3, 2, device="meta")}, "epoch": 1}})
    tensors = save({"/state_dict/w": torch.ones(3, 2), "/x": torch.ones(1, dtype=torch.bfloat16)})
    return {
        "columns": (columns, lambda draw: changed(TEXT.encode(), draw)),
        "cifar": (cifar, lambda draw: b""),
        "archive": (archive, lambda draw: archive_bytes(draw, is_whole=True)),
        "small_archive": (small_archive, lambda draw: archive_bytes(draw, is_whole=False)),
        "checkpoint": (checkpoint, lambda draw: changed(whole, draw)),
        "altered": (altered, lambda draw: saved(alter(draw.choice(examples), draw)[0])),
        "contents": (contents, lambda draw: changed(parts, draw)),
        "weights": (weights, lambda draw: changed(tensors, draw)),
        "config": (config, lambda draw: changed(CONFIG.encode(), draw)),
        "run_dir": (run_dir, lambda draw: b""),
    }


class TooLongError(BaseException):
    """Raised after LONGEST_S; no `except Exception` catches it."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Context manager that raises TooLongError after LONGEST_S."""

    def ring(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def finding(read: Target, content: bytes, draw: random.Random) -> str:
    """Returns what the reader did wrong; empty if it read the file or refused it with an InputError."""
    with tempfile.TemporaryDirectory(prefix="fuzz_") as place:
        try:
            with in_time():
                read(Path(place), content, draw)
        except InputError as error:
            return "" if str(error).strip() else "an InputError without a message"
        except TooLongError:
            return f"took more than {LONGEST_S} s"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:120]!r} in {Path(last.filename).name}:{last.lineno}"
    return ""


def main() -> int:
    """Fuzzes all kinds until the time is up; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_findings", help="directory for findings"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    chosen = {name: kind for name, kind in kinds().items() if not options.only or name in options.only.split(",")}
    began, counts, found = time.monotonic(), dict.fromkeys(chosen, 0), set()
    number = 0
    while time.monotonic() - began < options.seconds:
        number += 1
        for name, (read, make) in chosen.items():
            if number % SELDOM.get(name, 1):
                continue
            key = f"{name}-{options.seed}-{number}"
            draw = random.Random(key)
            content = make(draw)
            counts[name] += 1
            problem = finding(read, content, draw)
            place = problem.rpartition(" in ")[2]
            if problem and (name, place) not in found:
                found.add((name, place))
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / key).write_bytes(content)
                print(f"{key}: {problem}", flush=True)
    summary = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"{summary}; {len(found)} findings; {time.monotonic() - began:.0f} s")
    if not found:
        shutil.rmtree(options.keep, ignore_errors=True)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
