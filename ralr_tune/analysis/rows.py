"""Queries of a study's rows: the best, the judged, the scores by seed, the counts; one small question per function."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from statistics import fmean, median
from typing import Literal

from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, Row, Stage, StudyRecord

Split = Literal["validation", "test"]
Chosen = tuple[int, int]
"""(block, Optuna trial): a configuration that confirm judged."""
Standing = tuple[int, float, float, int, int]
"""Sort key for winners: number of choosing seeds, gain on them, gain in the search, then the earlier one first."""


def scored(rows: Iterable[Row]) -> list[tuple[Row, float]]:
    """The complete rows with their values; diverged, pruned, failed and unfinished rows are left out."""
    return [
        (row, row.value)
        for row in rows
        if row.outcome == "complete" and row.value is not None and math.isfinite(row.value)
    ]


def ranked(rows: Iterable[Row], metric: Metric) -> list[tuple[Row, float]]:
    """The complete rows, best first; ties go to the earlier one."""
    return sorted(scored(rows), key=lambda pair: (-metric.as_gain(pair[1]), pair[0].block, pair[0].ordinal))


def split_of(record: StudyRecord) -> Split:
    """ "test" when all rows of the test stage are done, otherwise "validation"."""
    tests = [row for arm in record.arms.values() for row in arm.rows if row.stage == "test"]
    return "test" if tests and all(row.state == "done" for row in tests) else "validation"


def stage_of(split: Split) -> Stage:
    """The stage whose rows hold a split's confirmed scores."""
    return "test" if split == "test" else "judge"


def standing(rows: Iterable[Row], metric: Metric) -> Callable[[Chosen], Standing]:
    """Sort key of the configurations of one arm, the best one highest, from all rows of the arm.

    Of those that got the most choosing seeds (the others were dropped on the way), the mean over them decides; a
    configuration with a seed without a score ranks last. The search value counts only if nothing was chosen: it is the
    maximum of many and biased upwards. Ties go to the earlier one. The judge's own scores must not decide: choosing and
    judging never share a seed.
    """
    fresh: dict[Chosen, list[float]] = defaultdict(list)
    searched: dict[Chosen, float] = {}
    for row in rows:
        if row.stage == "choose" and row.source is not None:
            fresh[row.block, row.source].append(_gain(row, metric))
        elif row.stage == "search" and row.trial is not None:
            searched[row.block, row.trial] = _gain(row, metric)

    def rank(candidate: Chosen) -> Standing:
        block, trial = candidate
        found = fresh.get(candidate, ())
        gain = fmean(found) if found else -math.inf
        return len(found), gain, searched.get(candidate, -math.inf), -block, -trial

    return rank


def _gain(row: Row, metric: Metric) -> float:
    return next((metric.as_gain(value) for _, value in scored([row])), -math.inf)


def winners(candidates: Iterable[Chosen], rank: Callable[[Chosen], Standing]) -> dict[int, Chosen]:
    """The best candidate of each block, by block."""
    blocks = groupby(sorted(candidates), key=lambda candidate: candidate[0])
    return {block: max(rivals, key=rank) for block, rivals in blocks}


def chosen(arm: ArmRecord, metric: Metric) -> Chosen | None:
    """The configuration that confirm judged; if each block has one, the one that did best when it was chosen."""
    return max(_judged_configurations(arm), key=standing(arm.rows, metric), default=None)


def chosen_by_block(arm: ArmRecord, metric: Metric) -> dict[int, Chosen]:
    """The judged winner of each block; if the budget grew after a judging, the one that did best when chosen."""
    return winners(_judged_configurations(arm), standing(arm.rows, metric))


def _judged_configurations(arm: ArmRecord) -> set[Chosen]:
    return {(row.block, row.source) for row in arm.stage("judge") if row.source is not None}


def scores(arm: ArmRecord, stage: Stage, role: str, candidate: Chosen) -> dict[int, float]:
    """Complete scores of one configuration by seed, in the order in which the seeds were planned."""
    found = [(row, value) for row, value in scored(arm.stage(stage, role)) if (row.block, row.source) == candidate]
    return {row.seed: value for row, value in sorted(found, key=lambda pair: pair[0].ordinal)}


def differences(own: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Own minus other, for the seeds (or blocks) that both have, in own's order."""
    return [value - other[key] for key, value in own.items() if key in other]


def lost(arm: ArmRecord, stage: Stage, role: str, candidate: Chosen) -> int:
    """Seeds of one configuration that ended without a score (diverged or failed)."""
    rows = [row for row in arm.stage(stage, role) if (row.block, row.source) == candidate and row.state == "done"]
    return len(rows) - len(scored(rows))


def block_scores(arm: ArmRecord, stage: Stage, metric: Metric) -> dict[int, dict[int, float]]:
    """{block: {seed: score}} of each block's judged winner."""
    found = {block: scores(arm, stage, "best", winner) for block, winner in chosen_by_block(arm, metric).items()}
    return {block: by_seed for block, by_seed in found.items() if by_seed}


def seconds_per_epoch(arm: ArmRecord) -> float | None:
    """Median over all timed epochs of the arm's search."""
    seconds = [epoch.seconds for row in arm.search() for epoch in row.curve if epoch.seconds > 0]
    return median(seconds) if seconds else None


def generalization_gap(rows: Iterable[Row]) -> float | None:
    """Mean of the value on training data minus the value on validation data, at the last epoch."""
    gaps = [row.train_value - value for row, value in scored(rows) if row.train_value is not None]
    return fmean(gaps) if gaps else None


def finished(arm: ArmRecord) -> list[Row]:
    """Search rows that fill the budget: complete, pruned or diverged, by block and ordinal."""
    rows = [row for row in arm.search() if row.outcome in ("complete", "pruned", "diverged")]
    return sorted(rows, key=lambda row: (row.block, row.ordinal))


def searched_epochs(rows: Iterable[Row]) -> dict[int, int]:
    """Epochs that each audit inherits from its search trial (0 if that has no row), by the id of the audit's row."""
    found = list(rows)
    search = {(row.arm, row.block, row.ordinal): row.epoch for row in found if row.stage == "search"}
    return {row.id: search.get((row.arm, row.block, row.ordinal), 0) for row in found if row.stage == "audit"}


def trained_epochs(rows: Iterable[Row]) -> int:
    """Epochs trained so far, in all stages; an audit counts only those that its search trial had not trained."""
    found = list(rows)
    inherited = searched_epochs(found)
    return sum(max(0, row.epoch - inherited.get(row.id, 0)) for row in found if row.stage != "test")


def search_counts(arm: ArmRecord) -> Mapping[str, int]:
    """budget, complete, pruned, diverged, failed, running and waiting search trials."""
    rows = arm.search()
    counts = Counter(row.outcome or {"held": "running", "free": "waiting"}.get(row.state, "failed") for row in rows)
    names = ("complete", "pruned", "diverged", "failed", "running", "waiting")
    return {"budget": len(rows), **{name: counts[name] for name in names}}


def failures(rows: Iterable[Row]) -> Mapping[str, int]:
    """Failed and diverged rows by kind of failure."""
    return dict(
        sorted(Counter(row.failure or "unknown" for row in rows if row.outcome in ("diverged", "failed")).items())
    )
