from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from ralr_tune.analysis.rows import chosen, chosen_by_block
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.errors import TrialError
from ralr_tune.records import ArmRecord, Row, Stage
from ralr_tune.search.session import Session
from ralr_tune.search.stages import (
    advance,
    choosing_seeds,
    finalists,
    judged_runs,
    judging_seeds,
    pending_stage,
    plan_search,
    race,
    stage_rows,
    winners,
)
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.seeds import derive_seed
from ralr_tune.store.ledger import PlannedRow
from ralr_tune.store.reading import read_study
from tests.metrics import ACCURACY
from tests.search.conftest import MakeSession
from tests.studies import simulated


def a_row(arm: str, stage: Stage, value: float | None, **changes: Any) -> Row:
    fields: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    fields |= {"id": 0, "block": 1, "ordinal": 0, "role": "", "seed": 0, "params": {}, "attempt": 1, "epoch": 6}
    fields |= {"arm": arm, "stage": stage, "state": "done", "outcome": "complete", "value": value, "curve": ()}
    return Row(**fields | changes)


def work_until_done(session: Session, until: Stage = "test") -> None:
    """What a worker does."""
    while (stage := advance(session.ledger, session.storage, session.spec, until)) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)


def by_stage(rows: Iterable[Row], stage: Stage) -> list[Row]:
    return [row for row in rows if row.stage == stage]


