"""Which kernels a training step runs, and the fraction of the device's time that each takes.

    python -m benchmarks.kernels --output kernels.json --precision bf16 experiment=cifar10_fast data.root=DIRECTORY

torch's profiler measures some steps on one batch, after a warm-up: kernels of a GPU, operators of a CPU.
"""

from __future__ import annotations

import argparse

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from arclight import hardware
from arclight.benchmark.command_line import new_file
from arclight.benchmark.measurement import Case, Figure, make_result, write_result
from arclight.benchmark.training_step import Backend, TrainingStep, make_sample
from arclight.config.hardware_plan import plan_hardware
from arclight.hardware.peak_measurement import DTYPES, choose_device, seconds_of
from benchmarks.tasks import unmeasured_peaks

NUM_WARMUP, NUM_STEPS, NUM_SHOWN = 5, 5, 30


def main() -> None:
    """Prints the kernels, the longest first, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=new_file, required=True)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    device, sample = choose_device("auto"), make_sample(options.overrides)
    backend = Backend(precision=options.precision, channels_last=True, cudnn_benchmark=True, compile=options.compile)
    step = TrainingStep(sample, backend, device)
    seconds_of(step, NUM_WARMUP, device)
    plain_s = seconds_of(step, NUM_STEPS, device) / NUM_STEPS
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as seen:
        seconds_of(step, NUM_STEPS, device)
    taken: dict[str, tuple[float, int]] = {}
    for event in seen.key_averages():
        on_gpu = event.device_type == DeviceType.CUDA
        if on_gpu or device.type == "cpu":
            micro_s = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            taken[event.key] = (micro_s / NUM_STEPS, event.count // NUM_STEPS)
    total = sum(micro_s for micro_s, _ in taken.values())
    cases = [Case("step", {}, {"step": Figure((1000 * plain_s,), "ms"), "busy": Figure((total / 1e6 / plain_s,), "")})]
    for name, (micro_s, num_calls) in sorted(taken.items(), key=lambda item: -item[1][0])[:NUM_SHOWN]:
        print(f"{micro_s / total:6.1%} {micro_s:10.1f} us {num_calls:5} x  {name}")
        cases.append(
            Case(name, {"count": num_calls}, {"time": Figure((micro_s,), "us"), "share": Figure((micro_s / total,), "")})
        )
    plan = plan_hardware(sample.settings, hardware.probe())
    about = {"overrides": options.overrides, "backend": backend.name, **sample.work._asdict()}
    result = make_result(f"kernels-{sample.settings['name']}", cases, unmeasured_peaks(), plan, about, num_rounds=1)
    print(write_result(result, options.output))


if __name__ == "__main__":
    main()
