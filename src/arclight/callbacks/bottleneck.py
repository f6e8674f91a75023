"""Says in one line what limits a training run and what to change."""

from __future__ import annotations

from collections.abc import Mapping

# From which fraction of a step's time a phase is worth a change, and the change.
THRESHOLDS = {
    "data_wait": (
        0.10,
        "waits for data",
        "raise hardware.workers if files are read, reduce data.augment if the data is in memory",
    ),
    "optimizer": (0.25, "spends in the optimizer", "raise data.batch_size, for fewer updates"),
    "logging": (0.10, "spends in callbacks and loggers", "raise trainer.log_every_n_steps, or use fewer of them"),
}
PADDING = 0.25  # of the positions in a batch
IDLE = 0.30  # of a GPU's time


def advise(fractions: Mapping[str, float], *, padding: float, is_gpu: bool) -> str:
    """Returns what takes most of the time that is not spent on learning, and the remedy.

    Args:
        fractions: of a step's time, 0 to 1, by phase: data_wait, forward_backward, optimizer, logging.
        padding: fraction of the positions in a batch that hold padding.
        is_gpu: whether forward_backward and optimizer are a device's own time, so that what is missing from 1 is idle time.
    """
    busy = fractions["forward_backward"] + fractions["optimizer"]
    found = [
        (fractions[phase] - threshold, f"training {waits} {fractions[phase]:.0%} of the time: {change}")
        for phase, (threshold, waits, change) in THRESHOLDS.items()
    ]
    found.append((padding - PADDING, f"{padding:.0%} of each batch is padding: try data.packing=buckets"))
    if is_gpu:
        remedy = "the host is too slow for it: raise data.batch_size, or use hardware.compile=true"
        found.append((1 - busy - IDLE, f"the GPU is idle for {1 - busy:.0%} of the time, {remedy}"))
    excess, line = max(found)
    if excess >= 0:
        return line
    fraction = fractions["forward_backward"]
    return f"training is bound by forward and backward, {fraction:.0%} of the time: try lower precision or a smaller model"
