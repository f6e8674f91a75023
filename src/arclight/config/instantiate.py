"""The only place that turns a `_target_` into an object."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import HydraException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from arclight.errors import InputError, nearest

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# A `_target_` is code that runs, and configs come in checkpoints, too: they may call the classes and functions that are written
# in these packages, not what those import from elsewhere, nothing private, and no methods, some of which read pickles. This is
# the one list to widen: whoever adds a package of their own puts its dotted name here. Left out on purpose is what runs a
# stranger's code when asked to: torch.load, torch.hub, transformers.pipeline, CLIPScore of torchmetrics.
ALLOWED_PACKAGES = (
    *("project.data", "project.models", "project.lightning_modules"),
    *("arclight.images", "arclight.text", "arclight.data", "arclight.modules", "arclight.optim", "arclight.callbacks"),
    *("arclight.loggers", "arclight.checkpoint.last_checkpoint"),
    *("benchmarks.communication", "benchmarks.records"),  # callbacks that measure
    *("lightning.pytorch.Trainer", "lightning.pytorch.trainer.trainer"),  # the same class, by its two names
    *("lightning.pytorch.callbacks", "lightning.pytorch.loggers", "lightning.pytorch.profilers"),
    *("lightning.pytorch.strategies", "lightning.pytorch.plugins", "lightning.fabric.plugins"),
    *("torch.nn", "torch.optim", "torchmetrics.classification"),
)
SPECIAL_KEYS = ("_args_", "_convert_", "_recursive_")  # of hydra.utils.instantiate, which is not what builds here


def build(settings: Mapping[str, Any], path: str, given: Mapping[str, Any] | None = None) -> Any:
    """The object that `settings` describes; with `_partial_: true`, a callable that still wants arguments.

    Args:
        settings: `_target_` (a dotted name) and its keyword arguments, nested targets included.
        path: where the settings stand in the config, such as "model"; every error names it.
        given: further keyword arguments, objects that YAML cannot hold.

    Raises:
        InputError: for a target that is not allowed or not there, an argument that it does not take, one that it lacks, or
            a value of the wrong type.
    """
    given = given or {}
    check(settings, path, given)
    return _made(settings, path, given)


def _made(value: Any, path: str, given: Mapping[str, Any]) -> Any:
    """The value with an object in place of each description of one. Texts stay as they are: nothing in them is resolved."""
    if isinstance(value, list | tuple):
        return [_made(inner, f"{path}.{place}", {}) for place, inner in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    arguments = {key: _made(inner, f"{path}.{key}", {}) for key, inner in value.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in value:
        return arguments
    make = functools.partial(find_target(str(value["_target_"]), path), **{**arguments, **given})
    return make if value.get("_partial_", False) else make()


def check(settings: Mapping[str, Any], path: str, given: Mapping[str, Any]) -> None:
    """Tells what `build` would trip over, without building.

    Raises:
        InputError: as `build`, naming every mistake.
    """
    if errors := find_errors(settings, path, given):
        raise InputError("\n".join(errors))


def find_errors(settings: Mapping[str, Any], path: str, given: Mapping[str, Any]) -> list[str]:
    """Everything that `build` would trip over, one message each; arguments as of `build`."""
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        return [f"{path} needs a _target_: the dotted name of what to build"]
    target = str(settings["_target_"])
    try:
        parameters = parameters_of(target, path)
    except InputError as error:
        return [str(error)]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {key: value for key, value in settings.items() if key not in ("_target_", "_partial_")}
    name = target.rpartition(".")[2]
    errors = []
    for key, value in arguments.items():
        if key in SPECIAL_KEYS or (key not in parameters and not open_ended):
            errors.append(f"{path}.{key}: {name} takes no '{key}'. {nearest(key, parameters)}")
        elif nested := list(nested_targets(value, f"{path}.{key}")):
            for place, inner in nested:
                errors += find_errors(inner, place, {})
        elif key in parameters:
            errors += wrong_type(value, parameters[key].annotation, f"{path}.{key}")
    if not settings.get("_partial_", False):
        errors += [
            f"{path}: {name} needs {key}; add {path}.{key}=... to the command"
            for key, parameter in parameters.items()
            if parameter.default is parameter.empty and parameter.kind in NAMED and key not in {*arguments, *given}
        ]
    return errors


def nested_targets(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The settings of what a value is built from, itself or inside of lists and mappings, each with its place."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield path, value
    elif isinstance(value, Mapping | list | tuple):
        for position, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from nested_targets(entry, f"{path}.{position}")


def find_target(target: str, path: str) -> Any:
    """The class or function that the dotted name stands for.

    Raises:
        InputError: when the name, or what it stands for, is outside ALLOWED_PACKAGES or private, when it names nothing, or
            a method.
    """
    refuse_unless_allowed(target, target, path)  # before anything is imported
    if any(part.startswith("_") for part in target.split(".")):
        raise InputError(f"{path}: _target_ '{target}' is private to its package; name what the package offers to others")
    try:
        found = hydra.utils.get_object(target)
    except (HydraException, ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: _target_ '{target}' names nothing that can be imported: {error}") from error
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    if not callable(found) or not isinstance(module, str) or (not inspect.isclass(found) and "." in name):
        raise InputError(
            f"{path}: _target_ '{target}' is neither a class nor a function of a module; name one, such as a function of yours "
            f"in arclight.models that calls it"
        )
    refuse_unless_allowed(f"{module}.{name}", target, path)
    return found


def refuse_unless_allowed(name: str, target: str, path: str) -> None:
    """Raises InputError for a dotted name outside ALLOWED_PACKAGES; `target` is how the config calls it."""
    if any(f"{name}.".startswith(f"{package}.") for package in ALLOWED_PACKAGES):
        return
    shown = f"'{target}'" if name == target else f"'{target}', which is {name},"
    raise InputError(
        f"{path}: _target_ {shown} is outside the packages that a config may call ({', '.join(ALLOWED_PACKAGES)}); "
        f"ALLOWED_PACKAGES in src/arclight/config/instantiate.py is the list to widen"
    )


def parameters_of(target: str, path: str = "_target_") -> dict[str, inspect.Parameter]:
    """The parameters of what the dotted name stands for, annotations resolved; raises as `find_target`."""
    made = find_target(target, path)
    # Lightning wraps the constructors it takes defaults for; the signature is that of what is wrapped
    parameters = dict(inspect.signature(inspect.unwrap(made)).parameters)
    function = made.__init__ if inspect.isclass(made) else made
    return {key: parameter.replace(annotation=annotation_of(function, key)) for key, parameter in parameters.items()}


def annotation_of(function: Any, name: str) -> Any:
    """The type that a parameter is annotated with; Any where there is none, or only a type checker can see it."""
    function = inspect.unwrap(function)
    written = getattr(function, "__annotations__", {})
    if name not in written:
        return Any
    alone = type("Alone", (), {"__annotations__": {name: written[name]}})
    try:
        return typing.get_type_hints(alone, globalns=getattr(function, "__globals__", {}))[name]
    except NameError:
        return Any


def wrong_type(value: Any, annotation: Any, path: str) -> list[str]:
    """What is wrong with a value from YAML or the command line that is not of the annotated type; nothing if it is."""
    try:
        taken = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError:
        near = difflib.get_close_matches(
            str(value), [choice for choice in literals(annotation) if isinstance(choice, str)], n=1
        )
        return [f"{path}={value!r} must be {described(annotation)}" + (f". Did you mean '{near[0]}'?" if near else "")]
    except (PydanticSchemaGenerationError, TypeError):
        return []  # a dataclass or protocol that pydantic has no schema for: the constructor judges
    if not is_alike(value, taken):  # pydantic would convert it; the constructor gets it as it is
        return [f"{path}={value!r} must be {described(annotation)}"]
    return []


def is_alike(value: Any, taken: Any) -> bool:
    """Whether pydantic took a value as it is: no number out of text or a truth value, no whole number out of a fraction."""
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
    """The values that an annotation lists, those inside of a union included."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in literals(part)]
    return []


def described(annotation: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null", Any: "anything"}
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join("null" if part is None else str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(part) for part in parts))
    if origin in (list, tuple, Sequence, Iterable):
        of = [part for part in parts if part is not Ellipsis]
        return f"a list (of {described(of[0])} each)" if of else "a list"
    if annotation in words:
        return words[annotation]
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")
