"""What a target takes is read from its source, and is what its signature says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arclight.config.instantiate import parameters_of
from arclight.config.signatures import names_taken


@pytest.mark.parametrize(
    "target",
    [
        "project.data.cifar10.Cifar10",
        "project.data.synthetic_text.SyntheticText",
        "project.lightning_modules.token_tagger.TokenTagger",
        "arclight.optim.schedulers.cosine",
        "arclight.optim.muon.Muon",
        "project.models.bert_tagger.BertTagger",
        "torch.optim.AdamW",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.EarlyStopping",
    ],
)
def test_the_source_says_what_the_signature_says(target: str) -> None:
    assert names_taken(target) == tuple(parameters_of(target))


@pytest.mark.parametrize(
    "target",
    [
        "arclight.nowhere.Thing",
        "project.data.cifar10.Thing",
        "nowhere.Thing",
        "Thing",
        "lightning.pytorch.callbacks.EMAWeightAveraging",
    ],
)
def test_what_the_source_does_not_tell_is_left_open(target: str) -> None:
    assert names_taken(target) is None


def test_arguments_that_are_passed_on_to_the_base_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bases_of_a_test.py").write_text(
        "class Base:\n    def __init__(self, root, *, size: int = 3, seed: int = 0): ...\n"
    )
    constructors = {
        "PassedOn": "def __init__(self, *, more=1, **options): super().__init__(None, seed=3, **options)",
        "Read": "def __init__(self, **options): super().__init__(None, **options); print(options)",
        "Dropped": "def __init__(self, **options): super().__init__(None)",
        "Twice": "def __init__(self, **options): super().__init__(**options); super().__init__(**options)",
    }
    lines = [f"class {name}(Between):\n    {constructor}\n" for name, constructor in constructors.items()]
    text = "from bases_of_a_test import Base as Other\nclass Between(Other): ...\n" + "".join(lines)
    (tmp_path / "classes_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    parameters = parameters_of("classes_of_a_test.PassedOn")
    assert names_taken("classes_of_a_test.PassedOn") == tuple(parameters) == ("more", "size")
    assert (parameters["size"].default, parameters["size"].annotation) == (3, int)
    for name in ("Read", "Dropped", "Twice"):
        assert names_taken(f"classes_of_a_test.{name}") is None
        assert tuple(parameters_of(f"classes_of_a_test.{name}")) == ("options",)


def test_nothing_is_imported() -> None:
    code = "import sys; from arclight.config.signatures import names_taken; names_taken('lightning.pytorch.Trainer'); "
    code += "names_taken('torch.optim.Adam'); print([name for name in ('torch', 'lightning') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
