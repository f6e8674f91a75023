"""A table of wrong inputs: what is typed after `python train.py`, and words of the message. Most rows are made from conf/.

Rows of one kind and base are put together into as few commands as can be: no two of a command are about the same key or node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from arclight.config import locations
from arclight.config.instantiate import parameters_of
from arclight.config.known_names import HYDRAS_OWN, groups_there, keys_at_top, options_of, walk
from arclight.config.signatures import names_taken

IMAGES = (
    *("experiment=demo", "data.num_train=64", "data.num_val=32", "data.num_test=32", "data.batch_size=16", "model=small_cnn"),
    *("precision=fp32", "logger=none"),
)
TEXT = (
    *("experiment=demo_tagger", "data.num_train=32", "data.num_val=16", "data.num_test=16", "model.num_hidden_layers=1"),
    *("model.hidden_size=16", "precision=fp32", "logger=none"),
)
FOR_ALL = ("experiment", "debug")  # their files set keys of other groups
TIED = {"monitor": ("callbacks",), "monitor_mode": ("callbacks",), "model": ("module",), "module": ("model", "callbacks")}
NO_TYPE = ("nonsense", "[nonsense]", "{non: sense}")


@dataclass(frozen=True)
class Row:
    """Overrides after those of a base, and words that the message must have.

    `kind` is what finds the error: "names" (names alone), "composing" or "start" (composing), "types", "ranges" or "trial"
    (preflight).
    """

    kind: str
    base: tuple[str, ...]
    overrides: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """What the row is about, keys or nodes whose errors are found one at a time; rows of one option are found together."""
        keys = [text.lstrip("+~").partition("=")[0] for text in self.overrides]
        alone = self.kind == "types" or all(key.startswith(("trainer.", "hardware.")) for key in keys)
        choice = self.overrides[0] if self.kind == "names" and "." not in keys[0] and len(keys) > 1 else ""
        places = {key if alone else key.partition(".")[0] for key in keys}
        places |= {tied for place in places for tied in TIED.get(place, ())}
        own = dict(zip(keys[1:], self.overrides[1:], strict=True)) if choice else {}
        return {place: choice or " ".join(self.overrides) for place in places} | own


def row(overrides: str, *words: str, kind: str = "ranges", base: tuple[str, ...] = IMAGES) -> Row:
    """Returns a row of overrides without spaces in them, separated by spaces."""
    typed = tuple(overrides.split(" "))
    base = base if kind in ("types", "ranges", "trial") else ()
    return Row(kind, base, typed, words or (typed[-1].lstrip("+~").partition("=")[0],))


def groups() -> Iterator[str]:
    """Yields the groups that hold keys of their own."""
    yield from (group for group in groups_there() if group not in FOR_ALL)


def misspelled(name: str) -> str:
    """Returns a name with its last two letters exchanged, as a hand types it."""
    return name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else f"{name}{name[-1]}x"


def wrong_groups() -> Iterator[Row]:
    """Rows for each group: null, a number, a dictionary, an unknown and a misspelled option, a misspelled name, left out."""
    for group in groups_there():
        for value in ("null", "5", "{a:1}", "[5]"):
            yield row(f"{group}={value}", f"{group}={value}: {group} chooses a file of conf/{group}/", kind="names")
        yield row(f"{group}=zzzzzz", f"{group}=zzzzzz: conf/{group}/ has no zzzzzz.yaml", kind="names")
        yield row(f"{group}=", f"{group}=: conf/{group}/ has no .yaml", kind="names")
        option = options_of(group)[0]
        wrong = misspelled(option)
        if len(option) > 4 and wrong not in options_of(group):
            yield row(f"{group}={wrong}", f"{group}={wrong}: conf/{group}/ has no {wrong}.yaml. Did you mean '", kind="names")
        yield row(f"{group}.zzzzzz=1", f"{group}.zzzzzz=1", kind="names")
    for key in ("seed", "name", "optimizer", "scheduler", "trainer", "hardware", "checkpoint", "callbacks", "logger", "model"):
        yield row(f"~{key}", f"{key} is needed and must not be left out", kind="names")
    for key in ("resume", "resume_with_changes", "preflight"):
        yield row(f"~{key}", f"{key} is needed and must not be left out", kind="names")


def nodes_of_conf() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields option, dotted path and content of each node in conf/ from which something is built."""
    for group in groups():
        for option in options_of(group):
            content = yaml.safe_load((locations.CONF / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
            if "@package" in (locations.CONF / group / f"{option}.yaml").read_text(encoding="utf-8").partition("\n")[0]:
                continue
            for path, node in walk(content, group):
                if isinstance(node, Mapping) and "_target_" in node:
                    yield f"{group}={option}", path, node


def misspelled_keys() -> Iterator[Row]:
    """Rows with a misspelled key for each key of each node of conf/."""
    seen = set()
    for choice, path, node in nodes_of_conf():
        needed = ["data.root=x"] if choice in ("data=image_folder", "data=conll_files") else []
        for key in node:
            wrong = misspelled(str(key))
            if key in (*HYDRAS_OWN, "defaults") or len(str(key)) < 5 or (path, key) in seen or choice == "data=datasets":
                continue
            seen.add((path, key))
            if path.startswith("callbacks.") and names_taken(str(node["_target_"])) is None:
                continue  # any may be taken
            if path.startswith(("callbacks.", "logger.")):
                yield row(f"{choice} +{path}.{wrong}=1", f"{path}.{wrong}", kind="composing")
            else:
                place = f"{path}.{wrong}=1: {path} has no key '{wrong}'. Did you mean '"
                yield row(" ".join([choice, *needed, f"{path}.{wrong}=1"]), place, kind="names")
    for key in keys_at_top():
        yield row(f"{misspelled(key)}=1", f"{misspelled(key)}=1: the config has no key", kind="names")


def wrong_types() -> Iterator[Row]:
    """Rows with a value of no type that the constructor takes, for each key of the nodes of two bases."""
    targets = {
        "data": "project.data.synthetic_images.SyntheticImages",
        "data.augment": "arclight.images.augment.Augment",
        "optimizer": "torch.optim.Adam",
        "checkpoint": "arclight.checkpoint.last_checkpoint.LastCheckpoint",
        "model": "project.models.cnn.Cnn",
        "module": "project.lightning_modules.image_classifier.ImageClassifier",
        "callbacks.early_stopping": "lightning.pytorch.callbacks.EarlyStopping",
        "trainer": "lightning.pytorch.Trainer",
    }
    for path, target in targets.items():
        yield from wrong_types_of(path, target, IMAGES)
    for path, target in {
        "data": "project.data.synthetic_text.SyntheticText",
        "model": "project.models.bert_tagger.BertTagger",
        "module": "project.lightning_modules.token_tagger.TokenTagger",
    }.items():
        yield from wrong_types_of(path, target, TEXT)


PLAIN = (int, float, bool, int | None, float | None, bool | None)


def wrong_types_of(path: str, target: str, base: tuple[str, ...]) -> Iterator[Row]:
    """Rows with values of wrong types for the parameters of a class that take numbers or truth values."""
    for name, parameter in parameters_of(target).items():
        annotation = parameter.annotation
        if annotation not in PLAIN or name == "enable_model_summary" or (path == "data" and name == "seed"):
            continue
        for value in NO_TYPE:
            yield row(f"++{path}.{name}={value}".replace(" ", ""), f"{path}.{name}=", "must be", kind="types", base=base)
        if annotation in (int, int | None) and path != "trainer":
            yield row(f"++{path}.{name}=99999999999999999999", f"{path}.{name}=", kind="types", base=base)


def wrong_values() -> Iterator[Row]:
    """Rows with values out of range and of wrong types, of keys that Lightning, Hydra or the engine check."""
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches", "val_check_interval"):
        for value in ("-1", "1.5", "-0.1"):
            yield row(f"trainer.{name}={value}", f"trainer.{name}={value} must be a whole number")
    for name in ("max_epochs", "max_steps"):
        yield row(f"trainer.{name}=-2", f"trainer.{name}=-2 must be -1 or more")
    for name in ("min_epochs", "min_steps", "gradient_clip_val", "log_every_n_steps"):
        yield row(f"++trainer.{name}=-1", f"trainer.{name}=-1 must be 0 or more")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        yield row(f"++trainer.{name}=0", f"trainer.{name}=0 must be 1 or more")
    for value in ("10", "soon", "1:30", "12:00:00", "5400"):
        yield row(
            f"trainer.max_time='{value}'" if ":" in value else f"trainer.max_time={value}", "must have the form DD:HH:MM:SS"
        )
    for strategy in ("ddp_spawn", "ddp_fork", "ddp_notebook"):
        yield row(f"trainer.strategy={strategy}", f"trainer.strategy={strategy}: arclight starts the processes itself")
    for argument in ("barebones=true", "enable_checkpointing=false", "num_sanity_val_steps=2", "default_root_dir=/x"):
        yield row(f"+trainer.{argument}", f"trainer.{argument.partition('=')[0]}=", "has no effect")
    for argument in ("use_distributed_sampler=true", "logger=true"):
        yield row(f"+trainer.{argument}", f"trainer.{argument.partition('=')[0]}=", "has no effect")
    yield row("trainer.check_val_every_n_epoch=null", "validation by batches across epochs is not supported")
    yield row("+trainer.profiler=nonsense", "'simple', 'advanced', 'pytorch', 'xla'", kind="trial")
    yield row("+trainer.gradient_clip_algorithm=x", "must be norm or value")
    for name in ("accelerator", "strategy", "precision"):
        yield row(f"trainer.{name}=zzz", f"trainer.{name}=zzz is not a")
    for value in ("0", "-2", "zzz", "1.5", "[a]"):
        yield row(f"trainer.devices={value}", f"trainer.devices={'[' + repr('a') + ']' if value == '[a]' else value}")
        yield row(f"trainer.num_nodes={value}", "trainer.num_nodes=")
    for name in ("threads", "workers"):
        for value in ("0", "-1", "x", "1.5", "100000", "true"):
            yield row(f"hardware.{name}={value}", f"hardware.{name}=")
    for name in ("cudnn_benchmark", "channels_last", "retain_heap"):
        for value in ("5", "maybe", "[]"):
            yield row(f"hardware.{name}={value}", f"hardware.{name}=")
    for value in ("0", "-5", "nan", "inf", "x", "true"):
        yield row(f"hardware.timeout_s={value}", "hardware.timeout_s=", "must be a number of seconds above 0")
    for value in ("-1", "1.5", "x", "true"):
        yield row(f"hardware.max_restarts={value}", "hardware.max_restarts=", "whole number of 0 or more")
    for value in ("fast", "7"):
        yield row(f"hardware.compile={value}", "hardware.compile=")
        yield row(f"hardware.matmul_precision={value}", f"hardware.matmul_precision={value} must be one of")
    for value in ("0", "-1", "nan", "inf"):
        yield row(f"checkpoint.every_minutes={value}", f"checkpoint.every_minutes={value} must be more than 0")
    for value in ("0", "-1", "100000000"):
        yield row(f"checkpoint.keep={value}", f"checkpoint.keep={value} must be 1 to 1000")
    for value in ("0", "-2"):
        yield row(f"checkpoint.save_top_k={value}", f"checkpoint.save_top_k={value} must be 1 or more, or -1")
    yield row("checkpoint.every_steps=0", "checkpoint.every_steps=0 must be 1 or more")
    for value in ("-1", "nan", "inf", "1e300", "-1e-9"):
        yield row(f"optimizer.lr={value}", "optimizer.lr=", "must be a finite number of 0 or more")
        yield row(f"optimizer.weight_decay={value}", "optimizer.weight_decay=")
    for value in ("-1", "1.5", "x", "true", "4294967296", "[1]", "{a:1}", "''"):
        yield row(f"seed={value}", "seed=", "must be a whole number from 0 to 4294967295")
    for value in ("maybe", "1", "null", "[]"):
        yield row(f"test={value}", "test=", "must be true or false")
    for value in ("x", "5", "['']", "[[a]]", "'" + "t" * 70 + "'"):
        yield row(f"tags={value}", "tags=", "must be a list")
    for value in ("5", "[a]", "true"):
        yield row(f"monitor={value}", "monitor=", "must be the name of a logged metric")
    for value in ("up", "5", "[min]"):
        yield row(f"monitor_mode={value}", "monitor_mode=", "must be min, max or null")
    for name in ("num_train", "num_val", "num_test", "batch_size", "max_batch_per_device"):
        for value in ("0", "-1"):
            yield row(f"data.{name}={value}", f"data.{name}={value} must be 1 or more")
    yield row("data.num_train=2000000000", "these images would take")
    yield row("model.hidden=2000000000", "its weights take")
    for name in ("crop", "cutout"):
        yield row(f"data.augment.{name}=-1", f"data.augment.{name}=-1 must be a whole number of pixels")
    yield row("++data.vocab_size=99999999", "data.vocab_size=99999999 must be 1000000 or less", base=TEXT)
    for name in ("packing", "context"):
        yield row(f"++data.{name}=zzz", f"data.{name}='zzz' must be", base=TEXT)
    for target in ("nowhere.Thing", "5", "os", "torch.optim", "torch.optim.Nothing", ".a", "torch..optim"):
        for group in ("optimizer", "model", "module", "data", "checkpoint"):
            yield row(f"{group}._target_={target}", f"{group}: _target_ '{target}'")
    for name, words in {
        "LearningRateMonitor": "needs a logger: logger=csv",
        "DeviceStatsMonitor": "needs a logger: logger=csv",
        "RichProgressBar": "there is always a progress bar",
        "TQDMProgressBar": "there is always a progress bar",
        "ModelCheckpoint": "saves by the same rule as that of best.ckpt",
        "GradientAccumulationScheduler": "callbacks.mine",
        "Nothing": "names nothing that can be imported",
    }.items():
        yield row(f"+callbacks.mine._target_=lightning.pytorch.callbacks.{name}", "callbacks.mine", words)
    for value in ("5", "null", "text", "[1]"):
        yield row(f"+callbacks.mine={value}", "callbacks.mine=", "must hold a _target_")
        yield row(f"+logger.mine={value}", "logger.mine=", "must hold a _target_")
    yield row("trainer.limit_val_batches=0 +callbacks.early_stopping.monitor=val/loss", "turns validation off")


def wrong_starts() -> Iterator[Row]:
    """Rows of keys that say how to start, and of values that Hydra cannot read."""
    for value in ("../../x", "/tmp/x", "", "a/../../b", "n" * 300, "null", "true", "[a]"):
        yield row(f"name={value}", "name=", kind="start")
    for value in ("no", "yes", "5", "null", "[]"):
        yield row(f"resume_with_changes={value}", "resume_with_changes=", "must be true or false", kind="start")
    for value in ("ful", "5", "null", "true"):
        yield row(f"preflight={value}", "preflight=", "must be one of quick, full, none", kind="start")
    for value in ("nowhere", "latest", "5", "true", "[]"):
        yield row(
            f"resume={value}", "[]" if value == "[]" else value.replace("t", "T") if value == "true" else value, kind="start"
        )
    yield from unreadable()


KEYS = (
    "data.root",
    "model.widths",
    "optimizer.lr",
    "trainer.max_time",
    "checkpoint.keep",
    "module.loss",
    "hardware.threads",
    "seed",
)
KEYS = (*KEYS, "tags", "monitor", "scheduler.warmup_fraction")


def unreadable() -> Iterator[Row]:
    """Rows with values that Hydra's grammar, or OmegaConf, cannot read, each of another key."""
    keys = itertools.cycle(KEYS)
    for value in ("/a[b", "/a(b)", "/a'b", 'a"b', "[1,2", "{x", "a,", "'open", "[[", "]]", "a)b", '"', "'", "{a:1", "1,2,"):
        typed = f"{next(keys)}={value}"
        yield row(typed, f"{typed}: Hydra cannot read", kind="names")
    for value in ("${nothing.here}", "${oc.env:NOT_SET_ANYWHERE}", "${nothing:x}", "${data.rot}"):
        typed = f"{next(keys)}={value}"
        yield row(typed, typed, kind="names")
    for text in ("demo", "sgd", "train", "adamw"):
        yield row(text, f"{text}: this is not an override", kind="names")
    for value in ("1,2", "a,b", "range(3)", "choice(1,2)", "glob(*)"):
        typed = f"{next(keys)}={value}"
        yield row(typed, f"{typed}: these are several values", kind="names")
    for key in ("data.root.x", "optimizer.lr.y", "seed.z", "trainer.max_epochs.a"):
        yield row(f"{key}=1", f"{key}=1: {key.rpartition('.')[0]} is", "holds no keys", kind="names")


def other_templates() -> Iterator[Row]:
    """Rows of what other templates call otherwise, and that has no counterpart."""
    table = locations.read_conf("other_templates.yaml")["messages"]
    for key in table:
        if key == "paths.data_dir":  # here it is data.root
            continue
        typed = key if "=" in key else f"{key}=x"
        yield row(typed, f"{typed}: ", kind="composing")


def rows() -> list[Row]:
    """Returns all rows."""
    made: Iterable[Iterator[Row]] = (
        *(wrong_groups(), misspelled_keys(), wrong_types(), wrong_values()),
        *(wrong_starts(), other_templates()),
    )
    return list(dict.fromkeys(each for rows in made for each in rows))


def together(table: Iterable[Row]) -> list[tuple[list[str], list[Row]]]:
    """Returns commands and their rows: those of one kind and base, no two of them about the same place."""
    commands: list[tuple[list[Row], dict[str, str]]] = []
    for each in table:
        for others, places in commands:
            is_alike = (others[0].kind, others[0].base) == (each.kind, each.base)
            is_apart = all(places.get(place, owner) == owner for place, owner in each.places.items())
            if is_alike and is_apart and not any(text.startswith("resume=") for text in each.overrides):
                others.append(each)
                places |= each.places
                break
        else:
            commands.append(([each], dict(each.places)))
    typed = (([*rows[0].base, *(text for each in rows for text in each.overrides)], rows) for rows, _ in commands)
    return [(list(dict.fromkeys(overrides)), rows) for overrides, rows in typed]
