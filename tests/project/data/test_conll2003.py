from __future__ import annotations

import http.server
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from arclight.errors import InputError
from arclight.text.info import TokenInfo
from arclight.text.sentences import count_entities
from project.data import conll2003
from project.data.conll2003 import PUBLISHED, Conll2003, Counts

# counted by hand in conftest: a block has 3 sentences, 2 + 4 + 2 entities (Anna and Maria are two) and 2 documents
SMALL = {"train": Counts(24, 64), "val": Counts(3, 8), "test": Counts(3, 8)}
OTHER_NAMES = {"eng.train": "train.txt", "eng.testa": "valid.txt", "eng.testb": "test.txt"}


class Answers(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What a server on this machine holds under /one and /two, the two sources; small files count as the published ones."""
    monkeypatch.setattr(Answers, "files", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(conll2003, "SOURCES", (f"{address}/one", f"{address}/two"))
        monkeypatch.setattr(conll2003, "PUBLISHED", SMALL)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Answers.files
        server.shutdown()
        thread.join()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_splits_of_the_shared_task(conll_folder: Path) -> None:
    data = Conll2003(str(conll_folder), vocab_size=200)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.sizes == {"train": 24, "val": 3, "test": 3}
    assert {split: count_entities(data.sentences(split)) for split in SMALL} == {"train": 64, "val": 8, "test": 8}
    assert len({sentence.document for sentence in data.sentences("train")}) == 16
    assert isinstance(data.data_info, TokenInfo)
    assert data.data_info.labels == ("O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER")
    second = data.sentences("val")[1]
    assert " ".join(second.words) == "Peter Blackburn met Anna Maria in Brussels ."
    assert " ".join(second.tags) == "B-PER I-PER O B-PER B-PER O B-LOC O"


def test_the_other_naming_gives_the_same(conll_folder: Path, tmp_path: Path) -> None:
    for name, content in files_of(conll_folder).items():
        (tmp_path / OTHER_NAMES[name]).write_bytes(content)
    one, other = Conll2003(str(conll_folder)), Conll2003(str(tmp_path))
    for split in SMALL:
        assert [made.tags for made in one.sentences(split)] == [made.tags for made in other.sentences(split)]


def test_files_that_are_not_as_published_are_taken_with_a_warning(conll_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Conll2003(str(conll_folder), download=False).prepare_data()
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert re.search(
        r"eng\.train: holds 24 sentences with 64 entities; CoNLL-2003 as published has 14,041 sentences with 23,499 entities",
        messages[0],
    )


@pytest.mark.parametrize("exists", [True, False])
def test_what_is_missing_is_downloaded(
    conll_folder: Path, tmp_path: Path, source: dict[str, bytes], caplog: pytest.LogCaptureFixture, exists: bool
) -> None:
    source.update({f"/one/{name}": content for name, content in files_of(conll_folder).items()})
    root = tmp_path if exists else tmp_path / "new" / "folder"
    with caplog.at_level(logging.WARNING):
        data = Conll2003(str(root), vocab_size=200)
        data.prepare_data()
    assert {name: (root / name).read_bytes() for name in OTHER_NAMES} == files_of(conll_folder)
    assert caplog.records == []
    assert len(data.sentences("test")) == 3
    source.clear()
    Conll2003(str(root)).prepare_data()  # now without any server


def test_only_the_file_that_is_missing_is_downloaded_under_the_names_in_use(
    conll_folder: Path, tmp_path: Path, source: dict[str, bytes]
) -> None:
    content = files_of(conll_folder)
    (tmp_path / "train.txt").write_bytes(content["eng.train"])
    (tmp_path / "valid.txt").write_bytes(content["eng.testa"])
    source["/one/eng.testb"] = content["eng.testb"]
    Conll2003(str(tmp_path)).prepare_data()
    assert (tmp_path / "test.txt").read_bytes() == content["eng.testb"]


def test_a_source_with_other_content_is_passed_over(conll_folder: Path, tmp_path: Path, source: dict[str, bytes]) -> None:
    for name, content in files_of(conll_folder).items():
        source[f"/one/{name}"] = b"<html>gone</html>\n"
        source[f"/two/{name}"] = content
    Conll2003(str(tmp_path)).prepare_data()
    assert (tmp_path / "eng.train").read_bytes() == (conll_folder / "eng.train").read_bytes()


def test_all_sources_are_reported_when_none_has_it(conll_folder: Path, tmp_path: Path, source: dict[str, bytes]) -> None:
    source["/one/eng.train"] = (conll_folder / "eng.testa").read_bytes()
    message = r"(?s)/one/eng\.train: the download holds 3 sentences with 8 entities instead of 24 .*/two/eng\.train: .*404"
    with pytest.raises(InputError, match=message):
        Conll2003(str(tmp_path)).prepare_data()
    assert not (tmp_path / "eng.train").exists()


def test_no_network_is_reported_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        monkeypatch.setattr(conll2003, "SOURCES", (f"http://127.0.0.1:{taken.getsockname()[1]}",))
        with pytest.raises(InputError, match=r"cannot download eng\.train"):
            Conll2003(str(tmp_path)).prepare_data()


def test_a_directory_of_other_files_is_not_filled(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"picture_{number}.png").touch()
    wanted = r"holds neither eng\.train, eng\.testa, eng\.testb nor train\.txt, valid\.txt, test\.txt"
    with pytest.raises(InputError, match=rf"data\.root=.* {wanted}, but picture_0\.png, .* picture_7\.png and 1 more; set the"):
        Conll2003(str(tmp_path)).prepare_data()


def test_without_download_missing_files_are_named(conll_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eng\.train, eng\.testa, eng\.testb missing; set the .* data\.download=true"):
        Conll2003(str(tmp_path / "nowhere"), download=False).prepare_data()
    shutil.copy(conll_folder / "eng.train", tmp_path)
    with pytest.raises(InputError, match=r": eng\.testa, eng\.testb missing; "):
        Conll2003(str(tmp_path), download=False).prepare_data()


def test_a_file_is_no_folder(conll_folder: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root=.*eng\.train is a file; set the directory of eng\.train, eng"):
        Conll2003(str(conll_folder / "eng.train")).prepare_data()


@pytest.mark.slow
@pytest.mark.skipif("ARCLIGHT_DATA" not in os.environ, reason="ARCLIGHT_DATA names no folder with the real data")
def test_the_published_files_have_the_published_counts() -> None:
    data = Conll2003(str(Path(os.environ["ARCLIGHT_DATA"]) / "conll2003"), download=False)
    expected = {"train": (203_621, 946), "val": (51_362, 216), "test": (46_435, 231)}
    for split, (num_words, num_documents) in expected.items():
        sentences = data.sentences(split)
        assert Counts(len(sentences), count_entities(sentences)) == PUBLISHED[split]
        assert sum(len(sentence.words) for sentence in sentences) == num_words
        assert {sentence.document for sentence in sentences} == set(range(num_documents))
