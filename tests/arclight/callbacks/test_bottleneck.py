from __future__ import annotations

import pytest

from arclight.callbacks.step_timing import advise


@pytest.mark.parametrize(
    ("fractions", "padding", "is_gpu", "expected"),
    [
        ((0.02, 0.80, 0.15, 0.03), 0.05, False, "training is bound by forward and backward, 80% of the time"),
        ((0.40, 0.50, 0.05, 0.05), 0.0, False, "training waits for data 40% of the time: raise hardware.workers"),
        ((0.02, 0.50, 0.45, 0.03), 0.0, False, "training spends in the optimizer 45% of the time: raise data.batch_size"),
        (
            (0.02, 0.50, 0.05, 0.43),
            0.0,
            False,
            "spends in callbacks and loggers 43% of the time: raise trainer.log_every_n_steps",
        ),
        ((0.11, 0.50, 0.05, 0.34), 0.0, False, "spends in callbacks and loggers 34%"),  # the worst of two
        ((0.02, 0.90, 0.05, 0.03), 0.6, False, "60% of each batch is padding: try data.packing=buckets"),
        ((0.02, 0.30, 0.05, 0.03), 0.0, True, "the GPU is idle for 65% of the time"),
        ((0.02, 0.30, 0.05, 0.03), 0.0, False, "bound by forward and backward"),  # on a CPU nothing is known of idle time
    ],
)
def test_the_worst_bottleneck_is_named(fractions: tuple[float, ...], padding: float, is_gpu: bool, expected: str) -> None:
    named = dict(zip(("data_wait", "forward_backward", "optimizer", "logging"), fractions, strict=True))
    line = advise(named, padding=padding, is_gpu=is_gpu)
    assert expected in line
    assert "\n" not in line
