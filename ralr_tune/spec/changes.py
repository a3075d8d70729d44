"""What differs between a stored study file and the one at hand, and whether one study can hold both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ralr_tune.spec.problems import shown
from ralr_tune.spec.study import StudySpec

HARMLESS = frozenset({"search.trials", "confirm.top", "confirm.seeds", "confirm.margin", "confirm.confidence"})
"""Keys that change how much is done, not what a trial is."""


@dataclass(frozen=True)
class Change:
    """One key that differs."""

    key: str
    before: Any
    after: Any

    @property
    def harmless(self) -> bool:
        return self.key in HARMLESS or (self.key == "search.blocks" and self.after > self.before)

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.before)} -> {shown(self.after)}"


def changes(before: StudySpec, after: StudySpec) -> list[Change]:
    """Every key whose meaning differs; comments, order and [storage] do not count."""
    old, new = (spec.file.model_dump(mode="json", exclude={"storage"}) for spec in (before, after))
    return list(_differences("", old, new))


def _differences(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(f"{path}.{key}" if path else str(key), old.get(key), new.get(key))
    elif old != new:
        yield Change(path, old, new)
