"""Resource limits of a container: Linux control groups, versions 1 and 2.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")

_NO_LIMIT = 2**60
"""From this value on there is no limit: version 1 encodes "no limit" as a number of about 2**63."""


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes; None if there is no limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    limits = [int(text) for folder in _folders(root, "memory") for name in files if (text := _read(folder / name))]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def cpu_limit(root: Path = ROOT) -> float | None:
    """Cores, for example 1.5; None if there is no limit."""
    limits = []
    for folder in _folders(root, "cpu"):
        quota = (
            _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        )
        with suppress(ValueError):  # "max 100000", or no such file
            allowed, period = map(int, quota.split())
            limits.append(allowed / period)
    return min((limit for limit in limits if limit > 0), default=None)  # version 1 encodes "no limit" as -1


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The groups that contain this process, from the innermost to the outermost: each may have a limit."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # version 1 mounts a folder per controller, version 2 a single hierarchy
        top = mount / controllers if controllers else mount
        if controllers and not top.is_dir():
            top = mount / controller
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _read(file: Path) -> str:
    """The file's text; "" if it does not exist or contains "max", which means no limit."""
    with suppress(OSError):
        text = file.read_text().strip()
        return "" if text == "max" else text
    return ""
