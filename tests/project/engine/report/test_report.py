from __future__ import annotations

import json
import math
import random
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import pytest

from arclight.errors import InputError
from arclight.report.report import write_report

FILES = (
    *("results.json", "metrics.csv", "scores.json", "predictions.jsonl", "mistakes.json", "data.json"),
    *("environment.json", "overrides.txt", "config.yaml"),
)
PIXEL = "iVBORw0KGgo="
IMAGES = [{"index": index, "label": "cat", "predicted": ["cat", "dog"][index % 2], "confidence": 0.75} for index in range(8)]
MISTAKES = {"mistakes": [{**IMAGES[1], "image": PIXEL}]}
DATA = {
    "counts": {"train": {"cat": 30, "dog": 20}, "test": {"cat": 8, "dog": 0}},
    "samples": [{"label": "cat", "image": PIXEL}],
}
SPACED = {"p", "div", "h1", "h2", "h3", "tr", "th", "td", "span"}
VOID = {"img", "meta", "rect", "path", "line", "use", "br"}

RESULTS = {  # key -> value, what the page shows
    "status": ("finished", "finished in 1 h 04 min, 7 epochs, seed 123456"),
    "data": ("conll2003", "bert_tagger on conll2003 0.913 test F1"),
    "model": ("bert_tagger", "bert_tagger on conll2003"),
    "seed": (123456, "seed 123456"),
    "val/f1": (0.9471, "f1 0.947 0.913"),
    "test/f1": (0.9131, "f1 0.947 0.913"),
    "val/loss": (0.04321, "loss 0.0432 -"),
    "test/accuracy": (0.9822, "accuracy - 0.982"),
    "test/f1/PER": (0.9555, "f1/PER - 0.956"),
    "train/samples_per_s": (48211.37, "training speed 48,200 samples/s"),
    "train/tokens_per_s": (289033.1, "training speed 289,000 tokens/s"),
    "train/step_ms": (2.657, "step time 2.66 ms"),
    "train/data_wait_share": (0.0123, "time waiting for data 1.23 %"),
    "train/tflops": (41.25, "compute 41.2 TFLOP/s"),
    "train/mfu": (0.4171, "model FLOPs utilization 41.7 %"),
    "time/first_step_s": (7.91, "start until first step 7.91 s"),
    "time/fit_s": (182.4, "training with validation 3 min 02 s"),
    "time/total_s": (3861.0, "total 1 h 04 min"),
    "memory/peak_mb": (1834.2, "peak memory 1,830 MB"),
    "epochs": (7, "epochs 7"),
    "steps": (3910, "optimizer steps 3,910"),
    "parameters": (107726601, "parameters 107,726,601"),
    "nan": (float("nan"), "nan NaN"),
    "infinity": (float("inf"), "infinity infinite"),
    "-infinity": (float("-inf"), "-infinity -infinite"),
    "nothing": (None, "infinity infinite -infinity"),
    "yes": (True, "yes true"),
    "negative": (-1234567, "negative -1,234,567"),
    "huge": (10**250, f"huge {10**250:,}"),
    "tiny": (0.000012345, "tiny 1.23e-05"),
    "nested": ([1, {"a": 2}], 'nested [1, {"a": 2}]'),
    "long": ("x" * 400, "long " + "x" * 300 + "…"),
}
METRICS = """epoch,step,train/loss,val/loss,val/f1,val/f1/PER,lr
0,0,2.0,,,,0.001
0,10,nan,,,,0.002
0,20,1.0,,,,0.001
0,20,,1.5,0.5,0.25,
1,30,inf,,,,
"""
CLASSES = ["cat", "dog"]
SCORES = {
    "tables": [
        {
            "title": "Test split, per class",
            "rows": [{"name": name, "precision": 0.75, "recall": 0.625, "f1": 0.6818, "support": 1234} for name in CLASSES],
            "averages": [{"name": "macro avg", "precision": 0.5101, "recall": 0.5202, "f1": 0.5303, "support": 2468}],
        }
    ],
    "confusion": {"title": "Test split, counts", "labels": CLASSES, "counts": [[30, 10], [5, 1555]]},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder."""
    folder = tmp_path / "conll2003-bert_tagger" / "2026-01-31_12-00-00"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({key: value for key, (value, _) in RESULTS.items()}))
    (folder / "metrics.csv").write_text("epoch,step,lr\n0,1,0.1\n")
    (folder / "scores.json").write_text(json.dumps(SCORES))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(image) + "\n" for image in IMAGES))
    (folder / "mistakes.json").write_text(json.dumps(MISTAKES))
    (folder / "data.json").write_text(json.dumps(DATA))
    (folder / "environment.json").write_text(
        json.dumps(
            {
                "versions": {"torch": "2.13.0"},
                "git": {"commit": "21bbb85", "diff": "--- a\n+++ b\n+x"},
                "hardware": {"gpus": [{"name": "NVIDIA H200"}]},
            }
        )
    )
    (folder / "overrides.txt").write_text("experiment=conll2003_bert\nname=it's <b>new</b>\n")
    (folder / "config.yaml").write_text("seed: 123456\ndata:\n  batch_size: 32\n")
    return folder


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects tags with their attributes, visible text, and whether every tag is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.texts.append(" " * (tag in SPACED))
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def problems(source: str) -> list[str]:
    return re.findall(r'<p class="problem">(.*?)</p>', source, re.DOTALL)


def test_it_lies_in_the_run_folder_and_nothing_else_is_left_there(run: Path) -> None:
    assert write_report(run) == run / "report.html"
    assert {path.name for path in run.iterdir()} == {*FILES, "report.html"}


def test_a_page_that_cannot_be_written_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page(run)
    (run / "results.json").unlink()

    def full(path: Path, data: bytes) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert {path.name for path in run.iterdir()} == {*FILES, "report.html"} - {"results.json"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere' is not a directory; pass one such as outputs/"):
        write_report(tmp_path / "nowhere")


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    (run / "metrics.csv").write_text(METRICS)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_global_state_of_matplotlib_stays(run: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_report(run)
    assert dict(matplotlib.rcParams) == before


def test_every_value_of_the_results_is_there_with_its_unit(run: Path) -> None:
    text = Reader(page(run)).text
    assert [key for key, (_, shown) in RESULTS.items() if shown not in text] == []
    assert problems(page(run)) == []


@pytest.mark.parametrize(
    ("scores", "headline"),
    [
        ({"test/f1": 0.5, "test/accuracy": 0.75, "val/f1": 0.25}, "0.500 test F1"),
        ({"test/accuracy": 0.75, "val/accuracy": 0.25}, "0.750 test accuracy"),
        ({"val/accuracy": 0.25}, "0.250 validation accuracy, not tested"),
        ({"test/accuracy": float("nan")}, "NaN test accuracy"),
        ({"status": "failed"}, "no score failed"),
    ],
)
def test_headline(run: Path, scores: dict[str, Any], headline: str) -> None:
    (run / "results.json").write_text(json.dumps(scores))
    assert headline in Reader(page(run)).text


def test_it_is_one_file_that_asks_for_nothing(run: Path) -> None:
    (run / "metrics.csv").write_text(METRICS)
    source = page(run)
    reader = Reader(source)
    assert reader.open == []
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "image", "base", "form"}
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    assert "url(" not in re.sub(r"url\(#", "", source)
    assert [attributes["src"] for tag, attributes in reader.tags if tag == "img"] == [f"data:image/png;base64,{PIXEL}"] * 2
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or (name == "src" and tag != "img")]
        assert all((value or "").startswith("#") for name, value in attributes.items() if name.endswith("href"))
    identities = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert "content=\"default-src 'none'" in source


def test_light_dark_narrow_and_paper(run: Path) -> None:
    source = page(run)
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport" content="width=device-width' in source
    assert "@media print" in source
    assert re.search(r"\.scroll \{ overflow-x: auto;[^}]*local,[^}]*scroll \}", source), (
        "shadows show what lies beyond the edge"
    )
    parents = [
        re.findall(r'<div class="scroll" tabindex="0">\s*$', source[: match.start()]) for match in re.finditer("<table", source)
    ]
    assert len(parents) > 5
    assert all(parents)


ODD = [
    "<script>alert(1)</script>",
    "a & b",
    "日本語の名前がとても長い",
    "العربية",
    "$x^2$ \\frac",
    "\"quoted' onload=x",
    "</svg><b>",
]


@pytest.mark.parametrize("num_classes", [7, 21, 63])
def test_names_with_markup_and_of_any_script(run: Path, num_classes: int) -> None:
    labels = [f"{name}{index}" for index in range(num_classes // 7) for name in ODD]
    scores = json.loads(json.dumps(SCORES))
    scores["tables"][0]["title"] = ODD[0]
    scores["tables"][0]["rows"] = [{"name": label, "support": 3} for label in labels]
    scores["confusion"] = {
        "title": ODD[6],
        "labels": labels,
        "counts": [[1 + (x > y) for x in range(num_classes)] for y in range(num_classes)],
    }
    (run / "scores.json").write_text(json.dumps(scores))
    (run / "results.json").write_text(
        json.dumps({"data": ODD[0], "model": ODD[5], "status": ODD[6], "test/f1/" + ODD[0]: 0.5, ODD[0]: 1})
    )
    (run / "metrics.csv").write_text("epoch,step,val/<script>x,val/$y^2$,val/日本\n0,1,0.5,0.25,0.75\n", encoding="utf-8")
    (run / "environment.json").write_text(json.dumps({ODD[0]: {ODD[0]: ODD[0]}}))
    (run / "overrides.txt").write_text(f"name={ODD[0]}\n")
    (run / "config.yaml").write_text(f"name: {ODD[0]}\n日本: 語\n", encoding="utf-8")
    source = page(run)
    reader = Reader(source)
    assert problems(source) == []
    assert reader.open == []
    assert not {"script", "b"} & {tag for tag, _ in reader.tags}
    for label in [*labels, "val/$y^2$", "val/日本", "日本: 語"]:
        assert label in "".join(reader.texts)


def test_long_names_are_cut_and_stand_whole_in_a_title(run: Path) -> None:
    scores = {"confusion": {"labels": ["dalmatian, coach dog", "kuvasz"], "counts": [[3, 1], [0, 4]]}}
    (run / "scores.json").write_text(json.dumps(scores))
    source = page(run)
    assert re.search(r"<title>dalmatian, coach dog</title>\s*<text[^>]*>dalmatian, c…</text>", source)
    assert re.search(r"<title>kuvasz</title>\s*<text[^>]*>kuvasz</text>", source)
    assert "<title>dalmatian, coach dog → kuvasz: 1 of 4 (25.0 %)</title>" in source


def test_confusion_matrix_shows_counts_and_the_most_frequent_errors(run: Path) -> None:
    source = page(run)
    assert re.findall(r'<rect class="([\w-]+)"[^>]*fill-opacity="([\d.]+)"/>\s*<text[^>]*>([\d,]+)</text>', source) == [
        ("right", str(round(math.sqrt(30 / 40), 3)), "30"),
        ("wrong", "0.5", "10"),
        ("wrong", str(round(math.sqrt(5 / 1560), 3)), "5"),
        ("right", str(round(math.sqrt(1555 / 1560), 3)), "1,555"),
    ]
    assert "true predicted count of true class cat dog 10 25.0 % dog cat 5 0.321 %" in Reader(source).text


def test_many_classes_are_colours_without_numbers(run: Path) -> None:
    num_classes = 13
    counts = [[8 if x == y else 1 if x == (y + 1) % num_classes else 0 for x in range(num_classes)] for y in range(num_classes)]
    labels = [f"class {index}" for index in range(num_classes)]
    (run / "scores.json").write_text(json.dumps({"confusion": {"labels": labels, "counts": counts}}))
    source = page(run)
    tints = re.findall(r'<path class="([\w-]+)" fill-opacity="([\d.]+)" d="([^"]*)"/>', source)
    assert [(kind, opacity, cells.count("M")) for kind, opacity, cells in tints] == [("wrong", "0.4", 13), ("right", "1.0", 13)]
    assert "M0 0h1v1h-1z" in tints[1][2]
    assert "M1 0h1v1h-1z" in tints[0][2]
    assert not re.search(r"<rect class", source)


def test_class_tables(run: Path) -> None:
    text = Reader(page(run)).text
    for shown in (
        "Test split, per class",
        "0.750",
        "0.625",
        "0.682",
        "1,234",
        "macro avg",
        "0.510",
        "0.520",
        "0.530",
        "2,468",
    ):
        assert shown in text


def figures(source: str) -> dict[str, str]:
    return dict(re.findall(r'<figure class="curve[^"]*"><h3>([^<]*)</h3>(.*?)</figure>', source, re.DOTALL))


def test_curves_and_what_in_them_is_not_finite(run: Path) -> None:
    (run / "metrics.csv").write_text(METRICS)
    drawn = figures(page(run))
    assert list(drawn) == ["Loss", "Validation scores", "Learning rate"]
    legend = {title: re.findall(r"</svg>([^<]*)</span>", figure) for title, figure in drawn.items()}
    assert legend == {"Loss": ["train/loss", "val/loss"], "Validation scores": ["val/f1"], "Learning rate": ["lr"]}
    assert "train/loss: 2 of 4 values are NaN or infinite, the first at step 10." in drawn["Loss"]
    assert "val/loss:" not in drawn["Loss"]
    assert "currentColor" in drawn["Loss"]
    assert "#000000" not in drawn["Loss"]


@pytest.mark.parametrize(("loss", "odd"), [("nan", 3), ("-inf", 3), ("1e300", 3), ("1e29", 0), ("0", 0), ("-1", 0)])
def test_losses_that_are_hard_to_draw(run: Path, loss: str, odd: int) -> None:
    (run / "metrics.csv").write_text(f"epoch,step,train/loss\n0,1,{loss}\n0,2,{loss}\n0,3,{loss}\n0,4,3\n")
    source = page(run)
    assert problems(source) == []
    assert re.findall(r"train/loss: (\d) of 4 values", source) == ([str(odd)] if odd else [])


def test_losses_far_apart_get_a_logarithmic_axis(run: Path) -> None:
    (run / "metrics.csv").write_text("epoch,step,train/loss\n0,1,10\n0,2,1\n0,3,0.1\n")
    heights = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)" style="fill: #1c7fc4', figures(page(run))["Loss"])]
    assert len(heights) == 3
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], rel=1e-3)


def test_long_runs_are_averaged_and_it_says_so(run: Path) -> None:
    rows = "".join(f"0,{step},{1 + step % 2},\n" for step in range(5000))
    (run / "metrics.csv").write_text(f"epoch,step,train/loss,val/loss\n{rows}")
    source = page(run)
    assert "Lines of more than 400 points show means of neighbouring points." in source
    assert len(source) < 60_000


def test_more_scores_than_colours(run: Path) -> None:
    names = [f"val/score{index}" for index in range(12)]
    (run / "metrics.csv").write_text(f"epoch,step,{','.join(names)}\n0,1,{','.join('123456789012')}\n")
    assert "Logged but not drawn: val/score10, val/score11." in figures(page(run))["Validation scores"]


def test_a_step_that_was_logged_once_more_after_a_resume(run: Path) -> None:
    (run / "metrics.csv").write_text("epoch,step,train/loss\n0,1,1\n0,2,nan\n0,3,nan\n0,2,2\n0,3,3\n")
    assert "NaN" not in figures(page(run))["Loss"]


def test_a_line_that_was_cut_off(run: Path) -> None:
    (run / "metrics.csv").write_text("epoch,step,train/loss,lr\n0,1,1,0.1\n0,2,2e")
    source = page(run)
    assert problems(source) == []
    assert list(figures(source)) == ["Loss", "Learning rate"]


def test_the_command_makes_the_same_run(run: Path) -> None:
    command = "".join(Reader(re.findall(r'<pre class="command">.*?</pre>', page(run))[0]).texts)
    assert shlex.split(command) == ["python", "train.py", "experiment=conll2003_bert", "name=it's <b>new</b>"]


def test_environment_and_config(run: Path) -> None:
    source = page(run)
    text = Reader(source).text
    for shown in ("torch", "2.13.0", "21bbb85", "3 lines, in environment.json", "GPUs 0 name", "NVIDIA H200", "batch_size: 32"):
        assert shown in text
    assert "+++ b" not in source


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_costs_its_part_only(run: Path, name: str) -> None:
    (run / name).unlink()
    found = problems(page(run))
    assert len(found) == 1
    assert found[0].startswith(f"There is no {name} in this directory.")


def test_a_run_that_was_killed_before_it_wrote_anything(tmp_path: Path) -> None:
    source = page(tmp_path)
    assert len(problems(source)) == len(FILES)
    assert "The run is still running, or it was stopped." in problems(source)[0]
    assert Reader(source).open == []


BROKEN = {  # content, what the page says of it
    "results.json": [
        (b'{"status": "fin', "Unterminated string"),
        (b"[1, 2]", "dict expected, list found."),
        (b"\xff\xfe", "&#39;utf-8&#39; codec"),
        (b"[" * 100_000, ""),
    ],
    "metrics.csv": [
        (b"", "it has no column &#39;step&#39;."),
        (b"epoch,st", "it has no column &#39;step&#39;."),
        (b"epoch,step\n0,1\n", "no metric was logged"),
        (b"epoch,step,lr\n" + b"1" * 200_000, "field larger than field limit"),
    ],
    "scores.json": [
        (b'{"tables": 3}', "list expected, int found."),
        (b'{"tables": [{"rows": [1]}]}', "dict expected, int found."),
        (b'{"confusion": {"labels": ["a"], "counts": [[1, 2]]}}', "one row and one column of whole numbers"),
        (b'{"confusion": {"labels": ["a"], "counts": [[0.5]]}}', "one row and one column of whole numbers"),
        (b'{"confusion": {"labels": ["a"], "counts": [[-1]]}}', "one row and one column of whole numbers"),
    ],
    "predictions.jsonl": [
        (b'{"index": 0, "lab', "line:1: damaged, Unterminated string"),
        (b"", "it holds no predictions."),
        (
            b'{"index": 0, "label": "cat", "predicted": "dog", "confidence": 7}',
            "confidence: Input should be less than or equal to 1",
        ),
    ],
    "mistakes.json": [
        (b'{"mistakes": 3}', "&#39;mistakes&#39; must be a list of objects."),
        (
            b'{"mistakes": [{"index": 0, "label": "a", "predicted": "b", "confidence": 1, "image": "\'onload"}]}',
            "image must be a PNG",
        ),
        (b'{"mistakes": [{"index": 0, "words": ["a"], "labels": [], "predicted": [], "confidence": []}]}', "row 0: 1 words"),
    ],
    "data.json": [
        (b"[]", "dict expected, list found."),
        (b'{"counts": {"train": {"cat": -1}}}', "counts must map names to whole numbers."),
        (b'{"samples": [{"words": ["a"], "labels": []}]}', "row 0: 1 words and 0 labels."),
    ],
    "environment.json": [
        (b"null", "dict expected, NoneType found."),
    ],
    "overrides.txt": [
        (b"\xff", ""),
    ],
    "config.yaml": [
        (b"a: [1", "expected "),
        (b"a: \x00", "it is no plain YAML"),
        (b"- a\n", "dict expected, list found."),
        (b"when: 2026-13-45\n", "month must be in 1..12"),
    ],
}


@pytest.mark.parametrize("turn", range(max(map(len, BROKEN.values()))))
def test_broken_files_cost_their_parts(run: Path, turn: int) -> None:
    cases = {name: contents[turn % len(contents)] for name, contents in BROKEN.items()}
    for name, (content, _) in cases.items():
        (run / name).write_bytes(content)
    source = page(run)
    assert Reader(source).open == []
    assert len(problems(source)) == len(FILES)
    for name, (_, problem) in cases.items():
        assert any(line.startswith(f"{name} is damaged: ") and problem in line for line in problems(source)), problem


def test_a_folder_where_a_file_should_be(run: Path) -> None:
    (run / "results.json").unlink()
    (run / "results.json").mkdir()
    assert problems(page(run))[0].startswith("results.json cannot be read: Is a directory.")
    assert str(run.parent.parent) not in page(run)


def every_change(value: Any) -> Iterator[Any]:
    """The nested value with one leaf or branch at a time replaced by something of another type, or left out."""
    odd = [None, "text", -1, 1e999, [], {}, [[]], True]
    yield from odd
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: change} for change in every_change(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:1]):
            yield from ([*value[:index], change, *value[index + 1 :]] for change in every_change(inner))


@pytest.mark.parametrize("name", ["results.json", "scores.json", "mistakes.json", "data.json", "environment.json"])
def test_no_content_is_an_exception(run: Path, name: str) -> None:
    (run / "metrics.csv").unlink()  # its figures would take most of the time
    changes = list(every_change(json.loads((run / name).read_text())))
    for change in random.Random(0).sample(changes, k=min(len(changes), 15)):
        (run / name).write_text(json.dumps(change))
        source = page(run)
        assert Reader(source).open == []
        assert len(problems(source)) <= 3


def test_half_a_letter_does_not_stop_the_page(run: Path) -> None:
    (run / "results.json").write_text('{"model": "\\ud800"}')
    assert "?</bdi> on" in page(run)


SECRETS = {
    "api_key": "Ab1",
    "wandb_api_key": "Ab2",
    "apiKey": "Ab3",
    "hf_token": "Ab4",
    "TOKEN": "Ab5",
    "password": 9876543,
    "aws_secret_access_key": "Ab6",
    "credentials": {"user": "Ab7"},
    "nested": [{"private-key": "Ab8"}],
    "address": "https://me:Ab9@example.org/x",
    "harmless": "ghp_Ab0aaaaaaaaaaaaaaaaaaaa",
    "call": "train.py logger.api_key=Ab1 lr=1",
}
KEPT = {"max_tokens": 4096, "tokenizer": "WordPiece", "token_dropout": "Kept1", "author": "Kept2", "pad_token": "Kept3"}


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "results.json"])
def test_secrets_are_left_out(run: Path, name: str) -> None:
    (run / name).write_text(json.dumps({"logger": {**SECRETS, **KEPT}, **SECRETS, **KEPT}))  # JSON is YAML too
    source = page(run)
    assert problems(source) == []
    assert re.findall(r"Ab\d", source) == []
    assert "9876543" not in source
    for kept in ("max_tokens", "tokenizer", "WordPiece", "token_dropout", "Kept1", "Kept2", "pad_token", "lr=1"):
        assert kept in source or kept.replace("_", " ") in source


def test_secrets_are_left_out_of_the_command(run: Path) -> None:
    overrides = [
        "+logger.api_key=Ab1",
        "logger={project: x, password: Ab2}",
        "hub.token=Ab3",
        "data.root=https://me:Ab4@example.org",
    ]
    kept = ["data.max_tokens=4096", "module=token_tagger", "data.num_tokens=1e6"]
    (run / "overrides.txt").write_text("\n".join([*overrides, *kept]))
    source = page(run)
    assert re.findall(r"Ab\d", source) == []
    assert f"python train.py {' '.join(kept)}</pre>" in source
    assert "Overrides left out because they look like secrets: 4." in Reader(source).text


def test_a_broken_config_is_not_quoted(run: Path) -> None:
    (run / "config.yaml").write_text('api_key: "Ab1\nother: [')
    assert "Ab1" not in page(run)


def write_sentences(run: Path, words: list[str]) -> None:
    tags = {"labels": ["B-PER", "I-PER", "O", "B-LOC"], "predicted": ["B-PER", "I-PER", "O", "O"]}
    sentence = {"index": 4, **tags, "confidence": [0.9, 0.9, 0.9, 0.875]}
    (run / "predictions.jsonl").write_text(json.dumps(sentence) + "\n")
    (run / "mistakes.json").write_text(json.dumps({"mistakes": [{**sentence, "words": words}]}), encoding="utf-8")
    sample = {"words": words, "labels": tags["labels"]}
    dataset_summary = {"counts": {"train": {"PER": 1}}, "lengths": {"train": {"4": 1}}, "samples": [sample]}
    (run / "data.json").write_text(json.dumps(dataset_summary), encoding="utf-8")


def test_entities_are_marked_in_sentences(run: Path) -> None:
    write_sentences(run, ["Anna", "<b>", "日本", "Bonn"])
    source = page(run)
    assert problems(source) == []
    assert re.findall(r'<mark class="([\w-]+)"><bdi>(.*?)</bdi> <small>(.*?)</small>', source) == [
        ("correct", "Anna &lt;b&gt;", "PER"),
        ("wrong-mark", "Bonn", "LOC, missed"),
        ("correct", "Anna &lt;b&gt;", "PER"),
        ("correct", "Anna &lt;b&gt;", "PER"),
        ("correct", "Bonn", "LOC"),
    ]
    assert "0.875" in source
    assert "Sample lengths" in source


def test_pictures_of_mistakes_and_of_the_data(run: Path) -> None:
    text = Reader(page(run)).text
    assert "true cat predicted dog confidence 0.750" in text
    assert "cat 30 8" in text
    assert "all 50 8" in text


def test_the_score_of_a_class_stands_in_its_table_only(run: Path) -> None:
    (run / "results.json").write_text(json.dumps({"test/f1/cat": 0.5, "test/f1/other": 0.25}))
    text = Reader(page(run)).text
    assert "f1/other - 0.250" in text
    assert "f1/cat" not in text


def test_names_in_any_script_are_whole_escaped_and_set_apart(run: Path) -> None:
    names = [
        "猫と犬の写真とても長い名前です",
        "قطة صغيرة",
        "🐈‍⬛",
        "<script>alert(1)</script>",
        "a-long-name-without-an-end" * 5,
    ]
    errors = [{**IMAGES[1], "image": PIXEL, "label": name, "predicted": names[0]} for name in names]
    (run / "mistakes.json").write_text(json.dumps({"mistakes": errors}))
    (run / "data.json").write_text(json.dumps({"counts": {"train": dict.fromkeys(names, 3)}, "samples": []}))
    source = page(run)
    read = Reader(source)
    titles = [attributes.get("title") or "" for tag, attributes in read.tags if tag == "figure"]
    for name in names:
        assert any(title.endswith(f"true {name}, predicted {names[0]}") for title in titles), (
            "what a caption cuts is whole here"
        )
        assert f"{name} 3" in read.text
    assert "<script" not in source
    assert source.count("<bdi>") > len(names), "a name that runs from right to left turns nothing else around"


def test_intervals_stand_beside_the_scores_that_the_predictions_explain(run: Path) -> None:
    (run / "results.json").write_text(json.dumps({"test/accuracy": 0.5, "test/f1/cat": 0.1}))
    text = Reader(page(run)).text
    assert "accuracy - 0.500 0.125 to 0.875" in text
    assert not re.search(r"f1/cat - 0.100 [\d.]+ to", text)
    assert "Test accuracy 0.500 (95 % interval 0.125 to 0.875)." in text


def test_calibration_in_words(run: Path) -> None:
    assert "Mean confidence 0.750, accuracy 0.500 over 8 samples: the model is overconfident" in Reader(page(run)).text


def test_what_differs_from_the_defaults(run: Path) -> None:
    (run / "results.json").write_text('{"data": "cifar10", "model": "cnn"}')
    (run / "config.yaml").write_text("seed: 7\ndata:\n  batch_size: 12345\n  colour: <b>\n")
    text = Reader(page(run)).text
    assert re.search(r"data.batch_size \d+ 12,?345", text)
    assert "data.colour - <b>" in text
    assert "seed 0 7" in text


def test_all_numbers_of_time_have_one_unit(run: Path) -> None:
    (run / "results.json").write_text('{"time/data_setup_s": 2.0, "time/total_s": 8.0, "train/data_wait_share": 0.25}')
    text = Reader(page(run)).text
    assert "data setup 2.00 s total 8.00 s" in text
    assert "waiting for data 25.0 % other 75.0 %" in text


def test_where_a_step_goes_and_what_to_change(run: Path) -> None:
    shares = {"data_wait": 0.05, "forward_backward": 0.8, "optimizer": 0.1, "logging": 0.05}
    results = {f"train/{part}_share": share for part, share in shares.items()}
    (run / "results.json").write_text(json.dumps({**results, "advice": "raise <b>workers</b>"}))
    source = page(run)
    text = Reader(source).text
    assert "forward and backward 80.0 % optimizer 10.0 % callbacks and loggers 5.00 % waiting for data 5.00 %" in text
    assert "Raise <b>workers</b>." in text
    assert "other 0" not in text
    assert [float(share) for share in re.findall(r'class="part-\d" style="flex: ([\d.]+)"', source)] == [0.8, 0.1, 0.05, 0.05]
    assert "train/optimizer_share" not in text, "it stands once, by its name"


@pytest.mark.parametrize("share", ["null", "true", "NaN", "1.5", '"x"'])
def test_a_share_that_is_none_is_left_out(run: Path, share: str) -> None:
    (run / "results.json").write_text(f'{{"train/optimizer_share": {share}}}')
    assert "Time of a training step" not in page(run)
