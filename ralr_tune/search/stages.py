"""The stages of a study (search, audit, choose, judge, test) and how the next one is planned.

Every worker calls `advance`. Under the study's lock, the first worker plans the stage; the others find its rows. Seeds
are pure functions of the study's seed and their purpose, so that planning a stage twice gives the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby, islice, zip_longest

from ralr_tune.analysis import rows as study_rows
from ralr_tune.errors import FailureKind, TrialError
from ralr_tune.records import Row, Stage
from ralr_tune.search.amplifying import additions, max_additions
from ralr_tune.search.audits import sampled
from ralr_tune.search.interim import analysis_seeds, wanted
from ralr_tune.seeds import derive_seed
from ralr_tune.store import studies
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec

STAGES: tuple[Stage, ...] = ("search", "audit", "choose", "judge", "test")


def plan_search(ledger: Ledger, spec: StudySpec, trials: int) -> None:
    """Plan exactly `trials` search rows for each arm and block; rows that a worker has started are never removed.

    Rows are claimed in the order of planning: ordinal by ordinal, arm by arm, so that all arms advance evenly. A
    training seed depends on block and ordinal only: it is the same in all arms.
    """
    ledger.plan(search_rows(spec, trials))
    for arm in spec.arms:
        for block in range(1, spec.search.blocks + 1):
            ledger.withdraw(arm, block, keep=trials)


def search_rows(spec: StudySpec, trials: int) -> Iterator[PlannedRow]:
    """The rows of a search of `trials` trials for each arm and block, in the order in which they are claimed."""
    for block in range(1, spec.search.blocks + 1):
        for ordinal in range(trials):
            seed = derive_seed("trial", spec.study.seed, block, ordinal)
            yield from (PlannedRow(arm, "search", block, ordinal, seed=seed) for arm in spec.arms)


def stage_rows(stage: Stage, spec: StudySpec, rows: Sequence[Row]) -> Iterator[PlannedRow]:
    """The rows of a stage after the search, planned or not. `rows`: all rows of the study."""
    return _PLANS[stage](spec, rows)


def advance(ledger: Ledger, storage: Storage, spec: StudySpec, until: Stage = "test") -> Stage | None:
    """The stage to work on now, planned if necessary; None when all stages up to and including `until` are done.

    The audits belong to the search. Raises TrialError if a failed row ends the study.
    """
    last: Stage = "audit" if until == "search" else until
    if _is_searching(ledger):
        return "search"
    with studies.study_lock(storage, spec.name):
        _raise_failed(ledger)
        for stage in STAGES[: STAGES.index(last) + 1]:
            if stage in _PLANS and not ledger.remaining(stage):
                ledger.plan(stage_rows(stage, spec, read_study(storage, spec.name, curves=False).rows()))
            if ledger.remaining(stage):
                return stage
    return None


def pending_stage(spec: StudySpec, rows: Sequence[Row]) -> Stage | None:
    """The first stage that is not done, planned or not; None when the study is done. Plans nothing."""
    if not rows:
        return "search"
    there = {_key(row) for row in rows}
    for stage in STAGES:
        planned = _PLANS[stage](spec, rows) if stage in _PLANS else ()
        if any(row.state != "done" for row in rows if row.stage == stage) or any(
            _key(row) not in there for row in planned
        ):
            return stage
    return None


def _key(row: Row | PlannedRow) -> tuple[str, Stage, int, int, str, int | None]:
    return row.arm, row.stage, row.block, row.ordinal, row.role, row.source


def _is_searching(ledger: Ledger) -> bool:
    """Whether search rows are left and none failed: one query, while hundreds of workers would wait for the lock."""
    counts = ledger.counts()
    failed = any(count.failed for count in counts.values())
    return not failed and any(
        count.waiting + count.running for (_, stage), count in counts.items() if stage == "search"
    )


def _raise_failed(ledger: Ledger) -> None:
    if not any(count.failed for count in ledger.counts().values()):
        return
    for row in ledger.rows(curves=False):
        if row.outcome == "failed":
            raise study_ended(row, row.failure or "bug", f"failed at attempt {row.attempt}: {row.message}")


def study_ended(row: Row, kind: FailureKind, what: str) -> TrialError:
    """The error for a row that ends the study: which row, what happened, and how to go on if the row is an audit."""
    way_out = "; an audit: with audit = 0 under [search], `run` continues without it" if row.stage == "audit" else ""
    return TrialError(kind, f"{describe(row)} {what}{way_out}")


def describe(row: Row) -> str:
    """A row as messages name it."""
    return f"arm {row.arm}, {row.stage} {row.ordinal}"


# ---------------------------------------------------------------- audit: pruned trials, trained to their end


def _plan_audit(spec: StudySpec, rows: Sequence[Row]) -> Iterator[PlannedRow]:
    """Same seed and configuration as in the search: what the trial would have been without pruning."""
    for row in sampled(spec, rows):
        yield _rerun(row, "audit", row.ordinal, row.seed, "")


def withdraw_audits(ledger: Ledger, spec: StudySpec) -> None:
    """Remove audits that are not done and that the current study file does not ask for."""
    rows = ledger.rows(curves=False)
    wanted = {_key(planned) for planned in _plan_audit(spec, rows)}
    ledger.drop(row for row in rows if row.stage == "audit" and _key(row) not in wanted)


# ---------------------------------------------------------------- choose: the best few of each arm, on fresh seeds


def choosing_seeds(spec: StudySpec) -> list[int]:
    """Half as many seeds as the first analysis judges, rounded up, at least 2 (our choice): choosing needs fewer."""
    count = max(2, math.ceil(analysis_seeds(spec)[0] / 2))
    return [derive_seed("choose", spec.study.seed, index) for index in range(count)]


def judging_seeds(spec: StudySpec, count: int, block: int = 1) -> list[int]:
    """The first `count` judge seeds: not used for choosing, and the same in every arm and for the twins.

    All blocks share them, so that recipes of two blocks can be compared. If the trials are divided among the blocks,
    each block has its own: a seed that all share would be a sample of its own (see `analysis.comparison`).
    """
    own = (block,) if spec.search.divided and block > 1 else ()
    return [derive_seed("judge", spec.study.seed, *own, index) for index in range(count)]


def finalists(spec: StudySpec, rows: Sequence[Row], arm: str) -> list[Row]:
    """The best `confirm.top` completed search rows of each block of an arm, best first; of equals, the earlier one."""
    searched = [row for row in rows if row.arm == arm and row.stage == "search"]
    ranked = [row for row, _ in study_rows.ranked(searched, spec.metric)]
    blocks = groupby(sorted(ranked, key=lambda row: row.block), key=lambda row: row.block)
    return [row for _, block in blocks for row in islice(block, spec.confirm.top)]


def _plan_choose(spec: StudySpec, rows: Sequence[Row]) -> Iterator[PlannedRow]:
    """An arm with a single finalist needs no rows. Rows alternate between arms, so that all arms advance evenly."""
    best = [found for arm in spec.arms if len(found := finalists(spec, rows, arm)) > 1]
    for ordinal, seed in enumerate(choosing_seeds(spec)):
        for turn in zip_longest(*best):
            yield from (_rerun(row, "choose", ordinal, seed, "best") for row in turn if row is not None)


# ---------------------------------------------------------------- judge: the winners and their twins, on further seeds


def winners(spec: StudySpec, rows: Sequence[Row], arm: str) -> list[Row]:
    """The search rows whose configurations represent an arm in the judge stage, one for each block, best first.

    Chosen among the current finalists and those from before the budget grew (see `analysis.rows.standing`). The winner
    of every block is judged, since the schedules themselves are compared over blocks.
    """
    own = [row for row in rows if row.arm == arm]
    finals = {(row.block, _number(row)) for row in finalists(spec, own, arm)}
    finals |= {_candidate(row) for row in own if row.stage == "choose"}
    searched = {(row.block, row.trial): row for row in own if row.stage == "search"}
    stands = study_rows.standing(own, spec.metric)
    best = study_rows.winners((each for each in finals if each in searched), stands)
    return [searched[each] for each in sorted(best.values(), key=stands, reverse=True)]


def _plan_judge(spec: StudySpec, rows: Sequence[Row]) -> Iterator[PlannedRow]:
    """Every block's winner; with `seeds = "auto"`, up to the next interim analysis.

    Only the best winner of an arm has a twin: no verdict uses those of the others.
    """
    chosen = {arm: winners(spec, rows, arm) for arm in spec.arms}
    added, count = list(additions(spec, chosen)), wanted(spec, rows, chosen)
    seeds = {block: judging_seeds(spec, count, block) for block in range(1, spec.search.blocks + 1)}
    for ordinal in range(count):
        for arm, found in chosen.items():
            yield from (_rerun(row, "judge", ordinal, seeds[row.block][ordinal], "best") for row in found)
            if spec.arms[arm].amplify is not None:
                yield from (_rerun(row, "judge", ordinal, seeds[row.block][ordinal], "twin") for row in found[:1])
        for each in added:
            seed = seeds[each.receiver.block][ordinal]
            yield replace(_rerun(each.receiver, "judge", ordinal, seed, each.role), params=each.params)


def judged_runs(spec: StudySpec) -> int:
    """The largest number of judge rows; also of test rows."""
    twins = sum(arm.amplify is not None for arm in spec.arms.values())
    return spec.confirm.max_seeds * (len(spec.arms) * spec.search.blocks + twins + max_additions(spec))


def _plan_test(spec: StudySpec, rows: Sequence[Row]) -> Iterator[PlannedRow]:
    """Each judged run of the current winners reads the test split once."""
    winning = {arm: winners(spec, rows, arm) for arm in spec.arms}
    chosen = {(row.arm, row.block, _number(row)) for row in chain.from_iterable(winning.values())}
    roles = {"best", "twin", *(each.role for each in additions(spec, winning))}
    for row in rows:
        judged = row.stage == "judge" and row.outcome == "complete" and row.role in roles
        if judged and (row.arm, *_candidate(row)) in chosen:
            yield PlannedRow(
                row.arm, "test", row.block, row.ordinal, row.seed, role=row.role, source=row.source, params=row.params
            )


_PLANS: dict[Stage, Callable[[StudySpec, Sequence[Row]], Iterator[PlannedRow]]] = {
    "audit": _plan_audit,
    "choose": _plan_choose,
    "judge": _plan_judge,
    "test": _plan_test,
}


def _rerun(row: Row, stage: Stage, ordinal: int, seed: int, role: str) -> PlannedRow:
    return PlannedRow(row.arm, stage, row.block, ordinal, seed, role=role, source=_number(row), params=row.params)


def _candidate(row: Row) -> study_rows.Chosen:
    assert row.source is not None
    return row.block, row.source


def _number(row: Row) -> int:
    assert row.trial is not None
    return row.trial
