"""`confirm.seeds = "auto"`: seeds are added until every verdict stands, or `confirm.most_seeds` are there.

One looks after 5 seeds, after every third one from there, and after the last (ours). A look pairs the winner of each
arm with the baseline's, on validation values alone: the test split is read once, after the last look. The correction
that keeps the error over all looks is `analysis.sequential`'s, which search asks as the report does: whether one goes
on and what is said in the end must be one decision.

A pair of which one run diverged or failed is none; looks wait for as many pairs as they were planned for, and the
seeds never are more than `most_seeds`.
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
    """Numbers of seeds at which one looks; the fixed number alone where it is one."""
    most = spec.confirm.max_seeds
    if spec.confirm.seeds != "auto":
        return (most,)
    return (*range(min(FIRST, most), most, STEP), most)


def plan_of(spec: StudySpec) -> Plan | None:
    """When one looks and by what one judges; None where the number of seeds is fixed or nothing is compared."""
    if spec.confirm.seeds != "auto" or len(spec.arms) < 2:
        return None
    from ralr_tune.analysis.sequential import Plan  # scipy.special: 0.2 s of every worker's start

    return Plan(analysis_seeds(spec), spec.margin, spec.confirm.confidence, len(spec.arms) - 1, spec.metric)


def wanted(spec: StudySpec, rows: Sequence[Row], winners: Mapping[str, Sequence[Row]]) -> int:
    """How many seeds are to be judged by now. `rows`: all of the study; `winners`: by arm, best first."""
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
    """The judged runs of this configuration, in the order of their seeds."""
    own = (winner.arm, "judge", "best", winner.block, winner.trial)
    found = [row for row in rows if (row.arm, row.stage, row.role, row.block, row.source) == own]
    return sorted(found, key=lambda row: row.ordinal)


def _all_settled(judged: Mapping[str, Sequence[Row]], baseline: str, plan: Plan) -> bool:
    """Whether no arm's comparison goes on."""
    from ralr_tune.analysis.rows import differences, scored
    from ralr_tune.analysis.sequential import next_analysis

    found = {arm: {row.seed: value for row, value in scored(runs)} for arm, runs in judged.items()}
    base = found.pop(baseline, {})
    return all(next_analysis(differences(own, base), plan).next_look is None for own in found.values())
