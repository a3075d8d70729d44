"""Control groups of versions 1 and 2, also nested, under a temporary root."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.machine.cgroup import cpu_limit, memory_limit

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


CGROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "memory", "cpu"),
    [
        ({}, None, None),
        (
            {"proc/self/cgroup": "0::/\n", f"{CGROUP}/memory.max": "4294967296\n",
             f"{CGROUP}/cpu.max": "150000 100000"},
            4 * GIB,
            1.5,
        ),
        (
            {"proc/self/cgroup": "0::/pod/box\n", f"{CGROUP}/pod/box/memory.max": "max",
             f"{CGROUP}/pod/memory.max": "1073741824", f"{CGROUP}/pod/box/cpu.max": "max 100000"},
            GIB,
            None,
        ),
        (  # inside the container its own group is mounted at the top, whatever its path on the host
            {"proc/self/cgroup": "0::/system.slice/box\n", f"{CGROUP}/memory.max": "1073741824",
             f"{CGROUP}/cpu.max": "50000 100000"},
            GIB,
            0.5,
        ),
        (
            {"proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n",
             f"{CGROUP}/memory/box/memory.limit_in_bytes": "2147483648",
             f"{CGROUP}/memory/memory.limit_in_bytes": "9223372036854771712",
             f"{CGROUP}/cpu,cpuacct/box/cpu.cfs_quota_us": "200000",
             f"{CGROUP}/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
             f"{CGROUP}/cpu,cpuacct/cpu.cfs_quota_us": "-1", f"{CGROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2 * GIB,
            2.0,
        ),
    ],
)  # fmt: skip
def test_a_containers_limits_are_read(tmp_path: Path, files: dict[str, str], memory: int, cpu: float) -> None:
    root = tree(tmp_path, files)
    assert memory_limit(root) == memory
    assert cpu_limit(root) == cpu
