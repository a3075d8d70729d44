"""What a study has cost so far: trials, epochs, device time and, if an hour has a price, money."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ralr_tune.analysis import rows as study_rows
from ralr_tune.records import Row, Stage, StudyRecord

CONFIRM: tuple[Stage, ...] = ("choose", "judge", "test")
JUDGE: tuple[Stage, ...] = ("judge", "test")


@dataclass(frozen=True)
class Use:
    """What some runs used."""

    runs: int
    """Runs that have ended; reading the test split with a trained network is not counted."""
    epochs: int
    """Trained, interrupted attempts excluded."""
    seconds: float
    """Device time: the wall seconds of all runs, each on one device or share of it."""


@dataclass(frozen=True)
class Spending:
    """What a study has used, and what more of it would use."""

    search: Use
    audit: Use
    """Pruned trials that were trained to their end."""
    confirm: Use
    seed: Use
    """One more seed for everything that is judged, as the judged seeds so far have cost; zero before any is judged."""
    blocks: int
    """Blocks of search."""
    open: int
    """Planned runs that have not ended."""
    cost_per_hour: float | None
    """Of one device, in the user's currency."""

    @property
    def total(self) -> Use:
        """Search, audits and confirmation together."""
        return _sum([self.search, self.audit, self.confirm])

    @property
    def block(self) -> Use:
        """One more block of search of every arm, with its confirmation."""
        return times(self.total, 1 / max(1, self.blocks))

    def money(self, use: Use) -> float | None:
        """What this use costs; None if an hour has no price."""
        return None if self.cost_per_hour is None else use.seconds / 3600 * self.cost_per_hour


def spending(record: StudyRecord) -> Spending:
    """From the rows of the study; its price per hour is the study file's."""
    rows = record.rows()
    inherited = study_rows.searched_epochs(rows)
    judged = [row for row in rows if row.stage in JUDGE]
    seeds = len({row.seed for row in judged if row.state == "done"})
    judge = _use(judged, inherited)
    return Spending(
        search=_use([row for row in rows if row.stage == "search"], inherited),
        audit=_use([row for row in rows if row.stage == "audit"], inherited),
        confirm=_use([row for row in rows if row.stage in CONFIRM], inherited),
        seed=times(judge, 1 / seeds) if seeds else Use(0, 0, 0.0),
        blocks=len({row.block for row in rows if row.stage == "search"}),
        open=sum(row.state != "done" for row in rows),
        cost_per_hour=record.cost_per_hour,
    )


def times(use: Use, factor: float) -> Use:
    """A multiple of a use, in whole runs and epochs."""
    return Use(round(use.runs * factor), round(use.epochs * factor), use.seconds * factor)


def _use(rows: Iterable[Row], inherited: dict[int, int]) -> Use:
    rows = list(rows)
    trained = [row for row in rows if row.stage != "test"]
    return Use(
        runs=sum(row.state == "done" for row in trained),
        epochs=sum(max(0, row.epoch - inherited.get(row.id, 0)) for row in trained),
        seconds=sum(row.seconds for row in rows if row.seconds is not None and math.isfinite(row.seconds)),
    )


def _sum(uses: Iterable[Use]) -> Use:
    uses = list(uses)
    return Use(sum(use.runs for use in uses), sum(use.epochs for use in uses), sum(use.seconds for use in uses))
