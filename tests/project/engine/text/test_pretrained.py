"""Which commit of the hub is loaded, and that no code from there is run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.text import pretrained
from arclight.text.pretrained import load_pretrained, log_commit
from arclight.text.tokenizer import load_tokenizer
from project.models.bert_tagger import BertTagger
from project.pinned_revisions import BERT_BASE_CASED, PINNED_REVISIONS, pinned_revision
from tests.project.models.test_bert_tagger import text

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked:
    """Stands for a from_pretrained: this machine has nothing, the hub everything."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, name: str, **settings: Any) -> str:
        self.calls.append({"name": name, **settings})
        if settings.get("local_files_only"):
            raise OSError("not here")
        return "loaded"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _, name, revision, timeout: None)
    return Asked()


@pytest.mark.parametrize(
    ("name", "revision", "wanted"),
    [
        ("bert-base-cased", None, BERT_BASE_CASED),
        ("google-bert/bert-base-cased", None, BERT_BASE_CASED),
        ("bert-base-cased", "main", "main"),
        ("ours/encoder", None, "main"),
        ("ours/encoder", COMMIT, COMMIT),
    ],
)
def test_the_requested_revision(asked: Asked, name: str, revision: str | None, wanted: str) -> None:
    assert load_pretrained(asked, name, pinned_revision(name, revision), {"dtype": 1}) == "loaded"
    assert [call["revision"] for call in asked.calls] == [wanted, wanted]
    assert [call["trust_remote_code"] for call in asked.calls] == [False, False]
    assert asked.calls[-1] == {"name": name, "revision": wanted, "dtype": 1, "trust_remote_code": False}


def test_an_incomplete_copy_is_completed_from_the_hub(asked: Asked) -> None:
    def check(loaded: str) -> None:
        raise OSError("half")

    with pytest.raises(OSError, match="half"):
        load_pretrained(asked, "ours/encoder", None, {}, check=check)
    assert len(asked.calls) == 2


def test_no_setting_enables_code_from_the_hub(asked: Asked) -> None:
    load_pretrained(asked, "ours/encoder", None, {"trust_remote_code": True})
    assert not any(call["trust_remote_code"] for call in asked.calls)


def test_pinned_revisions_are_commits() -> None:
    assert all(pretrained.COMMIT.fullmatch(commit) for commit in PINNED_REVISIONS.values())


def test_the_log_shows_what_is_not_pinned(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("arclight"), "propagate", True)
    caplog.set_level(logging.INFO)
    log_commit("a/folder", None, None)
    assert caplog.text == ""
    log_commit("ours/encoder", None, COMMIT)
    assert f"commit {COMMIT} of the hub, not pinned: 'main' may change; model.revision={COMMIT} pins it" in caplog.text
    caplog.clear()
    log_commit("bert-base-cased", BERT_BASE_CASED, BERT_BASE_CASED)
    log_commit("ours/encoder", COMMIT, COMMIT)
    assert "not pinned" not in caplog.text


def test_a_directory_has_no_revision(bert_folder: Path) -> None:
    for build in (
        lambda: BertTagger(text(), checkpoint=str(bert_folder), revision="main"),
        lambda: load_tokenizer(str(bert_folder), max_length=8, revision="main"),
    ):
        with pytest.raises(InputError, match="is a directory and has no revision 'main'; set the revision to null"):
            build()


def test_a_model_with_its_own_code_is_refused_and_nothing_is_run(bert_folder: Path, tmp_path: Path) -> None:
    config = json.loads((bert_folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    with pytest.raises(InputError, match="needs its own code, which is never run; take a model that"):
        BertTagger(text(), checkpoint=str(tmp_path))
    assert not (tmp_path / "was run").exists()
