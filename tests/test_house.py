"""The rules of the house that a machine can see (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from arclight.config import CONF

ROOT = CONF.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FORBIDDEN = re.compile(r"(?:^|_)(utils?|helpers?|common|misc|core|components?|base|manager|wrapper|my|lit)(?:_|$)")


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_file(path: Path) -> None:
    assert not FORBIDDEN.search(path.stem), f"{path.name} says nothing of what it holds"
    assert len(path.read_text().splitlines()) <= 320, f"{path.name}: a room with two purposes?"
    for function in functions(path):
        arguments = function.args
        assert arguments.vararg is None, f"{path.name}: {function.name} takes *args"
        assert arguments.kwarg is None, f"{path.name}: {function.name} takes **kwargs"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert not re.match(r"My[A-Z]|Lit[A-Z]|.*(Base|Manager|Wrapper|Helper)$", node.name), node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_says_what_it_holds(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} has no docstring"


def test_tests_mirror_the_rooms() -> None:
    source = ROOT / "src" / "arclight"
    rooms = {path.relative_to(source).with_suffix("") for path in SOURCES if path.name not in ("__init__.py", "__main__.py")}
    tested = {
        path.relative_to(ROOT / "tests").with_name(path.stem.removeprefix("test_"))
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    # tested by the runs of test_experiment and by their neighbours' tests
    together = {
        *map(Path, ("run_folder", "evaluation/prediction_file", "training/image_classifier")),
        Path("forwarding"),  # by end_to_end/test_signals
        Path("training/gradient_order"),  # by end_to_end/test_processes
        *map(Path, ("hardware/choice", "hardware/devices", "hardware/precision")),  # by test_plan
    }
    assert rooms - tested - together == set()


def test_every_model_and_data_set_has_its_option() -> None:
    for group, room in (("data", "data"), ("model", "models")):
        targets = "".join(path.read_text() for path in (CONF / group).glob("*.yaml"))
        for path in (ROOT / "src" / "arclight" / room).glob("*.py"):
            shared = {
                "__init__",
                "datamodule",
                "order",
                "arrays",
                "array_loader",
                "augment",
                "class_folders",
                "download",
                "image_cache",
                "image_file",
                "residence",
                "splits",
                "threads",
                "columns",
                "packing",
                "subwords",
                "vocabulary",
                "examples",
                "attention",
                "dropout",
                "random_encoder",
            }
            if path.stem not in shared:
                assert f"arclight.{room}.{path.stem}." in targets, f"conf/{group} has no option for {path.name}"


def test_the_commands_of_the_readme_name_what_there_is() -> None:
    readme = (ROOT / "README.md").read_text()
    for group, option in re.findall(r"\b(experiment|data|model|optimizer|schedule|strategy|precision|debug)=(\w+)", readme):
        assert (CONF / group / f"{option}.yaml").is_file(), f"{group}={option}"
    verbs = (ROOT / "src" / "arclight" / "__main__.py").read_text()
    for verb in re.findall(r"python -m arclight ([\w-]+)", readme):
        assert f'add_parser("{verb}"' in verbs, verb
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
