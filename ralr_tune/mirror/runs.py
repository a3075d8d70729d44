"""What a tracker gets of a study: one run for each trial, and one for the study with its verdict. Pure.

Names depend on the plan alone, and a metric's points are sent in the order of their steps, so that a mirror that starts
again, here or on another machine, can compare what the tracker has with what the ledger has.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ralr_tune.records import Outcome, Row
from ralr_tune.secrecy import hidden

VERDICT = "verdict"
STUDY_RUN = "study"
"""Name of the run that holds the verdict."""


@dataclass(frozen=True)
class TrackedStudy:
    """One generation of a study."""

    key: str
    """The study's name; with the number of a later generation."""
    created: float
    """When the study was stored, by the database's clock: tells apart studies of one name in two databases."""
    metric: str

    @property
    def id(self) -> str:
        """The same wherever and whenever a mirror runs."""
        return _digest(self.key, repr(self.created))

    def run_id(self, name: str) -> str:
        """An id for one of its runs, unique among all studies."""
        return f"{self.id}-{_digest(name)}"


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    metric: str
    step: int
    """Epochs done; for metrics under "steps/", the program's own count."""
    value: float
    """Finite."""
    time: float | None
    """Seconds since 1970; None: now."""


@dataclass(frozen=True)
class TrackedRun:
    """One trial."""

    name: str
    """Of letters, digits and ".-_/%": ARM/STAGE-ORDINAL, with what else distinguishes it."""
    tags: Mapping[str, str]
    params: Mapping[str, str | int | float | bool]
    points: tuple[Point, ...] = field(repr=False)
    """Those of each metric in the order of their steps."""
    outcome: Outcome | None
    """None: it runs, or will go on."""
    message: str = ""
    """Why it failed or diverged; without secrets."""

    @property
    def epochs(self) -> int:
        return max((point.step for point in self.points if not point.metric.startswith("steps/")), default=0)


def tracked_run(study: TrackedStudy, row: Row) -> TrackedRun:
    """The run of a row that has begun. Rates and losses are known once it is done."""
    final = _final(study, row) if row.state == "done" else ()
    return TrackedRun(
        name=run_name(row),
        tags=_tags(study, row),
        params={name: _plain(value) for name, value in row.params.items()},
        points=(*_points(study, row), *final),
        outcome=row.outcome if row.state == "done" else None,
        message=hidden(row.message or "") if row.state == "done" else "",
    )


def run_name(row: Row) -> str:
    """A name that no other row of the study has, made of what the row was planned as."""
    source = "" if row.source is None else f"-of-{row.source}"
    block = "" if row.block == 1 else f"block-{row.block}-"
    role = f"-{row.role}" if row.role else ""
    return f"{quote(row.arm, safe='')}/{block}{row.stage}{quote(role, safe='')}{source}-{row.ordinal}"


def _tags(study: TrackedStudy, row: Row) -> dict[str, str]:
    known = {"arm": row.arm, "stage": row.stage, "block": row.block, "ordinal": row.ordinal, "seed": row.seed}
    more = {"role": row.role or None, "source": row.source, "trial": row.trial}
    return {"study": study.key} | {name: str(value) for name, value in (known | more).items() if value is not None}


def _points(study: TrackedStudy, row: Row) -> Iterator[Point]:
    seconds = 0.0
    for record in row.curve:
        seconds += record.seconds if math.isfinite(record.seconds) else math.nan
        time = row.started + seconds if row.started and math.isfinite(seconds) else None
        values = {
            f"validation/{study.metric}": record.value,
            "train/loss": record.train_loss,
            "learning_rate": record.lr,
            "amplification_factor": record.factor,
            "epoch_seconds": record.seconds,
        }
        yield from (Point(name, record.epoch, value, time) for name, value in values.items() if math.isfinite(value))
    for series in row.metrics:
        folder = {"epoch": "other", "step": "steps", "test": "test"}[series.axis]
        yield from (
            Point(f"{folder}/{series.name}", step, each, None) for step, each in series.points if each is not None
        )


def _final(study: TrackedStudy, row: Row) -> Iterator[Point]:
    """The value that counts: of the last epoch, or on the test split."""
    split = "test" if row.stage == "test" else "final"
    values = {f"{split}/{study.metric}": row.value, f"final/train_{study.metric}": row.train_value}
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            yield Point(name, row.epoch, value, row.finished)


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:12]
