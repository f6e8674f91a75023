"""How long one answer of a trained model takes, and how many sentences per second: eager, exported, quantized.

    python -m benchmarks.latency RUN [data.root=DIRECTORY]

One image, or one sentence of 20 words (the one whose length is nearest) of the test split, as tensors: `eager` is the module in
PyTorch, `onnx` the exported file in onnxruntime, `int8` the quantized one (static for images, dynamic for text). All use as
many threads as there are cores. For a tagger also sentences per second from raw text in batches of 32, tokenizer included:
`transformers.pipeline` on the exported directory, and `onnx` and `int8` with the tokenizers library. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from arclight import hardware
from arclight.benchmark.command_line import count, new_file
from arclight.benchmark.measurement import Case, Figure, Result, interleave, make_result, ratio, to_table, write_result
from arclight.checkpoint.contents import restore
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.errors import InputError
from arclight.export.compression import METHODS, CompressionOptions
from arclight.export.latency import seconds_of, to_latency
from arclight.export.onnx_file import OnnxSession, quiet_exporter, write_onnx
from arclight.export.parity import batches_of, loaders_of
from arclight.export.program import Call, Program, Tensors, program_of
from arclight.runs.evaluation import load_data, parse_overrides
from arclight.text.info import TokenInfo
from benchmarks.tasks import unmeasured_peaks

NUM_WORDS, BATCH, NUM_SENTENCES = 20, 32, 320
NUM_CALLS, NUM_WARM = 100, 10  # in each round


def measure(run: str, overrides: dict[str, Any], num_rounds: int) -> Result:
    """Returns latency of batch 1 and, of a tagger, the rate of batches of 32; raises InputError for a run without data."""
    hardware_info = hardware.probe()
    torch.set_num_threads(hardware_info.num_cores)
    restored = restore(run)
    data: Any = load_data(restored, overrides, split=None)
    if data is None:
        raise InputError(f"{run}: its config names no data")
    data.setup("fit")
    data.setup("test")
    info, module = restored.data_info, restored.module.float()
    program = program_of(module, info)
    with tempfile.TemporaryDirectory(prefix="arclight-latency-") as name:
        folder = Path(name)
        write_onnx(program, folder / "onnx.onnx", {})
        method = "int8_dynamic" if isinstance(info, TokenInfo) else "int8_static"
        METHODS[method](restored, program, data, folder / "onnx.onnx", folder / "int8.onnx", CompressionOptions())
        sessions: dict[str, Call] = {kind: OnnxSession(folder / f"{kind}.onnx") for kind in ("onnx", "int8")}
        inputs = nearest_to(batches_of(program, loaders_of(data, "test_dataloader")), NUM_WORDS)
        runs: dict[str, Call] = {"eager": program, **sessions}
        calls = {kind: seconds_of(lambda run=run: run(inputs), NUM_CALLS, NUM_WARM) for kind, run in runs.items()}
        rounds = interleave(calls, num_rounds)
        cases = [latency_case(kind, found) for kind, found in rounds.items()]
        cases = [with_speed(case, cases[0]) for case in cases]
        if isinstance(info, TokenInfo):
            cases += rates(program, info, sessions, data, folder / "transformers", num_rounds)
    about = {"run": Path(run).parent.name, "shapes": [list(value.shape) for value in inputs], "int8": method}
    plan = plan_hardware(restored.settings, hardware_info)
    result_name = f"latency-{restored.data}-{restored.model}"
    return make_result(result_name, cases, unmeasured_peaks(), plan, about, num_rounds=num_rounds)


def nearest_to(batches: Any, num_words: int) -> Tensors:
    """Returns one image, or the sentence whose number of words is nearest, without padding."""
    rows = (tuple(value[row : row + 1] for value in inputs) for inputs in batches for row in range(len(inputs[0])))
    first = next(rows)
    if len(first) == 1:
        return first
    best = min([first, *rows], key=lambda row: abs(int((row[2] >= 0).sum()) - num_words))
    ids, mask, starts = best
    length, words = int(mask.sum()), int((starts >= 0).sum())
    return ids[:, :length].contiguous(), mask[:, :length].contiguous(), starts[:, :words].contiguous()


def latency_case(name: str, rounds: Sequence[list[float]]) -> Case:
    """Returns median and 99th percentile of each round."""
    found = [to_latency(seconds) for seconds in rounds]
    figures = {key: Figure(tuple(getattr(value, key) for value in found), "ms") for key in ("p50", "p99")}
    return Case(f"batch 1, {name}", {"num_calls": NUM_CALLS}, figures)


def with_speed(case: Case, eager: Case) -> Case:
    """Returns a case with how many times faster than eager it is."""
    return Case(case.name, case.settings, {**case.figures, "speed": ratio(eager.figures["p50"], case.figures["p50"])})


def rates(program: Program, info: TokenInfo, sessions: dict[str, Call], data: Any, folder: Path, num_rounds: int) -> list[Case]:
    """Returns sentences per second from raw text, and how many times those of `transformers.pipeline`."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    texts = [" ".join(sentence.words) for sentence in data.sentences("test")[:NUM_SENTENCES]]
    assert program.save_as_hugging_face is not None
    with quiet_exporter():
        program.save_as_hugging_face(folder)
        model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer)
    ways: dict[str, Callable[[], Any]] = {"transformers.pipeline": lambda: tag(texts, batch_size=BATCH)}
    ways |= {kind: (lambda run=run: tag_texts(run, info, texts)) for kind, run in sessions.items()}
    measured = interleave({name: rate_of(way, len(texts)) for name, way in ways.items()}, num_rounds)
    figures = {name: Figure(tuple(values), "1/s") for name, values in measured.items()}
    slowest = figures["transformers.pipeline"]
    return [
        Case(f"batch {BATCH}, {name}", {"sentences": len(texts)}, {"rate": figure, "speed": ratio(figure, slowest)})
        for name, figure in figures.items()
    ]


