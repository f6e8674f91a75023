"""Secrets are found by name, by form, inside addresses and by the values in the environment; the rest stays as it is."""

from __future__ import annotations

import logging
import sys

import pytest

from arclight.config.redaction import WithoutSecrets, hide, hide_in_override, is_secret, known_secrets, without_secrets


def test_nested_secrets_are_left_out_and_the_value_given_stays() -> None:
    given = {"a": [{"api_key": "x", "lr": 1}], "token": "y", "tokens": 5, "b": ("https://me:x@host/y",)}
    assert without_secrets(given) == {"a": [{"lr": 1}], "tokens": 5, "b": ["https://(left out)@host/y"]}
    assert given["token"] == "y"


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("api_key", "x", True),
        ("HF_TOKEN", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("MLFLOW_TRACKING_PASSWORD", "x", True),
        ("num_tokens", 5, False),
        ("tokenizer", "bert", False),
        ("cls_token", "[CLS]", False),
        ("test/f1/PASSWORD", 0.9, False),  # a class that a tagger knows
    ],
)
def test_secrets_are_known_by_their_names(key: str, value: object, secret: bool) -> None:
    assert is_secret(key, value) is secret


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def", "(left out)"),
        ("password='two words' lr=1", "(left out) lr=1"),
        ('{"apiKey": "abc"}', '{"(left out)}'),
        ("see https://me:p@ss@host/x?sig=abc&y=1", "see https://(left out)@host/x(left out)&y=1"),
        ("sent hf_abcdefghijklmnop to it", "sent (left out) to it"),
        ("token=abc tokens=12 pad_token: null", "(left out) tokens=12 pad_token: null"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "(left out)\nrest"),
        ("epoch 3: val/loss=0.1, tokenizer=bert, me@host", "epoch 3: val/loss=0.1, tokenizer=bert, me@host"),
    ],
)
def test_secrets_in_texts(text: str, left: str) -> None:
    assert hide(text) == left


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("+token = tokenizer.encode(text)", None),
        ("+def read(token: str, tokens: list[str]) -> None:", None),
        ('+token = "abcdef123"', "+(left out)"),
        ("+  hf_token: abcdefghij1234567890", "+  hf_(left out)"),
        ("+password = 'x'", "+(left out)"),
        ("+url = https://me:x@host", "+url = https://(left out)@host"),
    ],
)
def test_source_code_stays_readable(line: str, left: str | None) -> None:
    assert hide(line, is_code=True) == (left or line)


def test_values_of_the_environment_are_known_wherever_they_turn_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-value")
    monkeypatch.setenv("STORE", "postgres://me:planted-word@host/db")
    monkeypatch.setenv("PWD", "/somewhere/planted")
    assert hide("planted-value, planted-word, /somewhere/planted") == "(left out), (left out), /somewhere/planted"
    assert without_secrets({"name": ["a planted-value"]}) == {"name": ["a (left out)"]}


def test_short_values_would_hide_common_words() -> None:
    assert known_secrets(frozenset({("PASSWORD", "admin"), ("A_KEY", "x"), ("API_KEY", "long enough")})) == ["long enough"]


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("optimizer.lr=1", "optimizer.lr=1"),
        ("logger.mlflow.uri=https://me:x@host", "logger.mlflow.uri=(left out)"),
        ("+hub.token=abc", "+hub.token=(left out)"),
        ("logger={project: x, password: y}", "logger=(left out)"),
        ("https://me:x@host", "https://(left out)@host"),
    ],
)
def test_an_override_keeps_its_key(override: str, left: str) -> None:
    assert hide_in_override(override) == left


def test_a_log_holds_no_secret_in_what_is_said_or_in_a_traceback() -> None:
    try:
        raise OSError("https://me:x1@host refused")
    except OSError:
        info = sys.exc_info()
    record = logging.LogRecord("arclight", logging.ERROR, "", 0, "token=%s", ("abc",), info)
    lines = WithoutSecrets("%(message)s").format(record).splitlines()
    assert lines[0] == "(left out)"
    assert lines[-1] == "OSError: https://(left out)@host refused"
    assert "raise OSError" in lines[-2]
