"""A simulated GPU: the memory that torch reports, and the limit that is set."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

GIB = 2**30


@dataclass
class Card:
    """`cuda:1` of a machine with two; bytes."""

    free: int
    total: int = 80 * GIB
    reserved: int = 0
    """By this process."""
    fraction: float = 1.0
    """The largest share of all memory that torch may give this process."""

    @property
    def bound(self) -> int:
        return round(self.fraction * self.total)

    def insert(self, monkeypatch: pytest.MonkeyPatch) -> Card:
        """Makes torch report this card."""

        def bound(fraction: float, index: int) -> None:
            assert index == 1
            self.fraction = fraction

        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: {1: (self.free, self.total)}[index])
        monkeypatch.setattr("torch.cuda.memory_reserved", lambda index: {1: self.reserved}[index])
        monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda index: {1: self.fraction}[index])
        monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", bound)
        return self


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes any question about a card's memory fail."""
    for name in (
        "mem_get_info",
        "memory_reserved",
        "get_per_process_memory_fraction",
        "set_per_process_memory_fraction",
    ):

        def fail(*arguments: object, name: str = name) -> None:
            raise AssertionError(f"torch.cuda.{name} was asked")

        monkeypatch.setattr(f"torch.cuda.{name}", fail)
