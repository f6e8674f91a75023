"""Does cost scale linearly? Files of 1, 4 and 16 times the samples are prepared and trained on once each.

    python -m benchmarks.growth --task text --repeats 3

Preparing is what a run does before its first batch: it reads files, decodes images, tokenizes words. Loading is one epoch of
batches with nothing trained. Training is `python train.py` for one epoch. Where cost scales linearly, the slope of log seconds
over log samples is at most 1, and a sample costs no more among many than among few.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from arclight import hardware
from arclight.benchmark import measurement
from arclight.benchmark.command_line import Log, count, counts, run_benchmark
from arclight.benchmark.measurement import Case, Figure, Result, interleave, make_result
from arclight.benchmark.train import train
from arclight.benchmark.training_step import compose, with_defaults
from arclight.config.compose import report_errors
from arclight.config.hardware_plan import plan_hardware
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from arclight.runs import build
from arclight.text.sentences import Sentence
from benchmarks.tasks import TASKS, TaskOptions, batches, new_parser
from project.data.synthetic_images import SHAPES, draw
from project.data.synthetic_text import SyntheticText

NUM_SAMPLES = {"images": 1024, "text": 512}  # in one times the data
NUM_HELD_OUT = 64  # for validation and test each, whatever the size
IMAGE_SIZE = 32
FORMATS = {"images": ("image_folder", [f"data.image_size={IMAGE_SIZE}", "data.batch_size=64"])}
FORMATS["text"] = ("conll_files", ["data.batch_size=16"])
PARTS = {"prepare": "preparing", "load": "loading an epoch", "train": "training an epoch"}
ONE_EPOCH = ("trainer.max_epochs=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What the command line says."""

    sizes: Sequence[int] = (1, 4, 16)
    num_samples: int | None = None


def measure(options: Options, log: Log) -> Result:
    """Measures every size in every round, on files in a temporary directory.

    Raises:
        InputError: for an error in the overrides, overrides of the data, or less than two sizes.
        RuntimeError: when a run fails, with the end of its output.
    """
    check(options)
    hardware_info, device = hardware.probe(), choose_device(options.device)
    log("peaks of the device")
    machine = measure_peaks(device, hardware_info)
    per_size = options.num_samples or NUM_SAMPLES[options.task]
    with tempfile.TemporaryDirectory(prefix="arclight-growth-") as folder:
        plan = plan_hardware(compose(overrides_for(options, Path(folder))), hardware_info)
        rounds = dict.fromkeys(options.sizes, 0)

        def once(size: int) -> Callable[[], dict[str, float]]:
            def run() -> dict[str, float]:
                rounds[size] += 1  # other files in each round: caches go by content
                own = Path(folder, f"{size}-{rounds[size]}")
                log(f"{size} times the data: {size * per_size} samples")
                make_files(own, options.task, size * per_size, seed=rounds[size])
                overrides = overrides_for(options, own)
                return measure_size(overrides, device, hardware_info.num_cores, num_workers=plan["workers"].value)

            return run

        measured = interleave({str(size): once(size) for size in options.sizes}, options.num_rounds)
    cases = to_cases({int(size): numbers for size, numbers in measured.items()}, per_size)
    about = {"task": options.task, "sizes": list(options.sizes), "num_samples": per_size}
    about["overrides"] = list(options.overrides)
    return make_result(f"growth-{options.task}", cases, machine, plan, about, num_rounds=options.num_rounds)


def check(options: Options) -> None:
    """Raises InputError for sizes without a slope, or overrides of the data."""
    if len(options.sizes) < 2:
        raise InputError(f"--sizes {options.sizes[0]} must be two or more numbers, such as 1,4,16")
    for override in options.overrides:
        if override.startswith(("data=", "data.root=")):
            raise InputError(f"{override}: this benchmark generates its files; leave it out")


def overrides_for(options: Options, folder: Path) -> list[str]:
    """Returns the overrides of a run on the files in this directory."""
    data, own = FORMATS[options.task]
    return [*with_defaults([f"data={data}", f"data.root={folder}", *own], TASKS[options.task]), *options.overrides]


