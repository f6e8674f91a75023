"""test_report holds the lists of what is left out and what stays."""

from __future__ import annotations

from arclight.evaluation.redaction import without_secrets


def test_nested_secrets_are_left_out_and_the_value_given_stays() -> None:
    given = {"a": [{"api_key": "x", "lr": 1}], "token": "y", "tokens": 5}
    assert without_secrets(given) == {"a": [{"lr": 1}], "tokens": 5}
    assert given["token"] == "y"
