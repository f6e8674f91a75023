"""What a training run waits for, in one line, and what to change."""

from __future__ import annotations

from collections.abc import Mapping

# From which share of a step's time on a part is worth a change, and the change.
WORTH = {
    "data_wait": (
        0.10,
        "waits for data",
        "raise hardware.workers where files are read, lighten data.augment where they lie in memory",
    ),
    "optimizer": (0.25, "spends in the optimizer", "raise data.batch_size, so that there are fewer updates"),
    "logging": (0.10, "spends in callbacks and loggers", "raise trainer.log_every_n_steps, or take fewer of them"),
}
PADDING = 0.25  # of the places in a batch
IDLE = 0.30  # of a GPU's time


def advise(shares: Mapping[str, float], *, padding: float, is_gpu: bool) -> str:
    """What takes most of the time that is not spent on learning, and the way out.

    Args:
        shares: of a step's time, 0 to 1, by part: data_wait, forward_backward, optimizer, logging.
        padding: share of the places in a batch where no text is.
        is_gpu: whether forward_backward and optimizer are a device's own time, so that what is missing from 1 is idleness.
    """
    busy = shares["forward_backward"] + shares["optimizer"]
    found = [
        (shares[part] - worth, f"training {waits} {shares[part]:.0%} of the time: {change}")
        for part, (worth, waits, change) in WORTH.items()
    ]
    found.append((padding - PADDING, f"{padding:.0%} of each batch is padding: take data.packing=buckets"))
    if is_gpu:
        idle = "the host is too slow for it: raise data.batch_size, or take hardware.compile=true"
        found.append((1 - busy - IDLE, f"the GPU stands idle for {1 - busy:.0%} of the time, {idle}"))
    excess, line = max(found)
    if excess >= 0:
        return line
    share = shares["forward_backward"]
    return f"training is bound by forward and backward, {share:.0%} of the time: only other precision or another net is faster"
