from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ralr_tune.errors import DataError
from ralr_tune.machine import memory


def test_a_containers_limit_limits_the_free_memory(container: Callable[..., Path]) -> None:
    assert memory.free_bytes(container(memory="1000000")) == 10**6


@pytest.mark.parametrize("limit", ["max", str(2**59)])
def test_free_memory_is_the_machines_if_the_container_has_no_effective_limit(
    container: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7))
    assert memory.free_bytes(container(memory=limit)) == 7


def test_data_may_use_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    memory.check_memory(500_000, "x")
    with pytest.raises(DataError, match=r"x: .* half of the free memory"):
        memory.check_memory(500_001, "x")
