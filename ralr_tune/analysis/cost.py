"""What a study has cost so far: trials, runs, epochs and device time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ralr_tune.records import Row


@dataclass(frozen=True)
class Cost:
    """What the rows of a study have cost, over all of its runs."""

    trials: int
    """Search trials that ended."""
    runs: int
    """Further training runs that ended: audits, and those of confirm. A test trains nothing."""
    epochs: int
    device_seconds: float
    """Training time of all ended rows. Trials that one worker trains at the same time share its time."""


def cost(rows: Sequence[Row]) -> Cost:
    """The cost of all rows of a study."""
    ended = [row for row in rows if row.state == "done"]
    return Cost(
        trials=sum(row.stage == "search" for row in ended),
        runs=sum(row.stage in ("audit", "choose", "judge") for row in ended),
        epochs=trained_epochs(rows),
        device_seconds=sum(row.seconds or 0.0 for row in ended),
    )


def trained_epochs(rows: Sequence[Row]) -> int:
    """Epochs trained so far, in all stages; an audit counts only those that its search trial had not trained."""
    inherited = inherited_epochs(rows)
    return sum(max(0, row.epoch - inherited.get(row.id, 0)) for row in rows if row.stage != "test")


def inherited_epochs(rows: Sequence[Row]) -> Mapping[int, int]:
    """Epochs that each audit inherits from its search trial, by the id of the audit's row."""
    search = {(row.arm, row.block, row.ordinal): row.epoch for row in rows if row.stage == "search"}
    return {row.id: search[row.arm, row.block, row.ordinal] for row in rows if row.stage == "audit"}
