"""What pruning cost: audited trials (pruned, then trained to their end) compared with the complete ones.

The definitions are our choice. A pruning was *wrong* if the trial, trained to its end, is better than the median final
value of its arm's complete trials: it belonged to the better half. It *lost the best* if it ends better than all of
them. If a trial diverges when trained further, pruning it was right. Arms are compared by Fisher's exact test (Fisher
1922), Holm-adjusted: if a pruner errs more in one arm, the search was not fair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from scipy import stats

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Interval, holm
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, Row, StudyRecord

MIN_AUDITS = 10
"""Minimum number of audited trials; with fewer, no rate is reported: 0 of 9 is still compatible with 34% wrong."""


class Audited(NamedTuple):
    """One pruned trial that was trained to its end."""

    arm: str
    epoch: int
    """Completed epochs when the pruner stopped it."""
    tail: Sequence[float]
    """Its validation values of all epochs after that, in order; the last one is its final value, NaN if it diverged."""
    amplified: bool = False
    """Whether the rate of its last epoch was amplified."""


@dataclass(frozen=True)
class PruningAudit:
    """One arm's audited prunings."""

    arm: str
    audited: int
    """Trials trained to their end, or until they diverged, in an arm with complete trials."""
    wrong: int
    rate: float | None
    """wrong / audited; None below 10 audited."""
    interval: Interval | None
    """95%, Clopper and Pearson 1934; None below 10 audited."""
    lost_best: int
    """Audited trials that end better than all complete ones."""
    cost: float | None
    """How much better the best audited trial is than the best complete one, in the metric's own unit, at least 0; None
    without audited trials."""
    epoch: float | None
    """Median epoch at which the pruner stopped them."""
    spared: float | None
    """Mean number of epochs that such a pruning saves."""
    pruned: int = 0
    """Search trials that the pruner stopped, audited or not."""
    waiting: int = 0
    """Audits that are planned but not done."""
    ended_amplified: int = 0
    """Wrong ones whose last epoch was amplified: what that epoch did to the value, no pruner could foresee."""


@dataclass(frozen=True)
class PruningGap:
    """Two arms whose rates of wrong prunings were compared."""

    arm: str
    against: str
    p_value: float
    differ: bool
    """p_value at most 0.05."""


def study_audits(record: StudyRecord) -> tuple[PruningAudit, ...]:
    """One for each arm with pruned trials."""
    finals = {name: [value for _, value in study_rows.scored(arm.search())] for name, arm in record.arms.items()}
    audited = [each for arm in record.arms.values() for each in _audited(arm)]
    found = (
        replace(audit, pruned=len(_pruned(record.arms[audit.arm])), waiting=_waiting(record.arms[audit.arm]))
        for audit in pruning_audit(audited, finals, metric=record.metric)
    )
    return tuple(audit for audit in found if audit.pruned)


def _pruned(arm: ArmRecord) -> list[Row]:
    return [row for row in arm.search() if row.outcome == "pruned"]


def _waiting(arm: ArmRecord) -> int:
    return sum(row.stage == "audit" and row.state != "done" for row in arm.rows)


def _audited(arm: ArmRecord) -> Iterator[Audited]:
    """The finished audits; failed ones are left out."""
    stopped = {(row.block, row.ordinal): row.epoch for row in _pruned(arm)}
    for row in arm.rows:
        if row.stage == "audit" and row.outcome in ("complete", "diverged") and (row.block, row.ordinal) in stopped:
            epoch = stopped[row.block, row.ordinal]
            tail = [record.value for record in row.curve if record.epoch > epoch]
            ended = [*tail] if row.outcome == "complete" else [*tail, math.nan]
            yield Audited(arm.name, epoch, ended, _ended_amplified(arm, row))


def _ended_amplified(arm: ArmRecord, row: Row) -> bool:
    """At step granularity no epoch is amplified more than another, and the record has only the first step's factor."""
    settings = {**arm.settings, **row.params}
    return settings.get("amplify.granularity") == "epoch" and bool(row.curve) and row.curve[-1].factor > 1


def pruning_audit(
    audited: Sequence[Audited], finals: Mapping[str, Sequence[float]], *, metric: Metric
) -> tuple[PruningAudit, ...]:
    """One for each arm of `finals`, which holds the final values of each arm's complete trials."""
    return tuple(
        _audit(arm, [each for each in audited if each.arm == arm], _gains(metric, values), metric)
        for arm, values in finals.items()
    )


def pruning_gaps(audits: Sequence[PruningAudit], baseline: str) -> tuple[PruningGap, ...]:
    """Each arm against the baseline, if both have a rate."""
    by_arm = {audit.arm: audit for audit in audits if audit.rate is not None}
    base = by_arm.pop(baseline, None)
    if base is None:
        return ()
    tables = [
        [[each.wrong, each.audited - each.wrong], [base.wrong, base.audited - base.wrong]] for each in by_arm.values()
    ]
    adjusted = holm([float(stats.fisher_exact(np.array(table)).pvalue) for table in tables])
    return tuple(PruningGap(arm, baseline, p, p <= 0.05) for arm, p in zip(by_arm, adjusted, strict=True))


def _gains(metric: Metric, values: Sequence[float]) -> list[float]:
    """The finite values as gains."""
    return [metric.as_gain(value) for value in values if math.isfinite(value)]


def _audit(arm: str, audited: Sequence[Audited], finals: Sequence[float], metric: Metric) -> PruningAudit:
    ended = [each for each in audited if each.tail]
    if not ended or not finals:
        return PruningAudit(arm, 0, 0, None, None, 0, None, None, None)
    gains = [metric.as_gain(each.tail[-1]) if math.isfinite(each.tail[-1]) else -math.inf for each in ended]
    wrongly = [each for each, gain in zip(ended, gains, strict=True) if gain > median(finals)]
    n, wrong = len(gains), len(wrongly)
    known = n >= MIN_AUDITS
    return PruningAudit(
        arm=arm,
        audited=n,
        wrong=wrong,
        rate=wrong / n if known else None,
        interval=share_interval(wrong, n) if known else None,
        lost_best=sum(gain > max(finals) for gain in gains),
        cost=max(0.0, max(gains) - max(finals)),
        epoch=median(each.epoch for each in ended),
        spared=fmean(len(each.tail) for each in ended),
        ended_amplified=sum(each.amplified for each in wrongly),
    )


def share_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a share (Clopper and Pearson 1934)."""
    found = stats.binomtest(count, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)
