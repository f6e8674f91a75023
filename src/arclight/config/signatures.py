"""The arguments that a `_target_` takes, read from its source: importing torch to report a typo would take seconds."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

MAX_IMPORTS = 8  # followed from a name in a package's __init__ to its definition


def names_taken(target: str) -> tuple[str, ...] | None:
    """Returns the argument names of a class or function by its dotted name; None where any may be taken."""
    module, _, name = target.rpartition(".")
    found = definition(module, name)
    if isinstance(found, ast.ClassDef):
        found = next((part for part in found.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    if not isinstance(found, ast.FunctionDef) or found.args.kwarg is not None:
        return None
    arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
    return tuple(argument.arg for argument in arguments if argument.arg != "self")


def definition(module: str, name: str) -> ast.stmt | None:
    """Returns the statement that defines a class or function, wherever the module imports it from."""
    for _ in range(MAX_IMPORTS):
        file = source_of(module)
        if file is None:
            return None
        imported = None
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return statement
            if isinstance(statement, ast.ImportFrom) and imported is None:
                names = [alias.name for alias in statement.names if (alias.asname or alias.name) == name]
                source = origin(statement, module, is_package=file.name == "__init__.py")
                imported = (source, names[0]) if names else None
        if imported is None:
            return None
        module, name = imported
    return None


def origin(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """Returns the module that a statement in `module` imports from."""
    parents = module.split(".")
    parents = parents[: len(parents) - statement.level + is_package] if statement.level else []
    return ".".join([*parents, *([statement.module] if statement.module else [])])


def source_of(module: str) -> Path | None:
    """Returns the file of a module without importing its package; None where there is none."""
    package, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or (not spec.submodule_search_locations and rest):
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    places = [Path(location, *rest.split(".")) if rest else Path(location) for location in spec.submodule_search_locations]
    files = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")))
    return next((file for file in files if file.is_file()), None)
