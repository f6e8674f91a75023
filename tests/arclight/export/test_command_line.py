"""Options that have no effect on a format or a method are errors, before a run is looked for."""

from __future__ import annotations

import pytest

from arclight.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export none --format safetensors --opset 18", "--opset 18 is of --format onnx; leave it out"),
        ("compress none --amount 0.3", "--amount is for --method prune and prune_structured, not int8_dynamic"),
        (
            "compress none --method int8_static --epochs 2",
            "--epochs is for --method prune and prune_structured, not int8_static",
        ),
        ("compress none --method prune --epochs 2", "none: no such run directory or checkpoint"),
    ],
)
def test_an_option_without_effect(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
