"""The arguments that a `_target_` takes, read from its source: importing torch to report a typo would take seconds."""

from __future__ import annotations

import ast
import functools
import importlib.util
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_IMPORTS = 8  # followed from a name in a package's __init__ to its definition
PLAIN = {"int": int, "float": float, "bool": bool, "str": str}


def names_taken(target: str) -> tuple[str, ...] | None:
    """Returns the argument names of a class or function by its dotted name; None where any may be taken."""
    taken = annotations_taken(target)
    return None if taken is None else tuple(taken)


def plain_type(annotation: ast.expr | None) -> Any:
    """Returns the type of an annotation that consists of numbers, text, truth values, null and literals; None for others."""
    match annotation:
        case ast.Constant(value=None):
            return type(None)
        case ast.Name(id=name):
            return PLAIN.get(name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [plain_type(left), plain_type(right)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            listed = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            values = [choice.value for choice in listed if isinstance(choice, ast.Constant)]
            return typing.Literal[tuple(values)] if len(values) == len(listed) else None
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=choices)):
            parts = [plain_type(choice) for choice in choices]
        case ast.Subscript(value=ast.Name(id="Optional"), slice=choice):
            parts = [plain_type(choice), type(None)]
        case _:
            return None
    return None if None in parts else typing.Union[tuple(parts)]  # noqa: UP007  # of a list


def annotations_taken(target: str) -> Mapping[str, ast.expr | None] | None:
    """Returns the annotations of the arguments of a class or function by its dotted name; None where any may be taken.

    A constructor that passes all its `**` arguments on to the one above it takes the arguments of both.
    """
    module, _, name = target.rpartition(".")
    module, found = definition(module, name)
    function = constructor(found) if isinstance(found, ast.ClassDef) else found
    if not isinstance(function, ast.FunctionDef):
        return None
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    own = {argument.arg: argument.annotation for argument in arguments if argument.arg != "self"}
    if function.args.kwarg is None:
        return own
    call = call_above(function, function.args.kwarg.arg)
    while call and isinstance(found, ast.ClassDef) and [type(base) for base in found.bases] == [ast.Name]:
        below, base = found.name, ast.unparse(found.bases[0])
        module, found = definition(module, base) if base != below else (module, None)
        if isinstance(found, ast.ClassDef) and constructor(found):
            inherited = annotations_taken(f"{module}.{found.name}")
            given = {keyword.arg for keyword in call.keywords}
            others = list((inherited or {}).items())[len(call.args) :]
            return None if inherited is None else own | {key: value for key, value in others if key not in {*given, *own}}
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
        for statement in statements(file, file.stat().st_mtime_ns) if file else ():
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


@functools.lru_cache(maxsize=64)
def statements(file: Path, changed: int) -> list[ast.stmt]:
    """Returns the statements of a source file that define or import names, read once for each time it is changed."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.ImportFrom)
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


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
