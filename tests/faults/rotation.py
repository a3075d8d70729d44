"""Draws for storms of faults, in which even a few draws contain every kind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Rotation(Generic[T]):
    """Draws each item once, in random order, before any is drawn a second time."""

    def __init__(self, items: Sequence[T], chance: random.Random) -> None:
        self._items, self._chance = items, chance
        self._left: list[T] = []

    def drawn(self) -> T:
        """The next item, until it is `used`: a fault that finds no target is tried again."""
        if not self._left:
            self._left = self._chance.sample(self._items, len(self._items))
        return self._left[-1]

    def used(self) -> None:
        """The drawn item was injected."""
        self._left.pop()
