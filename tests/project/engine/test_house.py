"""The rules of the house that a machine can see (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from arclight.config.locations import CONF

ROOT = CONF.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTED_BY_OTHERS = {  # by which tests
    "arclight/runs/run_directory.py",  # runs/test_experiment
    "arclight/metrics/prediction_file.py",  # metrics/test_predictions
    "project/lightning_modules/image_classifier.py",  # runs/test_experiment
    "arclight/launch/signal_forwarding.py",  # end_to_end/test_signals
    "arclight/callbacks/gradient_order.py",  # end_to_end/test_processes
    *(f"arclight/hardware/{name}.py" for name in ("decision", "devices", "precision")),  # hardware/test_plan
    *(f"arclight/{toolkit}/info.py" for toolkit in ("images", "text")),  # data/test_info
    "arclight/interfaces.py",  # data/test_info
    "arclight/text/previews.py",  # images/test_previews
    "arclight/config/locations.py",  # config/test_compose
}
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


def test_tests_mirror_the_sources() -> None:
    skipped = ("__init__.py", "__main__.py")
    sources = {str(path.relative_to(ROOT / "src")) for path in SOURCES if path.name not in skipped}
    tested = {
        str(path.relative_to(ROOT / "tests").with_name(path.name.removeprefix("test_"))).replace("project/engine", "arclight")
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert sources - tested - TESTED_BY_OTHERS == set()


def test_every_model_and_data_set_has_its_option() -> None:
    for group, folder in (("data", "data"), ("model", "models")):
        targets = "".join(path.read_text() for path in (CONF / group).glob("*.yaml"))
        for path in (ROOT / "src" / "project" / folder).glob("[!_]*.py"):
            assert f"project.{folder}.{path.stem}." in targets, f"conf/{group} has no option for {path.name}"


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
