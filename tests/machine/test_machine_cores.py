from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ralr_tune.machine.cores import available_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("1600000 100000", 8),
        ("150000 100000", 1),
        ("299999 100000", 2),
        ("10000 100000", 1),
    ],
)
def test_a_containers_quota_limits_the_cores(container: Callable[..., Path], quota: str, cores: int) -> None:
    assert available_cores(container(cpu=quota)) == cores


def test_without_a_quota_the_cores_are_the_affinity_mask(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8
