"""The arguments that a `_target_` takes, read from its source: importing torch to report a typo would take seconds."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

MAX_IMPORTS = 8  # followed from a name in a package's __init__ to its definition


def names_taken(target: str) -> tuple[str, ...] | None:
    """Returns the argument names of a class or function by its dotted name; None where any may be taken.

    A constructor that passes all its `**` arguments on to the one above it takes the arguments of both.
    """
    module, _, name = target.rpartition(".")
    module, found = definition(module, name)
    function = constructor(found) if isinstance(found, ast.ClassDef) else found
    if not isinstance(function, ast.FunctionDef):
        return None
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    own = tuple(argument.arg for argument in arguments if argument.arg != "self")
    if function.args.kwarg is None:
        return own
    call = call_above(function, function.args.kwarg.arg)
    while call and isinstance(found, ast.ClassDef) and [type(base) for base in found.bases] == [ast.Name]:
        below, base = found.name, ast.unparse(found.bases[0])
        module, found = definition(module, base) if base != below else (module, None)
        if isinstance(found, ast.ClassDef) and constructor(found):
            inherited = names_taken(f"{module}.{found.name}")
            given = {keyword.arg for keyword in call.keywords}
            others = [name for name in (inherited or ())[len(call.args) :] if name not in given]
            return None if inherited is None else tuple(dict.fromkeys([*own, *others]))
    return None


def constructor(found: ast.ClassDef) -> ast.FunctionDef | None:
    """Returns the `__init__` that a class itself defines."""
    return next((part for part in found.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)


def call_above(function: ast.FunctionDef, options: str) -> ast.Call | None:
    """Returns the call of the constructor above this one, if the `**` arguments are passed on there and used nowhere else."""
    nodes = list(ast.walk(function))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__"]
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == options]
    passed_on = [keyword.value for call in calls for keyword in call.keywords if keyword.arg is None]
    return calls[0] if len(calls) == len(uses) == 1 and passed_on == uses else None


def definition(module: str, name: str) -> tuple[str, ast.stmt | None]:
    """Returns the statement that defines a class or function, and its module, wherever the named one imports it from."""
    for _ in range(MAX_IMPORTS):
        file = source_of(module)
        package = module if file and file.name == "__init__.py" else module.rpartition(".")[0]
        imported = None
        for statement in _statements(file, file.stat().st_mtime_ns) if file else ():
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return module, statement
            if isinstance(statement, ast.ImportFrom) and imported is None:
                names = [alias.name for alias in statement.names if (alias.asname or alias.name) == name]
                source = "." * statement.level + (statement.module or "")
                imported = (importlib.util.resolve_name(source, package), names[0]) if names else None
        if imported is None:
            break
        module, name = imported
    return module, None


@lru_cache(maxsize=64)
def _statements(file: Path, modified_ns: int) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def source_of(module: str) -> Path | None:
    """Returns the file of a module without importing its package; None where there is none."""
    package, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    files = [] if rest else [Path(spec.origin or "")]
    for location in spec.submodule_search_locations or ():
        place = Path(location, *rest.split("."))
        files += [place / "__init__.py", place.with_suffix(".py")]
    return next((file for file in files if file.suffix == ".py" and file.is_file()), None)
