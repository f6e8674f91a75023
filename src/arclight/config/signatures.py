"""What a `_target_` takes, read from its source: importing torch or lightning to tell a typo would take seconds."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

MAX_HOPS = 8  # from a name in a package's __init__ to where it is written


def names_taken(target: str) -> tuple[str, ...] | None:
    """The names of the arguments that a class or function takes; None where its source does not tell, or it takes any.

    Args:
        target: dotted name.
    """
    module, _, name = target.rpartition(".")
    found = definition(module, name)
    if isinstance(found, ast.ClassDef):
        found = next((part for part in found.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    if not isinstance(found, ast.FunctionDef) or found.args.kwarg is not None:
        return None
    arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
    return tuple(argument.arg for argument in arguments if argument.arg != "self")


def definition(module: str, name: str) -> ast.stmt | None:
    """The class or function of that name, wherever the module has it from."""
    for _ in range(MAX_HOPS):
        file = source_of(module)
        if file is None:
            return None
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for statement in ast.walk(tree):
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return statement
        is_package = file.name == "__init__.py"
        imported = [
            (origin(statement, module, is_package=is_package), alias.name)
            for statement in ast.walk(tree)
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
            if (alias.asname or alias.name) == name
        ]
        if not imported:
            return None
        module, name = imported[0]
    return None


def origin(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The module that a statement in `module` imports from."""
    if not statement.level:
        return statement.module or ""
    above = module.split(".")
    above = above[: len(above) - statement.level + is_package]
    return ".".join([*above, *([statement.module] if statement.module else [])])


def source_of(module: str) -> Path | None:
    """The file of a module, found without importing its package."""
    package, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    for location in spec.submodule_search_locations:
        place = Path(location, *rest.split(".")) if rest else Path(location)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return file
    return None
