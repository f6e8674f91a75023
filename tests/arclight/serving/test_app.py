"""What clients get: records, and one clear answer for everything that is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from arclight.errors import InputError
from arclight.serving.app import Limits, create_app
from arclight.serving.deployment import Deployment
from arclight.serving.pool import WorkerSettings

LIMITS = Limits(items=3, body_bytes=5_000, characters=100, timeout_s=2.0)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = create_app(Deployment(["words", "images"], WorkerSettings(max_queue=4)), LIMITS)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
        yield opened


def test_inputs_are_answered_and_wrong_ones_get_one_message_each(client: TestClient) -> None:
    words = "/models/words/predict"
    answer = client.post(words, json={"inputs": ["hello", ["two", "words"]], "top_k": 1})
    assert answer.status_code == 200
    assert answer.json()["model"] == "words"
    assert [record["text"] for record in answer.json()["predictions"]] == ['"HELLO"', '["TWO", "WORDS"]']
    mixed = client.post(words, json={"inputs": ["hello", "bad"]})
    assert mixed.status_code == 200
    assert mixed.json()["predictions"][1] == {"source": "inputs[1]", "error": "is bad"}
    picture = base64.b64encode(b"pixels").decode()
    for given in (picture, f"data:image/png;base64,{picture}"):
        assert client.post("/models/images/predict", json={"inputs": [given]}).json()["predictions"][0]["text"] == "PIXELS"
    files = [("files", ("../cat.png", b"miaow")), ("files", ("dog.png", b"woof"))]
    found = client.post("/models/images/files?top_k=2", files=files).json()["predictions"]
    assert [record["source"] for record in found] == ["cat.png", "dog.png"]

    deep = '{"inputs":[' + "[" * 2000 + "]" * 2000 + "]}"
    wrong: list[tuple[str, dict[str, Any], int, str]] = [
        (words, {"json": {"inputs": ["bad", "bad"]}}, 422, "inputs[0]: is bad (and 1 more)"),
        (words, {"json": {"inputs": []}}, 422, "body.inputs: List should have at least 1 item"),
        (words, {"json": {"inputs": [1]}}, 422, "inputs[0] must be a text, or a list of words"),
        (words, {"json": {"inputs": [["a", 1]]}}, 422, "inputs[0] must be a text, or a list of words"),
        (words, {"json": {"inputs": ["a"], "topk": 1}}, 422, "body.topk: Extra inputs are not permitted"),
        (words, {"json": {"inputs": ["a"], "top_k": 0}}, 422, "body.top_k: "),
        (words, {"json": {"inputs": ["a"] * 4}}, 413, "4 inputs are more than the 3 of a request"),
        (words, {"json": {"inputs": ["a" * 200]}}, 413, "202 characters are more than the 100 of a request"),
        (words, {"json": {"inputs": ["a" * 6000]}}, 413, "the request is larger than 0.005 MB"),
        (words, {"content": iter([b"x" * 3000, b"x" * 3000]), **JSON}, 413, "the request is larger than 0.005 MB"),
        (words, {"content": '{"inputs":', **JSON}, 400, "JSON decode error"),
        (words, {"content": deep, **JSON}, 400, "There was an error parsing the body"),
        (words, {"content": json.dumps({"inputs": ["\ud800"]}), **JSON}, 422, "inputs[0] is not text or numbers"),
        (words, {"json": {"inputs": ["die"]}}, 500, "inputs[0] ended its worker process 2 times"),
        ("/models/images/predict", {"json": {"inputs": ["?"]}}, 422, "inputs[0] is not base64"),
        ("/models/images/predict", {"json": {"inputs": [["a"]]}}, 422, "inputs[0] must be an image in base64"),
        ("/models/images/files", {"data": {"x": "1"}}, 422, "body.files: Field required"),
        ("/models/no/predict", {"json": {"inputs": ["a"]}}, 404, "no such model; there are: words, images"),
    ]
    for path, request, status, detail in wrong:
        answer = client.post(path, **request)
        assert (answer.status_code, answer.json()["detail"][: len(detail)] if status != 400 else detail) == (status, detail)
        assert detail in answer.json()["detail"]
    counters = client.get("/metrics").text
    assert 'arclight_requests_total{model="words",status="500"} 1.0' in counters
    assert 'arclight_worker_restarts_total{model="words"} 2.0' in counters
    assert "no" not in [line.partition('model="')[2].partition('"')[0] for line in counters.splitlines()]


JSON: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}


def test_an_answer_that_takes_too_long_is_ended() -> None:
    limits = Limits(timeout_s=0.3)
    app = create_app(Deployment(["words"], WorkerSettings(batch_timeout_s=1.0)), limits)
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/models/words/predict", json={"inputs": ["hang"]})
    assert (answer.status_code, answer.json()["detail"]) == (504, "no answer within 0.3 s")


def test_a_key_is_asked_for_everywhere_but_where_no_data_is() -> None:
    app = create_app(Deployment(["words"], WorkerSettings()), LIMITS, api_key="open sesame", is_loopback=False)
    with TestClient(app) as client:
        for path in ("/models", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "wrong"}).status_code == 401
            assert client.get(path, headers={"X-API-Key": "open sesame"}).status_code == 200
            assert client.get(path, headers={"Authorization": "Bearer open sesame"}).status_code == 200
        assert client.post("/models/words/predict", json={"inputs": ["a"]}).status_code == 401
        for path in ("/health", "/ready", "/", "/ui", "/page.js", "/page.css", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.get("/page.py").status_code == 404
        assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


def test_a_page_under_another_name_does_not_reach_a_server_of_this_machine(client: TestClient) -> None:
    assert client.get("/models", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/models").json()[0]["kind"] == "text"


def test_a_run_that_cannot_be_loaded_ends_the_start() -> None:
    app = create_app(Deployment(["missing"], WorkerSettings()), LIMITS)
    with pytest.raises(InputError, match="missing is not a run"), TestClient(app):
        pass
