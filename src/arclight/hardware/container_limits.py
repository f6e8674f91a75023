"""The cores and the memory that a process may use: its CPU affinity and the limits of its container (cgroups)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Returns the cores of this process's affinity, cut to the container's quota, at least 1. `root` contains proc and sys."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *cpu_quotas(root)]))


def usable_memory(installed_bytes: int, root: Path = ROOT) -> int:
    """Returns the installed memory, cut to the container's limit, in bytes."""
    return min([installed_bytes, *memory_limits(root)])


def cpu_quotas(root: Path) -> Iterator[int]:
    """Yields the quota of this process's control group and of each above it, in whole cores; 0 for less than one."""
    limits = [read_words(group / "cpu.max") for group in control_groups("", root)]
    for group in control_groups("cpu", root):
        limits.append(read_words(group / "cpu.cfs_quota_us") + read_words(group / "cpu.cfs_period_us"))
    for words in limits:
        if len(words) == 2 and words[0].isdigit() and int(words[1]):  # "max" and -1 are no quota
            yield int(words[0]) // int(words[1])


def memory_limits(root: Path) -> Iterator[int]:
    """Yields the limit of this process's control group and of each above it, in bytes; a huge number is no limit."""
    for group in control_groups("", root):
        yield from map(int, filter(str.isdigit, read_words(group / "memory.max")))
    for group in control_groups("memory", root):
        yield from map(int, filter(str.isdigit, read_words(group / "memory.limit_in_bytes")))


def control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Yields the directories of this process's control group and of all above it; `controller` is empty for version 2.

    A container sees its own group at the top of the tree, whatever path /proc reports, so the top is always among them.
    """
    tree = root / "sys/fs/cgroup" / controller
    path = "/"
    for line in read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, group_path = rest.partition(":")
        if controller in controllers.split(",") and not group_path.startswith("/.."):
            path = group_path
    group = tree / path.lstrip("/")
    while True:
        yield group
        if group in (tree, group.parent):
            return
        group = group.parent


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a kernel file, none if it cannot be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def read_words(path: Path) -> list[str]:
    """Returns the words of a kernel file, none if it cannot be read."""
    return " ".join(read_lines(path)).split()
