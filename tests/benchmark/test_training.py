"""How training is compared with other ways to train; no claim on any time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.benchmark import training
from arclight.benchmark.machine import Machine
from arclight.benchmark.measurement import Result
from arclight.benchmark.training import BASELINES, KINDS, Wish, run_baseline, steady, to_cases, to_table
from arclight.benchmark.training_step import compose, make_sample
from arclight.config import CONF
from arclight.errors import InputError
from tests.test_checkpoint import TINY_IMAGES, TINY_TEXT

MACHINE = Machine("cpu", "made up", 2, {"fp32": 1e11, "bf16": 4e11}, 1e10)


@pytest.mark.parametrize(("overrides", "per"), [(TINY_IMAGES, "samples"), (TINY_TEXT, "tokens")])
def test_ours_over_theirs_and_shares_of_the_peak(overrides: list[str], per: str) -> None:
    sample = make_sample(overrides)
    ours, theirs = {"samples": 30.0, "step": 2.0}, {"samples": 10.0, "step": 6.0}
    if per == "tokens":
        ours["tokens"], theirs["tokens"] = 300.0, 100.0
    measured = {"arclight": [ours, ours], "raw": [theirs, ours]}
    cases = to_cases(measured, sample, MACHINE, precision="bf16-mixed")
    assert [case.name for case in cases] == ["arclight", "raw"]
    assert cases[1].figures["factor"].values == pytest.approx((3.0, 1.0))
    unit = sample.work.tokens or sample.work.samples
    assert cases[0].figures["peak_share"].median == pytest.approx(ours[per] * sample.flops / unit / 4e11)
    facts = {"device": "made up", "num_rounds": 2, "machine": {"flops": {"fp32": 1e11}, "copy_bytes_per_s": 1e10}}
    assert to_table(Result("train-x", facts, tuple(cases))).row_count == 2


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"against": ("hf_trainer",)}, "--against hf_trainer: baselines of --task images are raw, dataloader"),
        ({"task": "text", "against": ("dataloader",)}, "baselines of --task text are raw, hf_trainer, padded"),
        ({"num_steps": 0}, "--steps 0 must be 1 or more"),
        ({"num_rounds": 0}, "--repeats 0 must be 1 or more"),
    ],
)
def test_a_wrong_wish_is_told(wish: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Wish(**wish)  # type: ignore[arg-type]


def test_a_run_in_the_steady_state_composes() -> None:
    settings = compose(steady(TINY_IMAGES, 7))
    assert (settings["trainer"]["max_steps"], settings["callbacks"]) == (17, {})


def test_every_baseline_has_its_program() -> None:
    for name in {*KINDS["images"], *KINDS["text"]}:
        first, *rest = BASELINES[name]
        assert (CONF.parent / "benchmarks" / first).is_file() or rest == ["arclight.benchmark.raw_loop"]


def test_a_baseline_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.BASELINES, "broken", ("-m", "arclight.nowhere"))
    with pytest.raises(RuntimeError, match=r"(?s)-m arclight.nowhere 3 ended with status 1:.*No module named"):
        run_baseline("broken", 3, [], num_threads=1)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["raw", "dataloader"])
def test_a_baseline_trains(name: str) -> None:
    numbers = run_baseline(name, 2, TINY_IMAGES, num_threads=1)
    assert set(numbers) == {"samples", "step"}
    assert all(value > 0 for value in numbers.values())


@pytest.mark.processes
def test_transformers_trainer_trains(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="benchmarks/requirements.txt brings it")
    script = CONF.parent / "benchmarks" / "hf_trainer.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--steps", "2", "--pad-to", "40", *TINY_TEXT, "data.batch_size=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    numbers = json.loads(ended.stdout.splitlines()[-1])
    assert numbers["train/tokens_per_s"] > numbers["train/samples_per_s"] > 0
