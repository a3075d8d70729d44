"""Two further claims of the paper, checked in the study: "without extra consumption" and "prevents overfitting".

Neither decides anything in a study; both are figures with an uncorrected t interval at the study's confidence (95%).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Interval, paired_test
from ralr_tune.records import ArmRecord, Row, StudyRecord

PairedBy = Literal["twin", "trial"]
"""twin: same configuration and seed; trial: search trials of the same block and number, so the same seed only."""


@dataclass(frozen=True)
class Cost:
    """The duration of an epoch, as a ratio of paired runs."""

    arm: str
    against: str
    """The arm itself if it is paired with its twin."""
    paired_by: PairedBy
    ratio: float
    """Geometric mean of this arm's seconds per epoch divided by the other's; above 1: slower."""
    interval: Interval | None
    """From a t interval of the mean log ratio; None below two pairs."""
    n: int
    seconds: float
    """Median over this arm's paired runs of their median seconds per epoch."""
    against_seconds: float


@dataclass(frozen=True)
class GapDifference:
    """An arm's gap minus another's, over paired seeds; below 0: this arm overfits less."""

    against: str
    twin: bool
    """Whether the other is this arm's own twin (then `against` is the arm itself)."""
    difference: float
    interval: Interval | None
    n: int
    verdict: Literal["less", "more", "no difference shown"]


@dataclass(frozen=True)
class Overfitting:
    """How much better an arm's confirmed configuration scores on training than on validation data, at the end."""

    arm: str
    gap: float
    """Mean over seeds, in the metric's own unit; positive: better on the training data, in either direction."""
    interval: Interval | None
    n: int
    differences: tuple[GapDifference, ...]


def costs(record: StudyRecord) -> tuple[Cost, ...]:
    """Each arm's epochs against its twin's, if it has one, and against the baseline's in search."""
    base = record.arms.get(record.baseline)
    found = []
    for arm in record.arms.values():
        own, twin = (_timed(arm.stage("judge", role), seeds=True) for role in ("best", "twin"))
        found.append(_cost(record, arm.name, arm.name, "twin", own, twin))
        if base is not None and arm.name != base.name:
            searched = (_timed(each.search(), seeds=False) for each in (arm, base))
            found.append(_cost(record, arm.name, base.name, "trial", *searched))
    return tuple(cost for cost in found if cost is not None)


def overfitting(record: StudyRecord) -> tuple[Overfitting, ...]:
    """One for each arm with a confirmed configuration whose training value is known."""
    gaps = {name: _gaps(record, arm, "best") for name, arm in record.arms.items()}
    return tuple(_overfitting(record, arm, gaps) for arm in record.arms.values() if gaps[arm.name])


def _timed(rows: tuple[Row, ...], *, seeds: bool) -> dict[Hashable, float]:
    """Seconds per epoch (median of a run's timed epochs), by the key that pairs runs."""
    timed: dict[Hashable, float] = {}
    for row in rows:
        seconds = [epoch.seconds for epoch in row.curve if 0 < epoch.seconds < math.inf]
        if row.outcome in ("complete", "pruned") and seconds:
            timed[(row.block, row.source, row.seed) if seeds else (row.block, row.ordinal)] = median(seconds)
    return timed


def _cost(
    record: StudyRecord,
    arm: str,
    against: str,
    paired_by: PairedBy,
    own: Mapping[Hashable, float],
    other: Mapping[Hashable, float],
) -> Cost | None:
    both = [key for key in own if key in other]
    if not both:
        return None
    ratios = [math.log(own[key] / other[key]) for key in both]
    test = paired_test(ratios, margin=0.0, confidence=record.confidence)
    return Cost(
        arm=arm,
        against=against,
        paired_by=paired_by,
        ratio=math.exp(test.difference),
        interval=(math.exp(test.interval[0]), math.exp(test.interval[1])) if test.interval else None,
        n=len(both),
        seconds=median(own[key] for key in both),
        against_seconds=median(other[key] for key in both),
    )


def _gaps(record: StudyRecord, arm: ArmRecord, role: str) -> dict[int, float]:
    """Gap of the arm's confirmed configuration by judging seed."""
    candidate = study_rows.chosen(arm, record.metric)
    return {
        row.seed: record.metric.gain(row.train_value, value)
        for row, value in study_rows.scored(arm.stage("judge", role))
        if (row.block, row.source) == candidate and row.train_value is not None and math.isfinite(row.train_value)
    }


def _overfitting(record: StudyRecord, arm: ArmRecord, gaps: Mapping[str, Mapping[int, float]]) -> Overfitting:
    own = gaps[arm.name]
    test = paired_test(list(own.values()), margin=0.0, confidence=record.confidence)
    others = [(arm.name, True, _gaps(record, arm, "twin"))]
    if arm.name != record.baseline:
        others.append((record.baseline, False, dict(gaps.get(record.baseline, {}))))
    differences = [_difference(record, against, twin, own, other) for against, twin, other in others]
    known = tuple(difference for difference in differences if difference is not None)
    return Overfitting(arm.name, fmean(own.values()), test.interval, len(own), known)


def _difference(
    record: StudyRecord, against: str, twin: bool, own: Mapping[int, float], other: Mapping[int, float]
) -> GapDifference | None:
    pairs = study_rows.differences(own, other)
    if not pairs:
        return None
    test = paired_test(pairs, margin=0.0, confidence=record.confidence)
    shown = test.p_value is not None and test.p_value <= 1 - record.confidence
    verdict: Literal["less", "more"] = "less" if test.difference < 0 else "more"
    found = verdict if shown else "no difference shown"
    return GapDifference(against, twin, test.difference, test.interval, len(pairs), found)
