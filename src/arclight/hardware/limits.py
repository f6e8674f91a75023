"""What of this machine a process may use: cores by affinity, cores and memory by the container's limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: its affinity, cut to the container's quota, at least 1.

    Args:
        root: where `proc` and `sys` lie.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *cpu_quotas(root)]))


def usable_memory(installed_bytes: int, root: Path = ROOT) -> int:
    """Bytes of memory that this process may use: what is installed, cut to the container's limit."""
    return min([installed_bytes, *memory_limits(root)])


def cpu_quotas(root: Path) -> Iterator[int]:
    """The quota of every control group above this process, in whole cores; 0 for less than one."""
    for folder in control_groups("", root):
        if (quota := read_words(folder / "cpu.max")) and len(quota) == 2 and quota[0].isdigit():
            yield int(quota[0]) // int(quota[1])
    for folder in control_groups("cpu", root):
        quota, period = read_words(folder / "cpu.cfs_quota_us"), read_words(folder / "cpu.cfs_period_us")
        if quota and period and quota[0].isdigit() and int(period[0]):  # -1 is no quota
            yield int(quota[0]) // int(period[0])


def memory_limits(root: Path) -> Iterator[int]:
    """The limit of every control group above this process, in bytes; none is "max", or a number beyond all memory."""
    for folder in control_groups("", root):
        yield from map(int, filter(str.isdigit, read_words(folder / "memory.max")))
    for folder in control_groups("memory", root):
        yield from map(int, filter(str.isdigit, read_words(folder / "memory.limit_in_bytes")))


def control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control group and of all above it; `controller` is empty for version 2.

    A container sees its own group at the top of the tree, whatever /proc says of the path, so the top is always among them.
    """
    tree = root / "sys/fs/cgroup" / controller
    path = "/"
    for line in read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, named = rest.partition(":")
        if controller in controllers.split(",") and not named.startswith("/.."):
            path = named
    group = tree / path.lstrip("/")
    while True:
        yield group
        if group in (tree, group.parent):
            return
        group = group.parent


def read_lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def read_words(path: Path) -> list[str]:
    """The words of a file of the kernel; none where it cannot be read."""
    return " ".join(read_lines(path)).split()
