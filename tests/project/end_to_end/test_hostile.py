"""Files of a stranger: checkpoints, encoders, run folders and names are refused or shown, and nothing in them is run."""

from __future__ import annotations

import ast
import copy
import csv
import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import arclight
from arclight.__main__ import main
from arclight.checkpoint.contents import restore
from arclight.checkpoint.sharded import load_sharded, write_contents
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.config.compose import read_settings
from arclight.config.locations import CONF
from arclight.errors import InputError
from arclight.report.report import write_report
from arclight.runs.comparison import compare_runs
from arclight.runs.run_directory import read_config
from project.models.bert_tagger import BertTagger
from tests.arclight.runs.test_comparison import rights, write_run
from tests.drills.alterations import alter, image_checkpoint, saved, text_checkpoint
from tests.project.engine.checkpoint.test_contents import TINY_IMAGES
from tests.project.models.test_bert_tagger import text


class Payload:
    """Leaves a file where it was run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good one, best.ckpt in a run folder."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("good"))
    try:
        folder = arclight.run([*TINY_IMAGES, "trainer.max_epochs=1", "logger=csv", "precision=fp32"]).folder.resolve()
    finally:
        os.chdir(before)
    return folder / "checkpoints" / "best.ckpt"


# pickles


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "folder"])
def test_a_pickle_in_a_checkpoint_is_not_run(form: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "was run", tmp_path / "bad.ckpt"
    content = {"arclight": {"version": 2}, "state_dict": {}, "bad": Payload(marker)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "folder":
        path.mkdir()
        torch.save({"files": [], "contents": content}, path / "contents.pt")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        restore(path)
    if form != "bare pickle":  # which torch warns of
        with pytest.raises((InputError, pickle.UnpicklingError)):  # the trainer's own way to it
            CheckpointFiles().load_checkpoint(path, weights_only=False)
    assert not marker.exists()


def test_a_pickle_in_an_encoder_s_folder_is_not_run(bert_folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was run"
    (tmp_path / "config.json").write_text((bert_folder / "config.json").read_text())
    torch.save({"bad": Payload(marker)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no encoder can be loaded"):
        BertTagger(text(), checkpoint=str(tmp_path))
    assert not marker.exists()


def is_call(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def test_no_source_runs_what_it_reads() -> None:
    sources = [*(CONF.parent / "src").rglob("*.py"), CONF.parent / "train.py"]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            said = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", None), *(alias.name for alias in node.names)}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, said
            assert not is_call(node, "eval", "exec", "compile", "__import__", "os.system", "os.popen"), said
            assert not is_call(node, "yaml.unsafe_load", "yaml.full_load"), said
            if isinstance(node, ast.Call):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("shell", "False") == "False", said
                assert given.get("trust_remote_code", "False") == "False", said
                assert given.get("allow_pickle", "False") == "False", said
                if ast.unparse(node.func) == "torch.load" or (ast.unparse(node.func).endswith(".fit") and "ckpt_path" in given):
                    assert given.get("weights_only") == "True", said
                if ast.unparse(node.func) in ("np.load", "numpy.load"):
                    assert given.get("allow_pickle") == "False", said
                if ast.unparse(node.func).endswith("Markup"):  # of text as it is: Markup("...").format(...) escapes
                    assert isinstance(node.args[0], ast.Constant | ast.Name), said
                if ast.unparse(node.func) == "yaml.load":
                    assert given.get("Loader") == "PlainLoader", said


def test_templates_escape_everything() -> None:
    templates = [*(CONF.parent / "src").rglob("*.j2")]
    assert len(templates) > 3
    for path in templates:
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|Markup", path.read_text()), path.name


# checkpoints that are whole, but made up


def change(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for name in parents:
        content = content[name]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (
            "arclight/settings/model",
            {"_target_": "os.system", "command": "touch bad"},
            "model: _target_ 'os.system' is outside",
        ),
        ("arclight/settings/model/_target_", "arclight.data.download.shutil.rmtree", "is outside the packages"),
        ("arclight/settings/model/_target_", "torch.hub.load", "is outside the packages"),
        ("arclight/settings/module/inner", {"a": [{"_target_": "builtins.eval"}]}, "takes no 'inner'"),
        ("arclight/settings/optimizer/betas", [{"_target_": "os.getcwd"}, 0.9], "optimizer.betas.*is outside the packages"),
        ("arclight/blueprint", {"_target_": "os.abort"}, "model: _target_ 'os.abort' is outside"),
        ("arclight/settings/model/hidden", "${oc.create:{_target_:os.abort}}", "model.hidden"),
        ("arclight/settings/model", 5, "is an incomplete or corrupt checkpoint"),
        ("arclight/settings", [1], "is an incomplete or corrupt checkpoint"),
        ("arclight/settings/model", None, "is an incomplete or corrupt checkpoint"),
        ("arclight/data_info", {"kind": "os"}, r"is an incomplete or corrupt checkpoint: data_info\.kind"),
        ("arclight/data_info", None, "data_info missing"),
        ("arclight/data_info/classes", None, "is an incomplete or corrupt checkpoint"),
        ("arclight/options", "x", "is an incomplete or corrupt checkpoint"),
        ("arclight/version", None, "checkpoint"),
        ("arclight/version", [1], "has checkpoint version"),
        ("state_dict", None, "is an incomplete or corrupt checkpoint"),
        ("state_dict", {"net.x": torch.zeros(1).expand(10**12)}, "holds weights of a different net"),
    ],
)
def test_a_made_up_checkpoint_is_told(place: str, value: Any, told: str, checkpoint: Path, tmp_path: Path) -> None:
    content = copy.deepcopy(torch.load(checkpoint, weights_only=True))
    change(content, place, value)
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=told) as caught:
        restore(tmp_path / "bad.ckpt")
    assert "bad.ckpt" in str(caught.value)
    assert not Path("bad").exists()


@pytest.fixture(scope="module")
def examples() -> dict[str, dict[str, Any]]:
    return {"images": image_checkpoint(), "text": text_checkpoint()}


@pytest.mark.parametrize("example", ["images", "text"])
def test_altered_checkpoints_are_read_or_refused_with_one_message(
    example: str, examples: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """A small sample of what `python tests/drills/fuzz.py --only altered` does."""
    path = tmp_path / "altered.ckpt"
    outcomes: list[str] = []
    for number in range(30):
        content, note = alter(examples[example], random.Random(f"{example} {number}"))
        path.write_bytes(saved(content))
        outcomes.append("")
        try:
            restore(path)
        except InputError as error:
            outcomes[-1] = str(error)
        assert not outcomes[-1] or "altered.ckpt" in outcomes[-1], note
    assert 0 < outcomes.count("") < len(outcomes)


def test_a_constructor_that_fails_is_one_message(examples: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    content = copy.deepcopy(examples["images"])
    content["arclight"]["data_info"] |= {"height": 1 << 40, "width": 1 << 40, "channels": 1, "mean": [0.5], "std": [0.5]}
    content["arclight"]["settings"]["model"]["hidden"] = 1 << 40
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=r"bad\.ckpt: .*") as caught:
        restore(tmp_path / "bad.ckpt")
    assert "\n" not in str(caught.value)


def test_evaluate_builds_nothing_but_data_and_model_and_prints_no_escape_sequence(
    examples: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = copy.deepcopy(examples["images"])
    payload = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": ["was run"]}}
    settings = content["arclight"]["settings"]
    settings["hydra"] = {
        "callbacks": {"a": payload},
        "launcher": payload,
        "sweeper": payload,
        "job_logging": {"()": "os.abort"},
    }
    settings["logging"] = {"version": 1, "handlers": {"a": {"()": "os.abort"}}}
    settings |= {"callbacks": {"a": payload}, "logger": {"a": payload}, "checkpoint": payload, "\x1b[2J": payload}
    settings["trainer"] |= {"strategy": payload, "plugins": [payload], "profiler": payload, "default_root_dir": "/nowhere"}
    settings["hardware"] |= {"threads": 100_000, "workers": payload}
    torch.save(content, "bad.ckpt")
    main(["evaluate", "bad.ckpt"])
    assert "test/accuracy" in capsys.readouterr().out
    content["arclight"]["data_info"]["classes"] = [
        f"\x1b[2J\ud800{name}" for name in content["arclight"]["data_info"]["classes"]
    ]
    torch.save(content, "bad.ckpt")
    with pytest.raises(SystemExit):
        main(["evaluate", "bad.ckpt"])  # other classes than those of the data: the message names them
    message = capsys.readouterr().err
    assert "\ufffd[2J\ufffdcircle" in message
    assert "\x1b" not in message
    assert sorted(os.listdir()) == ["bad.ckpt", "outputs"]
    assert os.listdir("outputs") == ["evaluations"]


def header(length: int, text: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text


LYING = json.dumps({"/w": {"dtype": "F32", "shape": [1 << 40, 2], "data_offsets": [0, 8]}}).encode()
BEYOND = json.dumps({"/w": {"dtype": "F32", "shape": [1, 2], "data_offsets": [1 << 50, (1 << 50) + 8]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        header(1 << 62),
        header(99_999_999, b"{"),
        header(len(LYING), LYING) + bytes(8),
        header(len(BEYOND), BEYOND) + bytes(8),
        header(1 << 20, b"[" * (1 << 20)),
        header(2, b"[]"),
        b"",
    ],
    ids=["length", "longer than the file", "shape", "offsets", "nested", "no object", "empty"],
)
def test_weights_whose_header_lies_are_told(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "bad.ckpt"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(content)
    write_contents(folder, {"w": torch.empty(1, 2, device="meta")}, {"a.safetensors": hashlib.sha256(content).hexdigest()})
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_sharded(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", 5])
def test_parts_that_lie_elsewhere_are_refused(name: Any, tmp_path: Path) -> None:
    folder = tmp_path / "bad.ckpt"
    folder.mkdir()
    save_file({"/w": torch.zeros(1)}, tmp_path / "a.safetensors")
    torch.save({"version": 2, "files": {name: ""}, "contents": {"w": torch.empty(1, device="meta")}}, folder / "contents.pt")
    with pytest.raises(InputError, match="is not the name of a file in it"):
        load_sharded(folder)


@pytest.mark.parametrize(
    "like", [torch.empty((), device="meta"), torch.empty(1, 3, device="meta"), torch.empty(2, device="meta")]
)
def test_shapes_that_do_not_go_together_are_told(like: torch.Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "bad.ckpt"
    folder.mkdir()
    save_file({"/w": torch.zeros(1, 2)}, folder / "a.safetensors")
    torch.save({"version": 2, "files": {"a.safetensors": ""}, "contents": {"w": like}}, folder / "contents.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_sharded(folder)


# run folders

BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
CONFIGS = {
    "python": "x: !!python/object/apply:os.system ['touch bad']",
    "bomb": BOMB,
    "nested": "x: " + "[" * 700,
    "list": "[1, 2]",
    "key": "{[1]: 2}",
    "date": "x: 2001-99-99",
    "digits": f"x: {'9' * 5000}",
    "bytes": "\0\1",
    "empty": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config_of_a_run_gives_a_page_without_it(name: str, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "outputs" / "a" / str(seed), lr=1, seed=seed, right=rights(0.5, seed)) for seed in range(3)]
    (runs[0] / "config.yaml").write_text(CONFIGS[name])
    with pytest.raises(ValueError, match=r"plain YAML|expected|alias|constructor|found|digits|month|special|Exceeds"):
        read_settings(CONFIGS[name])
    assert read_config(runs[0]) == {}
    assert "config.yaml is damaged" in write_report(runs[0]).read_text()
    found = compare_runs([str(run) for run in runs])
    assert [run.folder.name for group in found.groups for run in group.runs] == ["1", "2"]
    assert not Path("bad").exists()


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"a":' * 100_000, '{"test/accuracy": 1' + "0" * 400 + "}", '{"test/accuracy": Infinity}', "[1]", "\0"],
    ids=["lists", "objects", "digits", "infinite", "no object", "no text"],
)
def test_other_hostile_files_of_a_run_cost_their_own_part(content: str, tmp_path: Path) -> None:
    names = ("results.json", "environment.json", "predictions.jsonl", "metrics.csv")
    runs = [write_run(tmp_path / "outputs" / "a" / name, lr=name, seed=0, right=rights(0.5, 0)) for name in names]
    for run in runs:
        (run / run.name).write_text(content)
    assert write_report(runs[0]).is_file()
    for name in names:
        (runs[0] / name).write_text(content)
    assert write_report(runs[0]).is_file()
    good = [write_run(tmp_path / "outputs" / "b" / str(seed), lr=seed, seed=0, right=rights(0.5, seed)) for seed in (0, 1)]
    main(["compare", *map(str, [*good, *runs]), "--html", str(tmp_path / "page.html")])


def test_a_run_s_hydra_nodes_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payload = "{_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [was run]}}"
    nodes = f"hydra:\n  callbacks: {{a: {payload}}}\n  launcher: {payload}\n  sweeper: {payload}\nlogger: {{a: {payload}}}\n"
    runs = [write_run(tmp_path / "outputs" / "a" / str(seed), lr=1, seed=seed, right=rights(0.5, seed)) for seed in range(2)]
    for run in runs:
        (run / "config.yaml").write_text(nodes + f"seed: {run.name}\n")
    assert "pathlib.Path.touch" in write_report(runs[0]).read_text()
    main(["compare", *map(str, runs)])
    assert os.listdir() == ["outputs"]


def test_links_pipes_and_devices_in_a_run_are_neither_followed_nor_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "outputs" / "a" / "0", lr=1, seed=0, right=rights(0.5, 0))
    precious = tmp_path / "precious"
    precious.write_text("old")
    for name in ("report.html", f"report.html.{os.getpid()}.part", "report.html.part"):
        (run / name).symlink_to(precious)
    for name in ("predictions.jsonl", "metrics.csv"):
        (run / name).unlink()
    os.mkfifo(run / "predictions.jsonl")
    (run / "metrics.csv").symlink_to("/dev/zero")
    page = write_report(run)
    assert not page.is_symlink()
    assert page.read_text().count("cannot be read: Not a regular file.") >= 2
    assert precious.read_text() == "old"


@pytest.mark.parametrize("name", ["/dev/full", "pipe", "link"])
def test_a_page_replaces_regular_files_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("link").symlink_to("/dev/full")
    runs = [write_run(tmp_path / "outputs" / "a" / str(seed), lr=1, seed=seed, right=rights(0.5, seed)) for seed in range(2)]
    before = Path(name).lstat().st_ino
    with pytest.raises(SystemExit):
        main(["compare", *map(str, runs), "--html", name])
    assert Path(name).lstat().st_ino == before


def test_a_report_that_cannot_be_written_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "outputs" / "a" / "0", lr=1, seed=0, right=rights(0.5, 0))
    (run / "report.html").mkdir()
    with pytest.raises(SystemExit):
        main(["report", str(run)])
    assert "error: " in (message := capsys.readouterr().err)
    assert message.endswith("report.html cannot be written: Is a directory\n")


# names that are more than names

MARKUP = [
    '"><meta http-equiv="refresh" content="0;url=//example.org"><form action="//example.org"><input></form>',
    '<script>alert("x")</script>',
    "<img src=x onerror=alert(1)>",
    '"><b>',
    "=HYPERLINK(1)",
    "[red]x[/]",
    "{{ 7*7 }}",
]


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handlers: list[str] = []
        self.own_meta = page.partition("</head>")[0].count("<meta ")
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def assert_harmless(page: str) -> None:
    tags = Tags(page)
    assert not {"script", "iframe", "object", "form", "input", "base", "link"} & set(tags.found)
    assert tags.found.count("meta") == tags.own_meta
    assert tags.handlers == []
    assert "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert "{{ 7*7 }}" in page or "7*7" not in page


def test_markup_in_names_is_text_on_every_page(tmp_path: Path) -> None:
    tables = [
        {"title": name, "rows": [{"name": name, "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}]} for name in MARKUP
    ]
    runs = []
    for seed, name in enumerate(MARKUP):
        results: dict[str, Any] = {"monitor": f"val/{name}"}
        results |= {f"test/f1/{other}": 0.5 for other in MARKUP} | {f"test/{other}": 0.5 for other in MARKUP}
        run = write_run(tmp_path / "outputs" / "a" / str(seed), lr=name, seed=0, right=rights(0.5, seed), name=name, **results)
        with (run / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["epoch", "step", f"val/{name}", name], [0, 1, 0.5, 0.5], [1, 2, 0.6, 0.6]])
        (run / "data.json").write_text(
            json.dumps({"length_unit": name, "lengths": {name: {"3": 1}}, "counts": {name: {name: 1}}})
        )
        (run / "scores.json").write_text(
            json.dumps({"tables": tables, "confusion": {"title": name, "labels": MARKUP, "counts": [[1] * 7] * 7}})
        )
        (run / "mistakes.json").write_text(
            json.dumps(
                {
                    "mistakes": [
                        {"words": MARKUP, "labels": ["O"] * 7, "predicted": ["O"] * 7, "confidence": [0.5] * 7, "index": 0}
                    ]
                }
            )
        )
        (run / "environment.json").write_text(json.dumps({name: {name: name}}))
        (run / "overrides.txt").write_text(f"name={name}\n")
        if seed in (0, 1, 4):
            assert_harmless(write_report(run).read_text())
        runs.append(str(run))
    main(["compare", *runs, "--html", str(tmp_path / "page.html")])
    assert_harmless((tmp_path / "page.html").read_text())


@pytest.mark.parametrize("make", [lambda name: name, lambda name: f"  {name}"])
def test_no_cell_of_metrics_csv_begins_a_formula(make: Callable[[str], str], tmp_path: Path) -> None:
    from arclight.loggers.factory import csv as csv_tracker

    logger = csv_tracker(tmp_path)
    logger.log_metrics({f"test/f1/{make(name)}": 0.5 for name in MARKUP}, step=1)
    logger.save()
    rows = list(csv.reader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