def rate_of(way: Callable[[], Any], num: int) -> Callable[[], float]:
    """Returns a call that returns how many of `num` are done in a second, after a call that does not count."""
    way()

    def once() -> float:
        began = time.perf_counter()
        way()
        return num / (time.perf_counter() - began)

    return once


def tag_texts(run: Call, info: TokenInfo, texts: Sequence[str]) -> list[list[str]]:
    """Returns the tag of each word of each text, in batches of sentences of similar length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(info.tokenizer)
    tokenizer.enable_truncation(info.max_length)
    encodings = tokenizer.encode_batch([text.split() for text in texts], is_pretokenized=True)
    order = sorted(range(len(texts)), key=lambda number: len(encodings[number].ids))
    tags: list[list[str]] = [[] for _ in texts]
    for begin in range(0, len(order), BATCH):
        numbers = order[begin : begin + BATCH]
        ids = padded([encodings[number].ids for number in numbers], info.pad_id)
        mask = padded([encodings[number].attention_mask for number in numbers], 0)
        words = [[word for word in encodings[number].word_ids if word is not None] for number in numbers]
        starts = [
            [encodings[number].word_to_tokens(word)[0] for word in sorted({*found})]
            for number, found in zip(numbers, words, strict=True)
        ]
        best = run((ids, mask, padded(starts, -1)))[0].argmax(dim=-1).tolist()
        for number, row, found in zip(numbers, best, starts, strict=True):
            tags[number] = [info.labels[label] for label in row[: len(found)]]
    return tags


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Returns rows as int64 (rows, longest), filled up with a value."""
    table = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)


def result_table(result: Result) -> Table:
    """Returns a row for each case."""
    return to_table(result, {"p50": "p50, ms", "p99": "p99, ms", "rate": "sentences/s", "speed": "times as fast"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("overrides", nargs="*", metavar="data.KEY=VALUE")
    parser.add_argument("--repeats", type=count, default=5, dest="num_rounds", help="rounds (%(default)s)")
    parser.add_argument("--output", type=new_file, help="result file (default: a new one in benchmarks/results/)")
    options = parser.parse_args(arguments)
    with report_errors():
        result = measure(options.run, parse_overrides(options.overrides, "latency"), options.num_rounds)
        console = Console()
        console.print(result_table(result))
        console.print(f"result: {write_result(result, options.output)}", highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
