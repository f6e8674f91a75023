"""Alters the content of a checkpoint at random places: the file stays well-formed, and what is in it does not."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch

from arclight.checkpoint.contents import build_module
from arclight.config.compose import compose
from arclight.data.info import to_plain
from arclight.images.info import ImageInfo
from arclight.interfaces import DataInfo
from arclight.text.info import TokenInfo
from arclight.text.tokenizer import train_wordpiece
from project.data.synthetic_images import SHAPES

SIZES = ["data.num_train=8", "data.num_val=4", "data.num_test=4", "data.batch_size=4", "trainer.accelerator=cpu"]
IMAGES = ["experiment=demo", "model=small_cnn", *SIZES]
ENCODER = [f"model.{key}={value}" for key, value in (("num_hidden_layers", 1), ("hidden_size", 8), ("num_attention_heads", 2))]
TEXT = ["experiment=demo_tagger", *ENCODER, *SIZES]
TEXTS = (
    "",
    "x",
    "null",
    "\ud800",
    "\x1b[2J\x1b]0;title\x07",
    "${oc.env:HOME}",
    "../../x",
    "os.system",
    "a" * 5000,
    "arclight.data",
)
NUMBERS = (0, -1, 1, 2.5, True, 1 << 40, 10**30, 10**400, 1e308, float("nan"), float("-inf"))
OTHERS = (None, b"x", 1j, torch.ones(2), torch.Size([1]), torch.float32, (1, "a"), {1, 2}, torch.device("meta"))


def image_checkpoint() -> dict[str, Any]:
    """Returns the content of a small checkpoint of the first example."""
    info = ImageInfo(channels=3, height=32, width=32, classes=tuple(SHAPES), mean=(0.5,) * 3, std=(0.5,) * 3)
    return content_of(IMAGES, info)


def text_checkpoint() -> dict[str, Any]:
    """Returns the content of a small checkpoint of the second example."""
    tokenizer = train_wordpiece(["in", "Paris", "lives", "Ann"], vocab_size=60)
    labels = ("O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for prefix in "BI"))
    size, pad = tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]")
    return content_of(TEXT, TokenInfo(labels=labels, tokenizer=tokenizer.to_str(), vocab_size=size, pad_id=pad, max_length=32))


def content_of(overrides: list[str], info: DataInfo) -> dict[str, Any]:
    """Returns what a run with these overrides writes into a checkpoint, with untrained weights."""
    config = compose(overrides)
    module = build_module(config.settings, info)
    ours = {"version": 2, "settings": config.settings, "data_info": to_plain(info)}
    ours |= {"blueprint": {}, "options": {"data": config.data, "model": config.model}}
    return {"arclight": ours, "state_dict": module.state_dict(), "global_step": 1, "epoch": 0}


def saved(content: Any) -> bytes:
    """Returns the bytes of a checkpoint."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every key and item below a node, ten levels deep: it may contain itself by now."""
    if len(path) == 10:
        return
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(node: Any, path: tuple[Any, ...]) -> Any:
    """Returns what is at a path."""
    for key in path:
        node = node[key]
    return node


def holds(node: Any, path: tuple[Any, ...]) -> bool:
    """Returns whether there still are mappings along a path."""
    return isinstance(node, dict) and (not path or (path[0] in node and holds(node[path[0]], path[1:])))


def alter(content: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], str]:
    """Returns a copy of the content with one or two alterations, and what they are."""
    changed = {**content, "arclight": copy.deepcopy(content["arclight"]), "state_dict": dict(content["state_dict"])}
    info = changed["arclight"]["data_info"]
    changed["arclight"]["data_info"] = {key: list(value) if isinstance(value, tuple) else value for key, value in info.items()}
    notes = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        # settings have many keys: the others are drawn as often
        starts = [(), ("arclight",), *(("arclight", name) for name in ("data_info", "settings", "settings", "settings"))]
        start: tuple[Any, ...] = draw.choice([path for path in starts if holds(changed, path)])
        if not (known := [path for path in places(at(changed, start)) if len(start) == 2 or len(path) < 3]):
            continue
        path = (*start, *draw.choice(known))
        kind = draw.choice(list(ALTERATIONS))
        ALTERATIONS[kind](changed, at(changed, path[:-1]), path[-1], draw)
        notes.append(f"{kind} {'.'.join(map(str, path))}")
    return changed, "; ".join(notes)


def _replace(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    values = (draw.choice(TEXTS), draw.choice(NUMBERS), draw.choice(OTHERS), {}, [], {"a": {"b": 1}}, ["a"], {1: 2}, nested)
    parent[key] = draw.choice(values)


def _refer_to_itself(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    loop: Any = draw.choice(({}, []))
    if isinstance(loop, dict):
        loop["a"] = loop
    else:
        loop.append(loop)
    parent[key] = draw.choice((parent, top, top["arclight"], loop))


def _delete(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    del parent[key]


def _add(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    name = draw.choice((*TEXTS, "_target_", "_partial_", "extra", 5, None, True, (1,)))
    if isinstance(parent, dict):
        parent[name] = draw.choice((1, "x", None, [1], {"_target_": "os.getcwd"}))
    else:
        parent.append(name)


def _rename(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    value = parent[key]
    del parent[key]
    if isinstance(parent, dict):
        parent[draw.choice((f"{key}x", "\ud800", "\x1b[31m", 7))] = value


def _swap(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    if known := list(places(top["arclight"])):
        path = draw.choice(known)
        other = at(top["arclight"], path[:-1])
        parent[key], other[path[-1]] = copy.copy(other[path[-1]]), copy.copy(parent[key])


def _wrap(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    parent[key] = draw.choice(([parent[key]], {"a": parent[key]}, str(parent[key])))


def _decorate(top: Any, parent: Any, key: Any, draw: random.Random) -> None:
    """Puts escape sequences or half a surrogate pair into a text, also into each text of a list."""
    more = draw.choice(("\x1b[2J", "\ud800", "\x00", "\u202e"))
    value = parent[key]
    parent[key] = [f"{item}{more}" for item in value] if isinstance(value, list) else f"{value}{more}"


ALTERATIONS: dict[str, Callable[[Any, Any, Any, random.Random], None]] = {
    "replace": _replace,
    "refer to itself": _refer_to_itself,
    "delete": _delete,
    "add": _add,
    "rename": _rename,
    "swap": _swap,
    "wrap": _wrap,
    "decorate": _decorate,
}
