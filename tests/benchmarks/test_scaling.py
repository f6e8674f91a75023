"""The extra cases of benchmarks.scaling, what communication.json gives, and its tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, Result
from benchmarks import scaling
from benchmarks.readme_tables import read_result
from benchmarks.scaling import Options, add_figures, communication_figures, plan, to_tables

METADATA = {"device": "Some CPU", "num_rounds": 2, "machine": {"flops": {"fp32": 1e11}, "copy_bytes_per_s": 2e10}}
LAPTOP = hardware.HardwareInfo(num_cores=4, memory_bytes=2**33)
COMMUNICATION = {
    "world_size": 2,
    "gradient_bytes": 8_000_000,
    "num_buckets": 2,
    "with_ms": [12.0, 14.0, 13.0],
    "without_ms": [10.0, 11.0, 12.0],
    "in_flight_ms": [6.0, 5.0, 7.0],
    "all_reduce_ms": [4.0, 5.0, 6.0],
}


def case(name: str, kind: str, samples: float, **figures: float) -> Case:
    measured = {"samples": Figure((samples, samples * 3), "1/s"), "step": Figure((50.0, 100.0), "ms")}
    measured |= {key: Figure((value,), "") for key, value in figures.items()}
    return Case(name, {"kind": kind, "batch_size": 64}, measured)


def to_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


RESULT = Result(
    "scaling-synthetic_images-cnn",
    METADATA,
    (
        case("untuned", "untuned", 100, peak_share=0.3),
        case("1 process, 2 threads", "one", 200, peak_share=0.5),
        case("2 processes, strong", "strong", 300, efficiency=0.75, exposed=1.5, exposed_share=0.05, floor=1.0),
    ),
)


def test_runs_of_several_processes_time_their_communication() -> None:
    jobs = plan(Options(devices=(1, 2), with_untuned=True), LAPTOP, 64, is_cpu=True)
    assert [job.name for job in jobs] == [
        *("untuned", "1 process, 4 threads", "1 process, 2 threads", "2 processes, strong", "2 processes, weak")
    ]
    assert jobs[0].overrides[-4::3] == ("precision=fp32", "++hardware.compile=false")
    assert [scaling.WATCHED in job.overrides for job in jobs] == [False, False, False, True, True]


def test_the_runs_of_the_overhead() -> None:
    jobs = plan(Options(only_overhead=True), LAPTOP, 64, is_cpu=True)
    assert [(job.kind, job.num_threads) for job in jobs] == [("one", 4), ("ddp", 4)]
    assert jobs[1].overrides == ("trainer=cpu", "strategy=ddp_cpu", "trainer.devices=1", "data.batch_size=64")


def test_communication_of_given_times() -> None:
    figures = communication_figures([COMMUNICATION])
    assert figures["in_flight"].median == 6
    assert figures["exposed"].median == 13 - 11
    assert figures["floor"].median == pytest.approx(4)  # 8 MB * 2 * 1 / 2 at the bandwidth of 4 ms for as much
    assert figures["all_reduce"].median == pytest.approx(2)
    assert communication_figures([]) == {}


def test_overhead_and_exposed_fraction_of_given_times() -> None:
    ddp = Case("ddp", {"kind": "ddp"}, {"step": Figure((51.0, 103.0), "ms")})
    result = add_figures(Result("x", METADATA, (*RESULT.cases[1:2], ddp)), {"ddp": [COMMUNICATION, COMMUNICATION]})
    assert result.cases[1].figures["overhead"].values == pytest.approx((1.02, 1.03))
    assert result.cases[1].figures["exposed_share"].values == pytest.approx((2 / 51, 2 / 103))
    assert "overhead" not in result.cases[0].figures


def test_the_tables() -> None:
    speed, communication, short = map(to_text, to_tables(RESULT))
    assert "scaling-synthetic_images-cnn on Some CPU, n = 2" in speed
    assert "200 (100 to 300)" in speed
    assert "400 (200 to 600)" in speed
    assert "0.750" in speed
    assert "50%" in speed
    assert "over single" not in speed
    assert "fp32 100" in speed
    assert "2 processes, strong" in communication
    assert "untuned" not in communication
    assert "5%" in communication
    assert "all-reduce" not in communication
    rows = [line.split() for line in short.splitlines()]
    factors = {" ".join(row[1:4]): row[-2] for row in rows if len(row) > 6}
    assert factors["one device, plain"] == "1.00"
    assert factors["one device, library-tuned"] == "2.00"
    assert factors["2 processes, strong"] == "3.00"


def test_the_overhead_names_its_target() -> None:
    result = Result("overhead", METADATA, (case("1 process", "one", 9), case("ddp, 1 process", "ddp", 9, overhead=1.02)))
    text = " ".join(to_text(next(to_tables(result))).split())
    assert "1.02" in text
    assert "at most 1.03 times as long" in text


@pytest.mark.usefixtures("small_peaks")
@pytest.mark.parametrize("task", ["images", "text"])
def test_from_the_command_line(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_in(folder: Path, overrides: list[str], *, num_threads: int) -> dict[str, Any]:
        if "strategy=ddp_cpu" in overrides:
            folder.joinpath("outputs/a/b").mkdir(parents=True)
            folder.joinpath("outputs/a/b/communication.json").write_text(str(COMMUNICATION).replace("'", '"'))
        batch_size = int(next(o for o in reversed(overrides) if o.startswith("data.batch_size=")).partition("=")[2])
        return {"train/step_ms": 10.0, "train/samples_per_s": 100.0 * batch_size, "train/tflops": 0.001}

    monkeypatch.setattr(scaling, "train_in", train_in)
    file = tmp_path / "scaling.json"
    options = ["--device", "cpu", "--devices", "2,1", "--repeats", "2", "--batch-size", "8", "--table", "--task", task]
    scaling.main([*options, "--output", str(file)])
    cases = {case.name: case.figures for case in read_result(file).cases}
    assert cases["2 processes, strong"]["exposed"].values == (2, 2)
    assert cases["2 processes, weak"]["efficiency"].median == 1
    shown = capsys.readouterr().out
    assert "gradients in flight" in shown
    assert "one device, library-tuned" in shown
    assert f"result: {file}" in shown
