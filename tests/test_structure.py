"""Rules of CONTRIBUTING.md that a program can check: file sizes, names, tests for every module, commands in the documents."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from arclight.__main__ import main
from arclight.config.compose import compose
from arclight.config.signatures import call_above

ROOT = Path(__file__).parents[1]
SRC, CONF, TESTS = ROOT / "src", ROOT / "conf", ROOT / "tests"
SOURCES = sorted(SRC.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_LINES = 320  # of a file
MAX_FILES = 15  # in a directory
FORBIDDEN_NAMES = re.compile(r"(?:^|_)(utils?|helpers?|common|misc|core|components?|base|manager|wrapper|my|lit)(?:_|$)")
FORBIDDEN_CLASSES = re.compile(r"My[A-Z]|Lit[A-Z]|.*(Base|Manager|Wrapper|Helper)$")
NEEDED = {"data=image_folder": "data.root=x", "data=conll_files": "data.root=x"}  # values that such a config cannot do without


def name_of(path: Path) -> str:
    """Returns the dotted name of a module under src/."""
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_file(path: Path) -> None:
    assert not FORBIDDEN_NAMES.search(path.stem), f"{path.name}: name it for what it holds"
    assert len(path.read_text().splitlines()) <= MAX_LINES, f"{path.name} has more than {MAX_LINES} lines: split it"
    assert ast.get_docstring(tree_of(path)), f"{path.name} has no docstring"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.args.vararg is None, f"{path.name}: {node.name} takes *args"
            is_passed_on = node.args.kwarg is None or call_above(node, node.args.kwarg.arg) is not None
            assert is_passed_on, f"{path.name}: {node.name} takes **kwargs, and not only for the constructor above it"
        if isinstance(node, ast.ClassDef):
            assert not FORBIDDEN_CLASSES.match(node.name), f"{path.name}: class {node.name}"


def test_directories_hold_few_files() -> None:
    sizes = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    assert {str(folder): size for folder, size in sizes.items() if size > MAX_FILES} == {}


def test_every_module_has_a_test() -> None:
    """A module has a test of its own, or a test names it: in an import, or in the docstring of the test that covers it."""
    tests = {path: path.read_text() for path in TESTS.rglob("*.py")}
    mirrored = {
        str(path.relative_to(TESTS).with_name(path.name.removeprefix("test_"))).replace("project/engine", "arclight")
        for path in tests
    }
    texts = "\n".join(tests.values())
    texts += "\n".join(  # `from package import module` counts as well
        f"{package}.{module}"
        for package, modules in re.findall(r"^\s*from ([\w.]+) import (.+)$", texts, re.MULTILINE)
        for module in re.findall(r"\w+", modules)
    )
    untested = [
        name_of(path)
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py") and str(path.relative_to(SRC)) not in mirrored
        if not re.search(rf"\b{re.escape(name_of(path))}\b", texts)
    ]
    assert untested == []


def test_tests_lie_where_their_modules_lie() -> None:
    """A test file of the engine has the name of its module, or at least imports from the package of that directory."""
    for tree in (TESTS / "arclight", TESTS / "project" / "engine"):
        for path in tree.rglob("test_*.py"):
            mirrored = path.relative_to(tree).with_name(path.name.removeprefix("test_"))
            package = ".".join(("arclight", *mirrored.parent.parts))
            is_tested_here = (SRC / "arclight" / mirrored).is_file() or f"{package}." in path.read_text()
            assert is_tested_here or f"from {package} import" in path.read_text(), f"{path.relative_to(ROOT)}: no such module"


def test_every_model_and_data_set_has_its_option() -> None:
    for group, folder in (("data", "data"), ("model", "models"), ("module", "lightning_modules")):
        targets = "".join(path.read_text() for path in (CONF / group).glob("*.yaml"))
        for path in (SRC / "project" / folder).glob("[!_]*.py"):
            assert f"project.{folder}.{path.stem}." in targets, f"conf/{group} has no option for {path.name}"


def commands_in(document: Path) -> list[str]:
    """Returns the lines of the document's bash blocks, continued lines joined and comments removed."""
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


OWN_FILES = {"coming_from_lightning_hydra_template", "add_a_piece"}  # pages that name files of others, or of the reader
COMMANDS = sorted({command for page in DOCUMENTS if page.stem not in OWN_FILES for command in commands_in(page)})


def overrides_of(command: str) -> list[str]:
    """Returns the overrides that the command passes to train.py; of a multirun, those of its first run."""
    words = shlex.split(command.split("train.py", 1)[1])
    words = [word for word in words if "=" in word and not word.startswith(("hydra", "resume=", "-"))]
    firsts = [word if "[" in word else word.split(",")[0] for word in words]
    return firsts + [more for word, more in NEEDED.items() if word in words and not any("data.root=" in word for word in words)]


@pytest.mark.parametrize("command", [command for command in COMMANDS if " train.py" in command and "$" not in command])
def test_train_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose(overrides_of(command))
    for path in re.findall(r"hydra/launcher=(\w+)", command):
        assert (CONF / "hydra" / "launcher" / f"{path}.yaml").is_file()


@pytest.mark.parametrize("command", [command for command in COMMANDS if "-m arclight " in command])
def test_verb_exists(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of the command are parsed; nothing is run."""
    arguments = shlex.split(command.split("-m arclight ", 1)[1])

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("arclight.__main__.report_errors", stop)  # called once they are parsed
    with pytest.raises(KeyboardInterrupt):
        main(arguments)


def test_other_commands_and_links_exist() -> None:
    targets = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for command in commands_in(document):
            if command.startswith("make "):
                for target in re.findall(r"\b[a-z][a-z-]+\b", command.removeprefix("make ")):
                    assert re.search(rf"^{target}:", targets, re.MULTILINE), f"{document.name}: make {target}"
            for script in re.findall(r"\b(?:python|sbatch|bash|-f|sweep) ([\w/]+\.(?:py|sh|yaml))\b", command):
                assert (ROOT / script).is_file(), f"{document.name}: {script}"
        for module in re.findall(r"python -m benchmarks\.(\w+)", document.read_text()):
            assert (ROOT / "benchmarks" / f"{module}.py").is_file(), f"{document.name}: python -m benchmarks.{module}"
        for path in re.findall(r"`((?:src|conf|tests|scripts|benchmarks)/[\w./-]+)`", document.read_text()):
            if document.stem not in OWN_FILES and not path.endswith(("NAME.yaml", "birds.yaml", "local/default.yaml")):
                assert (ROOT / path).exists(), f"{document.name}: {path}"
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if not link.startswith(("http://", "https://")):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize(
    ("heading", "max_steps"), [("How does a batch of images get from file", 12), ("batch_size=128` get from", 6)]
)
def test_walk_through_the_code(heading: str, max_steps: int) -> None:
    """Each step of a walk in CONTRIBUTING.md is a file, and holds the names that the step mentions."""
    section = next(part for part in (ROOT / "CONTRIBUTING.md").read_text().split("\n## ") if heading in part.splitlines()[0])
    steps = re.findall(r"^\d+\. `([\w./]+)`: ((?:.+\n?)(?:   .+\n?)*)", section, re.MULTILINE)
    assert 0 < len(steps) <= max_steps
    for file, text in steps:
        source = (ROOT / file).read_text()
        for name in re.findall(r"`(\w+)`", text):
            assert re.search(rf"\b{name}\b", source), f"{file}: {name}"
