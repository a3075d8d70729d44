"""`confirm.seeds = "auto"`: seeds are added until every verdict is settled, or until there are `confirm.most_seeds`.

Interim analyses take place after 5 seeds, after every third seed from there, and after the last one (our choice). Each
pairs every arm's winner with the baseline's, on validation values only: the test split is read once, after the last
analysis. `analysis.sequential` controls the error over all analyses. Search and report both use it, so that stopping
and the final verdict are one decision.

A pair in which a run diverged or failed does not count. An analysis waits until it has its planned number of pairs, but
there are never more than `most_seeds` seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ralr_tune.records import Row
from ralr_tune.studyfile import StudySpec

if TYPE_CHECKING:
    from ralr_tune.analysis.sequential import Plan

FIRST = 5
STEP = 3


def analysis_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Numbers of seeds at which an analysis takes place; only the fixed number if `confirm.seeds` is a number."""
    most = spec.confirm.max_seeds
    if spec.confirm.seeds != "auto":
        return (most,)
    return (*range(min(FIRST, most), most, STEP), most)


def plan_of(spec: StudySpec) -> Plan | None:
    """When the analyses take place and how they decide; None if the seeds are fixed or nothing is compared."""
    if spec.confirm.seeds != "auto" or len(spec.arms) < 2:
        return None
    from ralr_tune.analysis.sequential import Plan  # imported here: scipy.special adds 0.2 s to every worker's start

    return Plan(analysis_seeds(spec), spec.margin, spec.confirm.confidence, len(spec.arms) - 1, spec.metric)


def wanted(spec: StudySpec, rows: Sequence[Row], winners: Mapping[str, Sequence[Row]]) -> int:
    """How many seeds must be judged by now. `rows`: all rows of the study; `winners`: by arm, best first."""
    planned, plan = analysis_seeds(spec), plan_of(spec)
    if plan is None:
        return planned[0]
    judged = {arm: _judged(rows, found[0]) for arm, found in winners.items() if found}
    for seeds in planned:
        first = {arm: runs[:seeds] for arm, runs in judged.items()}
        if any(len(runs) < seeds or any(run.state != "done" for run in runs) for runs in first.values()):
            return seeds
        if _all_settled(first, spec.study.baseline, plan):
            return seeds
    return planned[-1]


def _judged(rows: Sequence[Row], winner: Row) -> list[Row]:
    """The judge rows of this configuration, in the order of their seeds."""
    own = (winner.arm, "judge", "best", winner.block, winner.trial)
    found = [row for row in rows if (row.arm, row.stage, row.role, row.block, row.source) == own]
    return sorted(found, key=lambda row: row.ordinal)


def _all_settled(judged: Mapping[str, Sequence[Row]], baseline: str, plan: Plan) -> bool:
    """Whether no arm's comparison needs another analysis."""
    from ralr_tune.analysis.rows import differences, scored
    from ralr_tune.analysis.sequential import next_analysis

    found = {arm: {row.seed: value for row, value in scored(runs)} for arm, runs in judged.items()}
    base = found.pop(baseline, {})
    return all(next_analysis(differences(own, base), plan).next_look is None for own in found.values())
