"""Uploads to a stand-in for the Hugging Face hub on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from arclight.errors import InputError
from arclight.export.hub import check_hub_name, push

Requests = list[tuple[str, bytes]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Requests, dict[str, int]]]:
    """Yields the requests that a stub of the hub's API has received, and a mapping whose "status" makes it refuse."""
    received: Requests = []
    answer = {"status": 200}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received.append((self.path, body))
            address = f"http://127.0.0.1:{server.server_port}"
            content: dict[str, object] = {"url": f"{address}/me/birds", "name": "me/birds", "id": "me/birds"}
            if "preupload" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                content = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
            if "commit" in self.path:
                content = {"commitUrl": f"{address}/me/birds/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
            self.reply(content)

        def do_GET(self) -> None:
            self.reply({"id": "me/birds", "sha": "abc", "siblings": []})

        def reply(self, content: dict[str, object]) -> None:
            text = json.dumps(content).encode()
            self.send_response(answer["status"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_test")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield received, answer
    server.shutdown()
    server.server_close()


def test_directory_becomes_a_private_model(hub: tuple[Requests, dict[str, int]], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"kind": "bird"}')
    assert push(tmp_path, "me/birds").endswith("/me/birds/commit/abc")
    received = dict(hub[0])
    assert json.loads(received["/api/repos/create"])["visibility"] == "private"
    commit = next(body for path, body in received.items() if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    assert [line["value"]["path"] for line in lines if line["key"] == "file"] == ["config.json"]


def test_refusal_says_what_to_type(hub: tuple[Requests, dict[str, int]], tmp_path: Path) -> None:
    hub[1]["status"] = 401
    with pytest.raises(InputError, match=r"--push me/birds: .* stays. Log in with `hf auth login`, then: hf upload me/birds"):
        push(tmp_path, "me/birds")


def test_name_is_checked_before_the_export() -> None:
    check_hub_name("me/birds")
    with pytest.raises(InputError, match="--push a/b/c: .* Try: --push USER/MODEL"):
        check_hub_name("a/b/c")
