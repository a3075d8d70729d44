from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Container = Callable[..., Path]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    """Creates the root folder of a machine whose control group (version 2) has these limits."""

    def make(**limits: str) -> Path:
        groups = tmp_path / "sys/fs/cgroup"
        groups.mkdir(parents=True)
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text("0::/\n")
        for name, limit in limits.items():
            (groups / f"{name}.max").write_text(f"{limit}\n")
        return tmp_path

    return make