def test_search_rows_advance_all_arms_evenly_on_equal_seeds(make_session: MakeSession) -> None:
    session = make_session(simulated(search={"trials": 3, "blocks": 2}))
    rows = session.ledger.rows()
    order = [(row.block, row.ordinal, row.arm) for row in rows]
    assert order == [(b, o, arm) for b in (1, 2) for o in range(3) for arm in ("monotone", "ralr")]
    seeds: dict[tuple[int, int], set[int]] = {}
    for row in rows:
        seeds.setdefault((row.block, row.ordinal), set()).add(row.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 6
    assert rows[0].seed == derive_seed("trial", 0, 1, 0)


def test_the_budget_grows_and_shrinks_but_started_rows_stay(make_session: MakeSession) -> None:
    session = make_session(simulated(search={"trials": 2}))
    plan_search(session.ledger, session.spec, 4)
    assert len(session.ledger.rows()) == 8
    begun = session.ledger.claim("me", "search")
    assert begun is not None
    plan_search(session.ledger, session.spec, 1)
    assert {(row.arm, row.ordinal) for row in session.ledger.rows()} == {("monotone", 0), ("ralr", 0)}


def test_a_whole_study_has_the_rows_of_its_design(make_session: MakeSession) -> None:
    session = make_session(simulated())
    work_until_done(session)
    rows = session.ledger.rows()
    assert all(row.state == "done" for row in rows)
    assert len(by_stage(rows, "search")) == 8
    assert len(by_stage(rows, "choose")) == 2 * 2 * 2  # arms, top, ceil(3 / 2) seeds
    judged = [(row.arm, row.part) for row in by_stage(rows, "judge")]
    assert sorted(set(judged)) == [("monotone", "amplified"), ("monotone", "best"), ("ralr", "best"), ("ralr", "twin")]
    assert len(judged) == 12
    assert len(by_stage(rows, "test")) == 12


def test_no_seed_has_two_purposes_and_arms_share_seeds(make_session: MakeSession) -> None:
    session = make_session(simulated())
    work_until_done(session)
    seeds = {stage: {row.seed for row in session.ledger.rows(stage)} for stage in ("search", "choose", "judge", "test")}
    assert seeds["choose"] == set(choosing_seeds(session.spec))
    assert seeds["judge"] == seeds["test"] == set(judging_seeds(session.spec, 3))
    assert not seeds["search"] & seeds["choose"]
    assert not seeds["search"] & seeds["judge"]
    assert not seeds["choose"] & seeds["judge"]
    for stage in ("judge", "test"):
        groups = {(row.arm, row.role): [] for row in session.ledger.rows(stage)}  # type: ignore[var-annotated]
        for row in session.ledger.rows(stage):
            groups[row.arm, row.role].append(row.seed)
        assert list(groups.values()) == [judging_seeds(session.spec, 3)] * 4


def test_a_twin_differs_only_where_amplification_drew_a_factor(make_session: MakeSession) -> None:
    session = make_session(simulated())
    work_until_done(session)
    judged = {(row.role, row.seed): row for row in session.ledger.rows("judge") if row.arm == "ralr"}
    for seed in judging_seeds(session.spec, 3):
        best, twin = judged["best", seed], judged["twin", seed]
        assert (best.params, best.source) == (twin.params, twin.source)
        assert all(record.factor == 1.0 for record in twin.curve)
        amplified = [a.lr / a.factor for a in best.curve]
        assert amplified == pytest.approx([b.lr for b in twin.curve])


def test_two_runs_with_one_worker_give_the_same_numbers(make_session: MakeSession, tmp_path: Any) -> None:
    found = []
    for name in ("a", "b"):
        session = make_session(simulated(), url=f"sqlite:///{tmp_path}/{name}.db")
        work_until_done(session)
        record = read_study(session.storage, "sim")
        found.append([(row.arm, row.stage, row.ordinal, row.seed, row.params, row.value) for row in record.rows()])
    assert found[0] == found[1]
    assert all(row[5] is not None for row in found[0])


def test_the_winner_is_the_best_on_the_choosing_seeds_only() -> None:
    spec = simulated(arms={"monotone": {}})
    search = [a_row("monotone", "search", value, trial=n, ordinal=n) for n, value in enumerate([0.9, 0.8, 0.7])]
    fresh = [(0, 0.5), (0, 0.6), (1, 0.7), (1, 0.6)]
    choose = [a_row("monotone", "choose", value, source=n, role="best") for n, value in fresh]
    assert [row.trial for row in finalists(spec, search, "monotone")] == [0, 1]
    assert [row.trial for row in winners(spec, [*search, *choose], "monotone")] == [1]


@pytest.mark.parametrize(
    ("rivals", "seeds", "left"),
    [(1, 3, [1, 1, 1]), (2, 3, [2, 2, 2]), (3, 3, [3, 2, 2]), (5, 3, [5, 3, 2]), (9, 5, [9, 5, 3, 2, 2])],
)
def test_a_race_drops_the_worse_half_after_each_seed(rivals: int, seeds: int, left: list[int]) -> None:
    assert race(rivals, seeds) == left


def test_finalists_race_until_two_are_left() -> None:
    spec = simulated(arms={"monotone": {}}, confirm={"top": 5, "seeds": 5})
    rows = [a_row("monotone", "search", 0.9 - 0.1 * n, trial=n, ordinal=n) for n in range(6)]
    seeds = choosing_seeds(spec)

    def further() -> list[PlannedRow]:
        there = {(row.source, row.ordinal) for row in rows if row.stage == "choose"}
        return [row for row in stage_rows("choose", spec, rows) if (row.source, row.ordinal) not in there]

    def run(planned: PlannedRow, value: float | None) -> None:
        ended = "diverged" if value is None else "complete"
        fields = {"source": planned.source, "ordinal": planned.ordinal, "role": planned.role}
        rows.append(a_row("monotone", "choose", value, outcome=ended, **fields))

    fresh = [[0.1, 0.2, 0.9, None, 0.3], [0.5, 0.6, 0.1], [0.4, 0.2]]
    for ordinal, (raced, values) in enumerate(zip(([0, 1, 2, 3, 4], [2, 4, 1], [2, 4]), fresh, strict=True)):
        planned = further()
        assert [(row.source, row.seed) for row in planned] == [(source, seeds[ordinal]) for source in raced]
        for row, value in zip(planned[:-1], values[:-1], strict=True):
            run(row, value)
        assert further() == planned[-1:]  # not dropped before all runs of the seed are done
        run(planned[-1], values[-1])
    assert further() == []
    # means: trial 2 (0.9 + 0.5 + 0.4) / 3, trial 4 (0.3 + 0.6 + 0.2) / 3, trial 1 dropped
    assert [row.trial for row in winners(spec, rows, "monotone")] == [2]


def test_the_winners_of_blocks_race_if_each_block_has_one_finalist() -> None:
    spec = simulated(arms={"monotone": {}}, search={"trials": 2, "blocks": 4}, confirm={"top": 1, "seeds": 5})
    rows = [a_row("monotone", "search", 0.5, trial=0, block=block) for block in range(1, 5)]
    rows += [
        a_row("monotone", "choose", 0.1 * block, source=0, block=block, ordinal=0, role="best") for block in range(1, 5)
    ]
    planned = [(row.block, row.ordinal) for row in stage_rows("choose", spec, rows)]
    assert planned == [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (3, 1), (4, 2), (3, 2)]
    assert [row.block for row in winners(spec, rows, "monotone")] == [4, 3, 2, 1]  # each block has one, the best first


def test_who_was_dropped_cannot_win() -> None:
    spec = simulated(arms={"monotone": {}}, confirm={"top": 3, "seeds": 5})
    rows = [a_row("monotone", "search", 0.9 - 0.1 * n, trial=n, ordinal=n) for n in range(3)]
    fresh = {0: (0.8, 0.1, 0.1), 1: (0.7,), 2: (0.9, 0.2, 0.1)}
    rows += [
        a_row("monotone", "choose", value, source=trial, ordinal=ordinal, role="best")
        for trial, values in fresh.items()
        for ordinal, value in enumerate(values)
    ]
    assert [row.trial for row in winners(spec, rows, "monotone")] == [2]


def test_diverged_and_pruned_trials_are_not_finalists() -> None:
    spec = simulated(arms={"monotone": {}})
    rows = [
        a_row("monotone", "search", 0.99, trial=0, outcome="pruned"),
        a_row("monotone", "search", None, trial=1, outcome="diverged"),
        a_row("monotone", "search", 0.5, trial=2, ordinal=2),
    ]
    assert [row.trial for row in finalists(spec, rows, "monotone")] == [2]
    assert winners(spec, rows[:2], "monotone") == []


def test_a_winner_from_before_the_budget_grew_still_competes() -> None:
    spec = simulated(arms={"monotone": {}})
    search = [a_row("monotone", "search", 0.5 + 0.1 * n, trial=n, ordinal=n) for n in range(4)]
    choose = [a_row("monotone", "choose", value, source=n, role="best") for n, value in enumerate([0.9, 0.6, 0.7, 0.8])]
    assert [row.trial for row in finalists(spec, search, "monotone")] == [3, 2]
    assert [row.trial for row in winners(spec, [*search, *choose], "monotone")] == [0]
    judge = [a_row("monotone", "judge", 0.5, source=n, role="best", seed=n) for n in (0, 3)]
    assert chosen(ArmRecord("monotone", {}, (*search, *choose, *judge)), ACCURACY) == (1, 0)


@pytest.mark.parametrize(("metric", "sign"), [("value", 1), ("error", -1)])
def test_report_and_stages_choose_by_the_same_rule(metric: str, sign: int) -> None:
    spec = simulated(study={"metric": metric}, arms={"monotone": {}})
    values = {(1, 0): 0.9, (1, 1): 0.8, (2, 0): 0.7, (2, 1): 0.6}
    search = [
        a_row("monotone", "search", sign * value, trial=n, ordinal=n, block=block)
        for (block, n), value in values.items()
    ]
    fresh = {(1, 0): (0.5, 0.9), (1, 1): (0.6, 0.7), (2, 0): (0.99, None), (2, 1): (0.1, 0.2)}
    choose = [
        a_row(
            "monotone", "choose", None if value is None else sign * value, source=n, role="best", block=block,
            outcome="diverged" if value is None else "complete",
        )
        for (block, n), found in fresh.items()
        for value in found
    ]  # fmt: skip
    found = winners(spec, [*search, *choose], "monotone")
    assert [(row.block, row.trial) for row in found] == [(1, 0), (2, 1)]  # one seed without a score: last
    judge = [a_row("monotone", "judge", 0.5, source=row.trial, block=row.block, role="best") for row in found]
    arm = ArmRecord("monotone", {}, (*search, *choose, *judge))
    assert chosen(arm, spec.metric) == (1, 0)
    assert chosen_by_block(arm, spec.metric) == {1: (1, 0), 2: (2, 1)}


def test_the_trials_of_a_divided_search_are_those_of_all_blocks_each_judged_on_its_own_seeds(
    make_session: MakeSession,
) -> None:
    search = {"trials": 6, "blocks": 3, "divided": True, "sampler": "random"}
    session = make_session(simulated(search=search, confirm={"top": 1, "seeds": 2}))
    work_until_done(session)
    rows = session.ledger.rows()
    assert Counter((row.arm, row.block) for row in by_stage(rows, "search")) == dict.fromkeys(
        ((arm, block) for arm in ("monotone", "ralr") for block in (1, 2, 3)), 2
    )
    seeds = {arm: [set[int]() for _ in range(3)] for arm in ("monotone", "ralr")}
    for row in by_stage(rows, "judge"):
        if row.role == "best":
            seeds[row.arm][row.block - 1].add(row.seed)
    assert seeds["monotone"] == seeds["ralr"], "pairs of a block share its seeds"
    assert len(set.union(*seeds["ralr"])) == 6
    assert sum(row.stage == "judge" for row in rows) == judged_runs(session.spec)
    made = arm_verdicts(read_study(session.storage, "sim"), "test").made
    assert [each.n for each in made] == [3]
    assert made[0].interval is not None, "two seeds a block are enough: no seed is shared"


def test_every_block_has_a_winner_and_the_best_chosen_comes_first(make_session: MakeSession) -> None:
    spec = simulated(search={"trials": 2, "blocks": 2}, confirm={"top": 1, "seeds": 2})
    session = make_session(spec)
    work_until_done(session)
    rows = session.ledger.rows()
    roles = {(row.arm, row.block, row.part) for row in by_stage(rows, "judge")}
    base, _ = winners(spec, rows, "monotone")
    first, second = winners(spec, rows, "ralr")
    assert roles == {
        *((arm, block, "best") for arm in ("monotone", "ralr") for block in (1, 2)),
        ("ralr", first.block, "twin"),
        ("monotone", base.block, "amplified"),
    }
    fresh = {row.block: [] for row in (first, second)}  # type: ignore[var-annotated]
    for row in by_stage(rows, "choose"):
        if row.arm == "ralr":
            fresh[row.block].append(row.value)
    assert sum(fresh[first.block]) > sum(fresh[second.block])


def test_one_finalist_is_judged_without_choosing(make_session: MakeSession) -> None:
    session = make_session(simulated(confirm={"top": 1, "seeds": 2}))
    work_until_done(session)
    assert session.ledger.rows("choose") == []
    assert len(session.ledger.rows("judge")) == 8


def test_until_search_stops_after_the_search(make_session: MakeSession) -> None:
    session = make_session(simulated(search={"trials": 2}))
    work_until_done(session, until="search")
    assert {row.stage for row in session.ledger.rows()} == {"search"}
    assert pending_stage(session.spec, session.ledger.rows()) == "choose"
    work_until_done(session)
    assert pending_stage(session.spec, session.ledger.rows()) is None


def test_a_larger_budget_after_the_end_is_searched_and_confirmed_again(make_session: MakeSession) -> None:
    session = make_session(simulated())
    work_until_done(session)
    before = session.ledger.rows("judge")
    plan_search(session.ledger, session.spec, 6)
    assert advance(session.ledger, session.storage, session.spec) == "search"
    work_until_done(session)
    after = session.ledger.rows("judge")
    assert len(session.ledger.rows("search")) == 12
    assert after[: len(before)] == before  # earlier results stay
    sources = {row.source for row in after if row.arm == "ralr"}
    (winner,) = winners(session.spec, session.ledger.rows(), "ralr")
    assert winner.trial in sources
    arm = read_study(session.storage, "sim").arms["ralr"]
    assert chosen(arm, ACCURACY) == (1, winner.trial)  # report and export agree


def test_a_study_whose_trials_all_diverge_ends(make_session: MakeSession) -> None:
    spec = simulated(task={"data": {"diverges_above": 1e-9}})
    session = make_session(spec)
    work_until_done(session)
    assert {row.outcome for row in session.ledger.rows()} == {"diverged"}
    assert pending_stage(spec, session.ledger.rows()) is None


def test_a_failed_row_ends_the_study_with_its_reason(make_session: MakeSession) -> None:
    session = make_session(simulated())
    row = session.ledger.claim("me", "search")
    assert row is not None
    session.ledger.fail(row, kind="bug", message="ValueError: no", retry=False)
    with pytest.raises(TrialError, match=r"monotone, search 0 failed .*ValueError: no"):
        advance(session.ledger, session.storage, session.spec)
    session.ledger.reopen_failed()
    assert advance(session.ledger, session.storage, session.spec) == "search"


def test_pending_stage_reads_only_rows() -> None:
    spec = simulated(confirm={"top": 1, "seeds": 2}, arms={"monotone": {}})
    assert pending_stage(spec, []) == "search"
    search = [a_row("monotone", "search", 0.5, trial=0)]
    assert pending_stage(spec, search) == "judge"
    judge = [a_row("monotone", "judge", 0.5, source=0, role="best", ordinal=n, seed=n) for n in range(2)]
    assert pending_stage(spec, [*search, replace(judge[0], state="held"), judge[1]]) == "judge"
    assert pending_stage(spec, [*search, *judge]) == "test"
