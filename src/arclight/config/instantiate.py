"""Builds objects from `_target_` and its arguments; the only place that does."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import pkgutil
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from arclight.config import trust
from arclight.config.groups import is_late
from arclight.config.known_names import HYDRAS_OWN, targets, unknown_argument
from arclight.config.signatures import names_taken
from arclight.errors import InputError, closest, first_line, raised_by_package, shown

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
NOT_ARGUMENTS = ("_target_", "_partial_")
INSTALL = {  # packages that a config may name and that are no dependencies
    "timm": "pip install timm, with the torchvision of your torch: see https://pytorch.org/get-started/locally",
    "torchvision": "install the one that matches your torch: see https://pytorch.org/get-started/locally",
    "peft": "pip install peft",
}


def build(settings: Mapping[str, Any], path: str, given: Mapping[str, Any] | None = None, *, is_trusted: bool = True) -> Any:
    """Returns the object that `settings` describes; with `_partial_: true`, a callable that takes the remaining arguments.

    Args:
        settings: `_target_` (a dotted name) and its keyword arguments, nested targets included.
        path: where the settings are in the config, such as "model"; every error names it.
        given: further keyword arguments, objects that YAML cannot hold.
        is_trusted: whether the settings are the user's own; those of a checkpoint are not, and may name less (see `trust`).

    Raises:
        InputError: for a target that may not be called or does not exist, an unknown or missing argument, or a value of the
            wrong type; all of them at once.
    """
    given = given or {}
    check(settings, path, given, is_trusted=is_trusted)
    return _build(settings, path, given, is_trusted=is_trusted)


def check(settings: Mapping[str, Any], path: str, given: Mapping[str, Any], *, is_trusted: bool = True) -> None:
    """Raises what `build` with these arguments would raise, without building."""
    if errors := find_errors(settings, path, given, is_trusted=is_trusted):
        raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)), errors=errors)


def _build(value: Any, path: str, given: Mapping[str, Any], *, is_trusted: bool) -> Any:
    """Returns the value with an object for each description of one. Text stays as it is: nothing in it is resolved."""
    if isinstance(value, list | tuple):
        return [_build(inner, f"{path}.{place}", {}, is_trusted=is_trusted) for place, inner in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    arguments = {
        key: _build(inner, f"{path}.{key}", {}, is_trusted=is_trusted)
        for key, inner in value.items()
        if key not in NOT_ARGUMENTS
    }
    if "_target_" not in value:
        return arguments
    target = find_target(str(value["_target_"]), path, is_trusted=is_trusted, arguments=arguments)
    make = functools.partial(target, **{**arguments, **given})
    return make if value.get("_partial_", False) else call(make, path)


def call(make: functools.partial[Any], path: str) -> Any:
    """Returns what the partial makes.

    Raises:
        InputError: for any exception of an installed package, such as a name or a file that it does not know. One that passed
            through other code keeps its traceback: that is where its author looks.
    """
    try:
        return make()
    except InputError:
        raise
    except Exception as error:
        if not raised_by_package(error):
            raise
        name = f"{make.func.__module__}.{make.func.__qualname__}"
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{path}: {name} raised {problem} (ARCLIGHT_DEBUG=1 shows where)", key=path) from error


def find_errors(
    settings: Mapping[str, Any], path: str, given: Mapping[str, Any], *, is_trusted: bool = True
) -> list[InputError]:
    """Returns everything that `build` with these arguments would raise, without building."""
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        return [InputError(f"{path} needs a _target_: the dotted name of what to build", key=path)]
    target = str(settings["_target_"])
    arguments = {key: value for key, value in settings.items() if key not in NOT_ARGUMENTS}
    try:
        parameters = parameters_of(target, path, is_trusted=is_trusted, arguments=arguments)
    except InputError as error:
        return [error]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    name = target.rpartition(".")[2]
    errors: list[InputError] = []
    for key, value in arguments.items():
        if key in HYDRAS_OWN or (key not in parameters and not open_ended):
            errors.append(unknown_argument(path, key, name, parameters))
        elif nested := dict(targets(value, f"{path}.{key}")):
            for place, inner in nested.items():  # those inside another are checked with it
                if not any(place.startswith(f"{outer}.") for outer in nested):
                    errors += find_errors(inner, place, {}, is_trusted=is_trusted)
        elif key in parameters and not is_late(value):
            errors += check_type(value, parameters[key].annotation, f"{path}.{key}")
    if not settings.get("_partial_", False):
        errors += [
            InputError(f"{path}: {name} needs {key}; add {path}.{key}=... to the command", key=path)
            for key, parameter in parameters.items()
            if parameter.default is parameter.empty and parameter.kind in NAMED and key not in {*arguments, *given}
        ]
    return errors


def find_target(target: str, path: str, *, is_trusted: bool = True, arguments: Mapping[str, Any] | None = None) -> Any:
    """Returns the class or function of a dotted name.

    Raises:
        InputError: when there is none, or a config that is not the user's own may not call it with these arguments.
    """
    target = str(target)  # a file may hold a number
    if not is_trusted:
        trust.check_name(target, path, arguments or {})  # before anything is imported
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        reason: Exception = error
        with contextlib.suppress(ValueError):
            try:
                importlib.import_module(target.rpartition(".")[0])
            except ImportError as cause:  # of something that the module imports itself
                reason = cause
        package = target.partition(".")[0]
        missing = str(getattr(reason, "name", "")).partition(".")[0]
        if package in INSTALL and missing in INSTALL and sys.modules.get(missing) is None:
            message = f"{path}: '{target}' needs {missing}, which is not installed; {INSTALL[missing]}"
        else:
            message = f"{path}: _target_ '{target}' names nothing that can be imported: {first_line(reason)}"
        raise InputError(message, key=path) from error
    if not is_trusted:
        trust.check_definition(found, target, path)
    elif not callable(found):
        raise InputError(f"{path}: _target_ '{target}' cannot be called; name a class or a function", key=path)
    else:
        trust.remember(target)
    return found


def parameters_of(
    target: str, path: str = "_target_", *, is_trusted: bool = True, arguments: Mapping[str, Any] | None = None
) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a class or function by its dotted name, annotations resolved; raises as `find_target`."""
    made = find_target(target, path, is_trusted=is_trusted, arguments=arguments)
    try:
        # Lightning wraps the constructors it takes defaults for; the signature is that of what is wrapped
        parameters = dict(inspect.signature(inspect.unwrap(made)).parameters)
    except ValueError:  # of a function in C: it judges itself
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}
    function = made.__init__ if inspect.isclass(made) else made
    found = {key: parameter.replace(annotation=annotation_of(function, key)) for key, parameter in parameters.items()}
    is_open = inspect.isclass(made) and any(parameter.kind is parameter.VAR_KEYWORD for parameter in found.values())
    names = names_taken(f"{made.__module__}.{made.__qualname__}") if is_open else None
    if names is None:
        return found
    for above in made.__mro__[1:]:
        if not found.keys() >= set(names):
            for key, parameter in inspect.signature(inspect.unwrap(above)).parameters.items():
                found.setdefault(key, parameter.replace(annotation=annotation_of(above.__init__, key)))
    return {key: found[key] for key in names}