def make_files(folder: Path, task: str, num_train: int, *, seed: int) -> None:
    """Writes a data set with so many training samples: images of shapes by class, or tagged phrases in columns."""
    splits = {"train": num_train, "valid": NUM_HELD_OUT, "test": NUM_HELD_OUT}
    for number, (split, num) in enumerate(splits.items()):
        if task == "images":
            write_images(folder / {"valid": "val"}.get(split, split), num, seed=(seed, number))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            phrases = SyntheticText(num_train=num, num_val=1, num_test=1, data_seed=10 * seed + number)
            write_columns(folder / f"{split}.txt", phrases.read("train"))


def write_images(folder: Path, num: int, *, seed: tuple[int, ...]) -> None:
    """Writes one directory of PNG files for each class."""
    images, labels = draw(num, IMAGE_SIZE, random=np.random.default_rng(seed))
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
    assert isinstance(images, Tensor)
    names = list(SHAPES)
    for number, (pixels, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
        Image.fromarray(pixels).save(folder / names[label] / f"{number}.png", compress_level=1)


def write_columns(path: Path, sentences: Sequence[Sentence]) -> None:
    """Writes a word and its tag in each line, and an empty line after each sentence."""
    texts = ("".join(f"{word} {tag}\n" for word, tag in zip(s.words, s.tags, strict=True)) for s in sentences)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def measure_size(overrides: list[str], device: torch.device, num_threads: int, *, num_workers: int) -> dict[str, float]:
    """Returns the seconds of each of PARTS, and the speed of training in its steady state."""
    began = time.perf_counter()
    data = build.build_data(compose(overrides), workers=num_workers)
    data.prepare_data()
    data.setup("fit")
    prepared = time.perf_counter()
    for _ in batches(data, data.steps_per_epoch, device):
        pass
    loaded = time.perf_counter()
    results = train([*overrides, *ONE_EPOCH, "callbacks=none", "logger=none"], num_threads=num_threads)
    numbers = {"prepare": prepared - began, "load": loaded - prepared, "train": float(results["time/fit_s"])}
    names = {"samples": "train/samples_per_s", "tokens": "train/tokens_per_s"}
    return numbers | {name: float(results[key]) for name, key in names.items() if key in results}


def to_cases(measured: Mapping[int, list[dict[str, float]]], per_size: int) -> list[Case]:
    """Returns each size with its seconds and the microseconds of a sample, and last the slopes over all sizes."""
    cases = []
    for size, rounds in measured.items():
        figures = {part: Figure(tuple(numbers[part] for numbers in rounds), "s") for part in PARTS}
        num = size * per_size
        each = {f"{part}_each": Figure(tuple(1e6 * value / num for value in figures[part].values), "us") for part in PARTS}
        speeds = [key for key in ("samples", "tokens") if key in rounds[0]]
        figures |= each | {key: Figure(tuple(numbers[key] for numbers in rounds), "1/s") for key in speeds}
        cases.append(Case(f"{size} x", {"num_samples": num}, figures))
    sizes, num_rounds = list(measured), len(next(iter(measured.values())))
    slopes = {
        part: Figure(tuple(slope(sizes, [measured[size][n][part] for size in sizes]) for n in range(num_rounds)), "")
        for part in PARTS
    }
    return [*cases, Case("slope", {"of": "log seconds over log samples, least squares"}, slopes)]


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns the least-squares slope of log seconds over log sizes: 1 is proportional, less is a fixed cost."""
    return float(np.polyfit([math.log(size) for size in sizes], [math.log(value) for value in seconds], 1)[0])


def to_table(result: Result) -> Table:
    """Returns a row for each size, and the slopes below."""
    headings = {f"{part}_each": f"{heading}, us per sample" for part, heading in PARTS.items()}
    slopes = ", ".join(f"{PARTS[part]} {figure.to_text()}" for part, figure in result.cases[-1].figures.items())
    headings |= {"samples": "samples/s", "tokens": "tokens/s"}
    return measurement.to_table(
        result, headings, settings=["num_samples"], notes=[f"slopes of log seconds over log samples: {slopes}"]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = new_parser(__doc__, with_batch_size=False)
    parser.add_argument("--sizes", type=counts, metavar="N,N...", help="times the data; default: 1,4,16")
    parser.add_argument(
        "--samples", type=count, dest="num_samples", help="in one times the data; 1,024 images or 512 sentences"
    )
    with report_errors():
        run_benchmark(parser.parse_args(arguments), Options, measure, lambda result: [to_table(result)])


if __name__ == "__main__":
    main()
