"""`benchmark growth`: what more data costs. Files of 1, 4 and 16 times the samples are prepared and trained on once each.

Preparing is what a run does before its first batch: files are read, images decoded, words cut into subwords. Loading is one
epoch of batches with nothing trained. Training is `python train.py` for one epoch. Where cost grows in a straight line, the
slope of log seconds over log samples is at most 1, and a sample costs no more among many than among few.
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
from rich.text import Text
from torch import Tensor

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result, gather_facts, interleave, significant
from arclight.benchmark.options import Tell, check_counts
from arclight.benchmark.precision import limits
from arclight.benchmark.raw_loop import batches
from arclight.benchmark.scaling import TASKS
from arclight.benchmark.train_process import train
from arclight.benchmark.training_step import compose, with_defaults
from arclight.config.hardware_plan import plan_hardware
from arclight.errors import InputError
from arclight.hardware.peak_measurement import choose_device, measure_peaks
from arclight.runs import build
from arclight.text.columns import Sentence
from project.data.synthetic_images import SHAPES, draw
from project.data.synthetic_text import SyntheticText

SIZES = (1, 4, 16)
NUM_SAMPLES = {"images": 1024, "text": 512}  # in one times the data
NUM_HELD_OUT = 64  # validated and tested on, whatever the size
IMAGE_SIZE = 32
PARTS = {"prepare": "preparing", "load": "loading an epoch", "train": "training an epoch"}


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Raises:
        InputError: for a number out of its range, or overrides of the data, which is made here.
    """

    task: str = "images"
    sizes: tuple[int, ...] = SIZES
    num_samples: int | None = None
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    num_rounds: int = 5

    def __post_init__(self) -> None:
        check_counts({"--repeats": self.num_rounds, "--samples": self.num_samples or 1})
        if len(self.sizes) < 2 or self.sizes[0] < 1:
            raise InputError(
                f"--sizes {','.join(map(str, self.sizes))} must be two or more whole numbers from 1 on, such as 1,4,16"
            )
        for override in self.overrides:
            if override.startswith(("data=", "data.root=")):
                raise InputError(f"{override}: benchmark growth makes its files itself; leave it out")


def measure_growth(wish: Wish, *, tell: Tell = lambda line: None) -> Result:
    """The table of this machine; all files are made in a temporary folder.

    Raises:
        InputError: for a wish that this machine or the config cannot fulfil.
        RuntimeError: when a run fails, with what it said.
    """
    hardware_info, device = hardware.probe(), choose_device(wish.device)
    tell("what the machine can do at most")
    machine = measure_peaks(device, hardware_info)
    per_size = wish.num_samples or NUM_SAMPLES[wish.task]
    with tempfile.TemporaryDirectory(prefix="arclight-growth-") as folder:
        plan = plan_hardware(compose(overrides_for(wish, Path(folder))), hardware_info)
        rounds = dict.fromkeys(wish.sizes, 0)

        def once(size: int) -> Callable[[], dict[str, float]]:
            def measured() -> dict[str, float]:
                rounds[size] += 1  # other files in each round, lest what was cached by their content be found again
                own = Path(folder, f"{size}-{rounds[size]}")
                tell(f"{size} times the data: {size * per_size} samples")
                make_files(own, wish.task, size * per_size, seed=rounds[size])
                return measure_size(
                    overrides_for(wish, own), device, hardware_info.num_cores, num_workers=plan["workers"].value
                )

            return measured

        measured = interleave({str(size): once(size) for size in wish.sizes}, wish.num_rounds)
    cases = to_cases({int(size): numbers for size, numbers in measured.items()}, per_size)
    described = {"task": wish.task, "sizes": list(wish.sizes), "num_samples": per_size, "overrides": list(wish.overrides)}
    return Result(f"growth-{wish.task}", gather_facts(machine, plan, described, num_rounds=wish.num_rounds), tuple(cases))


def overrides_for(wish: Wish, folder: Path) -> list[str]:
    """Of a run on the files in this folder."""
    data = {"images": "image_folder", "text": "conll_files"}[wish.task]
    kept = {"images": {"data.image_size": str(IMAGE_SIZE), "data.batch_size": "64"}, "text": {"data.batch_size": "16"}}
    shown = [f"{key}={value}" for key, value in kept[wish.task].items()]
    return [*with_defaults([f"data={data}", f"data.root={folder}", *shown], TASKS[wish.task]), *wish.overrides]


