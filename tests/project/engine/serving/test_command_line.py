"""A real run behind a real server, stopped while clients send."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import arclight
from arclight.config.locations import CONF
from tests.project.engine.checkpoint.test_contents import TINY_TEXT

pytest.importorskip("fastapi_offline")


def call(url: str, body: Any = None) -> tuple[int, Any]:
    """Returns the status and the JSON of an answer; status 0 where there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError as error:
        return (0, None) if "refused" in str(error) else (-1, str(error))


@pytest.mark.processes
def test_a_server_predicts_as_the_run_does_and_answers_what_it_has_accepted_when_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = arclight.run([*TINY_TEXT, f"hydra.run.dir={tmp_path / 'run'}", "logger=none"])
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "production").write_text(str(run.folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src"), "OMP_NUM_THREADS": "1"}
    typed = [sys.executable, "-m", "arclight", "serve", "production", "--port", str(port)]
    with subprocess.Popen(typed, env=environment, stderr=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while call(f"{url}/ready")[0] != 200:
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.2)
        text = "Hana Novak works at Blue Harbor in Oslo."
        status, answer = call(f"{url}/models/production/predict", {"inputs": [text]})
        assert status == 200
        expected = run.predict([text], device="cpu")[0]
        assert {**answer["predictions"][0], "source": ""} == {**expected, "source": ""}

        statuses: list[int] = []

        def keep_sending() -> None:
            while not statuses or statuses[-1] == 200:
                statuses.append(call(f"{url}/models/production/predict", {"inputs": [text] * 8})[0])

        senders = [threading.Thread(target=keep_sending) for _ in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(1)
        server.send_signal(signal.SIGTERM)
        for sender in senders:
            sender.join()
        server.wait(30)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    assert set(statuses) <= {200, 503, 0}  # answered, or the port was closed: no request without an answer
    assert 200 in statuses
