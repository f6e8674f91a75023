"""The limits of a container count."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.hardware import usable_cores
from arclight.hardware.container_limits import usable_memory

FREE = usable_cores(Path("nowhere"))
GIB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, FREE),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, FREE),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, FREE),
        ({"sys/fs/cgroup/cpu.max": "nonsense\n"}, FREE),
        # the quota is set in a group above
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "1000 1000",
            },
            1,
        ),
        # version 1
        (
            {
                "proc/self/cgroup": "7:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, FREE),
    ],
)
def test_cores(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, 8 * GIB),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        ({"sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n"}, 2 * GIB),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8 * GIB),
        (
            {"proc/self/cgroup": "4:memory:/job/7\n", "sys/fs/cgroup/memory/job/7/memory.limit_in_bytes": f"{3 * GIB}\n"},
            3 * GIB,
        ),
        ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], memory: int) -> None:
    assert usable_memory(8 * GIB, write(tmp_path, files)) == memory
