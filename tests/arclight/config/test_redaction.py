"""Secrets are found by name, by form, inside addresses and by the values in the environment; the rest stays as it is."""

from __future__ import annotations

import logging
import sys
import time

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


R = "0123456789abcdefABCDEF"  # made up, long enough for any service
SERVICES = {  # text: what is left of it
    f'wandb.login(key="{R}")': "wandb.(left out))",
    f'wandb.login(relogin=True, key = "{R}")': "wandb.(left out))",
    f'login("{R}")': "(left out))",
    f"key: {R}{R}": "(left out)",
    f"https://hooks.slack.com/services/T0/B0/{R}": "https://(left out)",
    f"https://discord.com/api/webhooks/123/{R} x": "https://(left out) x",
    f"https://discordapp.com/api/webhooks/123/{R}": "https://(left out)",
    f"a sk_live_{R}, b": "a (left out), b",
    f"npm_{R}abcdef": "(left out)",
    f"SG.{R}.{R}": "(left out)",
    f"pypi-AgEIcHlwaS5vcmc{R}": "(left out)",
    f"ya29.a0Af_{R}": "(left out)",
    f"hvs.CAES{R}": "(left out)",
    f"dckr_pat_{R}": "(left out)",
    f"AccountName=a;AccountKey={R}==;EndpointSuffix=b": "AccountName=a;(left out)",
    "postgres://me:pa/ss@host/db": "postgres://(left out)@host/db",
    "postgres://me:p@/a@ss@host/db": "postgres://(left out)@host/db",
    "mysql+pymysql://me:a:b/c@host:3306/db": "mysql+pymysql://(left out)@host:3306/db",
}


@pytest.mark.parametrize("is_code", [False, True])
@pytest.mark.parametrize("text", SERVICES, ids=range(len(SERVICES)))  # pytest puts the id into the environment
def test_secrets_of_services(text: str, is_code: bool) -> None:
    assert hide(f"+ {text}", is_code=is_code) == f"+ {SERVICES[text]}"


@pytest.mark.parametrize(
    "text",
    [
        "key=lambda run: run.results['val/accuracy_of_class_12345']",
        "sort(key=name), npm_config_cache_directory, SG.fit, msg.something_that_is_long",
        "git+https://github.com/owner/repository@main",
        "model: org/name-of-a-long-model-1234567890",
        "commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert hide(text) == hide(text, is_code=True) == text


HOSTILE = ("password", "://a:", "://", "token=", "login(", 'password="', "key=a", "sk-", "a_key", "-----BEGIN A", "password: ")


@pytest.mark.parametrize("word", HOSTILE)
def test_a_long_text_is_searched_in_linear_time(word: str) -> None:
    """A generous bound: with unbounded repetitions, 160 KB of "password" took minutes."""
    start = time.process_time()
    text = word * (160_000 // len(word))
    hide(text)
    hide(text, is_code=True)
    is_secret(text, "x")
    assert time.process_time() - start < 10


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
    monkeypatch.setenv("STORE", "postgres://me:planted/w@rd@host/db")
    monkeypatch.setenv("PWD", "/somewhere/planted")
    assert hide("planted-value, planted/w@rd, /somewhere/planted") == "(left out), (left out), /somewhere/planted"
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
    record = logging.LogRecord("arclight", logging.ERROR, "", 0, "token=%s \x1b[2J\udcff", ("abc",), info)
    lines = WithoutSecrets("%(message)s").format(record).splitlines()
    assert lines[0] == "(left out) \ufffd[2J\ufffd"
    assert lines[-1] == "OSError: https://(left out)@host refused"
    assert "raise OSError" in lines[-2]