def make_files(folder: Path, task: str, num_train: int, *, seed: int) -> None:
    """Writes a data set of so many training samples: images of shapes by class, or tagged phrases in columns."""
    splits = {"train": num_train, "valid": NUM_HELD_OUT, "test": NUM_HELD_OUT}
    for number, (split, count) in enumerate(splits.items()):
        if task == "images":
            write_images(folder / {"valid": "val"}.get(split, split), count, seed=(seed, number))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            phrases = SyntheticText(num_train=count, num_val=1, num_test=1, data_seed=10 * seed + number)
            write_columns(folder / f"{split}.txt", phrases.read("train"))


def write_images(folder: Path, num: int, *, seed: tuple[int, ...]) -> None:
    """One folder for each class, with PNG files in it."""
    images, labels = draw(num, IMAGE_SIZE, random=np.random.default_rng(seed))
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
    assert isinstance(images, Tensor)
    names = list(SHAPES)
    for number, (pixels, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
        Image.fromarray(pixels).save(folder / names[label] / f"{number}.png", compress_level=1)


def write_columns(path: Path, sentences: Sequence[Sentence]) -> None:
    """A word and its tag in each line, an empty line after each sentence."""
    texts = ("".join(f"{word} {tag}\n" for word, tag in zip(s.words, s.tags, strict=True)) for s in sentences)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def measure_size(overrides: list[str], device: torch.device, num_threads: int, *, num_workers: int) -> dict[str, float]:
    """Seconds of each of PARTS, and what training does a second in its steady state."""
    settings = compose(overrides)
    began = time.perf_counter()
    data = build.build_data(settings, workers=num_workers)
    data.prepare_data()
    data.setup("fit")
    prepared = time.perf_counter()
    for _ in batches(data, data.steps_per_epoch, device):
        pass
    loaded = time.perf_counter()
    cut = (
        "trainer.max_epochs=1",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
        "callbacks=none",
        "logger=none",
    )
    results = train([*overrides, *cut], num_threads=num_threads).results
    numbers = {"prepare": prepared - began, "load": loaded - prepared, "train": float(results["time/fit_s"])}
    names = {"samples": "train/samples_per_s", "tokens": "train/tokens_per_s"}
    return numbers | {name: float(results[key]) for name, key in names.items() if key in results}


def to_cases(measured: Mapping[int, list[dict[str, float]]], per_size: int) -> list[Case]:
    """Each size with its seconds and the microseconds of a sample, and last the slopes over all sizes."""
    cases = []
    for size, rounds in measured.items():
        figures = {part: Figure(tuple(numbers[part] for numbers in rounds), "s") for part in PARTS}
        num = size * per_size
        each = {f"{part}_each": Figure(tuple(1e6 * value / num for value in figures[part].values), "us") for part in PARTS}
        speeds = [key for key in ("samples", "tokens") if key in rounds[0]]
        figures |= each | {key: Figure(tuple(numbers[key] for numbers in rounds), "1/s") for key in speeds}
        cases.append(Case(f"{size} x", {"num_samples": num}, figures))
    sizes = list(measured)
    slopes = {
        part: Figure(
            tuple(slope(sizes, [measured[size][number][part] for size in sizes]) for number in range(len(measured[sizes[0]]))),
            "",
        )
        for part in PARTS
    }
    return [*cases, Case("slope", {"of": "log seconds over log samples, least squares"}, slopes)]


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of log seconds over log sizes, by least squares: 1 is a straight line through 0, less is a fixed cost beside it."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def to_table(result: Result) -> Table:
    """A row for each size, and the slopes."""
    settings = result.facts["settings"]
    title = f"{result.benchmark} on {result.facts['device']}, n = {result.facts['num_rounds']}"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("data")
    table.add_column("samples", justify="right")
    speeds = {"samples": "samples/s", "tokens": "real tokens/s"}
    speeds = {key: heading for key, heading in speeds.items() if any(key in case.figures for case in result.cases)}
    for heading in (*(f"{heading}, us a sample" for heading in PARTS.values()), *speeds.values()):
        table.add_column(heading, justify="right")
    for case in result.cases:
        if case.name == "slope":
            table.add_section()
            table.add_row("slope", "", *(case.figures[part].to_text() for part in PARTS), *("" for _ in speeds))
            continue
        each = [case.figures[f"{part}_each"].to_text() for part in PARTS]
        table.add_row(case.name, f"{case.settings['num_samples']:,}", *each, *(case.figures[key].to_text() for key in speeds))
    biggest = max(settings["sizes"]) // min(settings["sizes"])
    lines = [f"slope: of log seconds over log samples, over {significant(biggest, 1)} times the data; 1 is a straight line"]
    table.caption = Text("\n".join([*lines, limits(result.facts["machine"])]))
    return table