def annotation_of(function: Any, name: str) -> Any:
    """Returns the type that a parameter is annotated with; Any where there is none, or only a type checker can see it."""
    function = inspect.unwrap(function)
    written = getattr(function, "__annotations__", {})
    if name not in written:
        return Any
    alone = type("Alone", (), {"__annotations__": {name: written[name]}})
    try:
        return typing.get_type_hints(alone, globalns=getattr(function, "__globals__", {}))[name]
    except NameError:
        return Any


def check_type(value: Any, annotation: Any, path: str) -> list[InputError]:
    """Returns the error for a value from YAML or the command line that is not of the annotated type."""
    near: list[str] = []
    try:
        taken = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        if is_alike(value, taken):  # else pydantic would convert it, but the constructor gets it as it is
            return []
    except ValidationError:
        near = closest(str(value), literals(annotation))
    except (PydanticUserError, TypeError):
        return []  # a dataclass or protocol that pydantic has no schema for: the constructor judges
    hint = f". Did you mean '{near[0]}'?" if near else ""
    suggestions = [f"{path}={text}" for text in near]
    return [InputError(f"{path}={shown(value)} must be {described(annotation)}{hint}", key=path, suggestions=suggestions)]


def is_alike(value: Any, taken: Any) -> bool:
    """Returns whether pydantic left a value as it is: no number made of text or a truth value, no int of a float."""
    if isinstance(value, list | tuple) and isinstance(taken, list | tuple):
        return all(itertools.starmap(is_alike, zip(value, taken, strict=False)))
    if isinstance(value, Mapping) and isinstance(taken, Mapping):
        return all(is_alike(value[key], taken[key]) for key in value if key in taken)
    if isinstance(value, bool) or isinstance(taken, bool):
        return type(value) is type(taken)
    if isinstance(taken, int | float):
        return isinstance(value, int) or (isinstance(value, float) and isinstance(taken, float))
    return True


def literals(annotation: Any) -> list[Any]:
    """Returns the values that an annotation lists, those inside a union included."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in literals(part)]
    return []


def described(annotation: Any) -> str:
    """Returns a type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null", Any: "anything"}
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join("null" if part is None else str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(part) for part in parts))
    if origin in (dict, Mapping):
        return "a mapping"
    if origin in (list, tuple, Sequence, Iterable):
        of = [part for part in parts if part is not Ellipsis]
        return f"a list (of {described(of[0])} each)" if of else "a list"
    if annotation in words:
        return words[annotation]
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")
