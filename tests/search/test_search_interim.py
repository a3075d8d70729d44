"""`confirm.seeds = "auto"`: analyses add seeds until the verdicts are settled, never based on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import Row
from ralr_tune.search.interim import analysis_seeds, plan_of, wanted
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance, judged_runs, judging_seeds, pending_stage, plan_search, winners
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from tests.search.conftest import MakeSession
from tests.studies import AMPLIFY, simulated


def auto(most: int = 11, arms: Mapping[str, Any] | None = None, **changes: Any) -> StudySpec:
    confirm = {"top": 1, "seeds": "auto", "most_seeds": most, **changes.pop("confirm", {})}
    return simulated(confirm=confirm, **({"arms": arms} if arms else {}), **changes)


def a_run(arm: str, stage: str, ordinal: int, value: float | None, **changes: Any) -> Row:
    fields: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    fields |= {"id": 0, "block": 1, "role": "best", "params": {}, "attempt": 1, "curve": (), "state": "done"}
    fields |= {"arm": arm, "stage": stage, "ordinal": ordinal, "seed": 100 + ordinal, "source": 0, "value": value}
    fields |= {"outcome": "diverged" if value is None else "complete"}
    if stage == "search":
        fields |= {"trial": 0, "source": None}
    return Row(**fields | changes)


def judged(pairs: list[tuple[float | None, float | None]]) -> list[Row]:
    """A study whose arms were judged on one seed for each pair (monotone, ralr)."""
    rows = [a_run(arm, "search", 0, 0.9) for arm in ("monotone", "ralr")]
    for ordinal, values in enumerate(pairs):
        rows += [a_run(arm, "judge", ordinal, value) for arm, value in zip(("monotone", "ralr"), values, strict=True)]
    return rows


def asked(spec: StudySpec, rows: list[Row]) -> int:
    return wanted(spec, rows, {arm: winners(spec, rows, arm) for arm in spec.arms})


def work_until_done(session: Session, until: Any = "test") -> None:
    while (stage := advance(session.ledger, session.storage, session.spec, until)) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)


# ---------------------------------------------------------------- when analyses take place


@pytest.mark.parametrize(
    ("most", "expected"),
    [(3, (3,)), (5, (5,)), (6, (5, 6)), (8, (5, 8)), (11, (5, 8, 11)), (20, (5, 8, 11, 14, 17, 20))],
)
def test_analyses_go_up_to_the_largest_number_of_seeds(most: int, expected: tuple[int, ...]) -> None:
    spec = auto(most)
    assert analysis_seeds(spec) == expected
    plan = plan_of(spec)
    assert plan is not None
    assert (plan.analyses, plan.margin, plan.confidence, plan.comparisons) == (expected, 0.005, 0.95, 1)


def test_a_fixed_number_of_seeds_is_one_analysis_without_a_plan() -> None:
    assert analysis_seeds(simulated()) == (3,)
    assert plan_of(simulated()) is None
    assert asked(simulated(), judged([])) == 3


def test_the_error_is_shared_between_all_arms_but_the_baseline() -> None:
    plan = plan_of(auto(arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}, "other": {"amplify": AMPLIFY}}))
    assert plan is not None
    assert plan.comparisons == 2
    assert plan_of(auto(arms={"monotone": {}})) is None


# ---------------------------------------------------------------- how many seeds are wanted

CLOSE = [(0.90, 0.92), (0.91, 0.90), (0.90, 0.93), (0.92, 0.91), (0.90, 0.90)]
FAR = [(0.90, 0.950 + 0.001 * i) for i in range(5)]


def test_the_first_analysis_is_planned_at_once() -> None:
    assert asked(auto(), judged([])) == 5
    assert asked(auto(), judged(CLOSE[:3])) == 5


def test_a_clear_difference_stops_at_the_first_analysis_and_a_close_one_continues() -> None:
    assert asked(auto(), judged(FAR)) == 5
    assert asked(auto(), judged(CLOSE)) == 8
    assert asked(auto(), judged([*CLOSE, *CLOSE[:3]])) == 11
    assert asked(auto(), judged([*CLOSE, *CLOSE, *CLOSE[:1]])) == 11  # the last analysis ends it in any case


def test_an_unfinished_run_delays_the_next_seeds() -> None:
    rows = judged(FAR)
    assert asked(auto(), [*rows[:-1], a_run("ralr", "judge", 4, None, state="held", outcome=None)]) == 5


def test_the_test_split_is_not_used() -> None:
    tests = [a_run(arm, "test", i, 0.5 if arm == "ralr" else 0.9) for i in range(5) for arm in ("monotone", "ralr")]
    assert asked(auto(), [*judged(CLOSE), *tests]) == 8


def test_twins_and_other_configurations_do_not_count() -> None:
    others = [a_run("ralr", "judge", i, 0.99 + 0.001 * i, role="twin") for i in range(5)]
    others += [a_run("ralr", "judge", i, 0.99 + 0.001 * i, source=7) for i in range(5)]
    assert asked(auto(), [*judged(CLOSE), *others]) == 8


def test_a_pair_with_a_diverged_run_does_not_count_and_the_seeds_still_end() -> None:
    """Four pairs are too few for the analysis at five: seeds are added. If all runs are lost, the maximum ends it."""
    assert asked(auto(), judged([*FAR[:4], (None, 0.95)])) == 8
    assert asked(auto(), judged([(0.9, None)] * 11)) == 11


def test_an_arm_without_a_winner_does_not_delay_the_others() -> None:
    rows = [row for row in judged(FAR) if row.arm == "monotone"]
    assert asked(auto(), rows) == 5


def test_a_settled_arm_gets_seeds_until_all_arms_are_settled() -> None:
    spec = auto(arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}, "other": {}})
    third = [a_run("other", "search", 0, 0.9), *(a_run("other", "judge", i, 0.9 + 0.03 * (i % 2)) for i in range(5))]
    assert asked(spec, [*judged(FAR), *third]) == 8


# ---------------------------------------------------------------- through the stages

EQUAL = {"monotone": {}, "ralr": {"amplify": {"probability": 0.0, "width": 1.0}}}
FIXED = {"lr": 0.1, "weight_decay": 1e-4}
"""Identical arms: every difference is zero, which no analysis settles without a margin."""


def test_equal_arms_are_judged_up_to_the_last_analysis_and_the_test_split_is_read_once(
    make_session: MakeSession, storage_url: str
) -> None:
    spec = auto(arms=EQUAL, training=FIXED, confirm={"margin": 0.0})
    session = make_session(spec, url=storage_url)
    work_until_done(session)
    rows = session.ledger.rows()
    seeds = judging_seeds(spec, 11)
    for role in ("best", "twin"):
        assert [row.seed for row in rows if (row.stage, row.arm, row.role) == ("judge", "ralr", role)] == seeds
    assert [row.seed for row in rows if row.stage == "test" and row.arm == "ralr" and row.role == "best"] == seeds
    assert sum(row.stage == "judge" for row in rows) == judged_runs(spec) == 11 * 4
    facts = study_facts(read_study(session.storage, "sim"), plan=plan_of(spec))
    assert (facts.looks["ralr"].looks, facts.looks["ralr"].planned, facts.comparisons[0].n) == (3, 3, 11)
    assert pending_stage(spec, rows) is None


def test_a_clear_difference_saves_seeds(make_session: MakeSession) -> None:
    """The other arm's rate is far off."""
    arms = {"monotone": {}, "ralr": {"amplify": AMPLIFY, "training": {"lr": 1e-3}}}
    session = make_session(auto(arms=arms))
    work_until_done(session)
    assert len(session.ledger.rows("judge")) == 5 * 4
    facts = study_facts(read_study(session.storage, "sim"), plan=plan_of(session.spec))
    assert (facts.comparisons[0].verdict, facts.comparisons[0].n, facts.looks["ralr"].looks) == ("worse", 5, 1)


def test_many_workers_and_resumes_plan_the_same(make_session: MakeSession, tmp_path: Any) -> None:
    spec = auto(arms=EQUAL, training=FIXED, confirm={"margin": 0.0})
    alone = make_session(spec, url=f"sqlite:///{tmp_path}/alone.db")
    work_until_done(alone)
    here, there = make_session(spec), make_session(spec, owner="you")
    while (stage := advance(here.ledger, here.storage, spec)) is not None:
        assert advance(there.ledger, there.storage, spec) == stage
        for session in (here, there):  # in turn, each as a separate process would
            if (row := session.ledger.claim(session.owner, stage)) is not None:
                work_on(session, row)
        settle(here)
    planned = [
        {(row.arm, row.stage, row.ordinal, row.role, row.seed) for row in s.ledger.rows()} for s in (alone, here)
    ]
    assert planned[0] == planned[1]


def test_a_larger_budget_judges_new_winners_from_the_first_analysis_on(make_session: MakeSession) -> None:
    spec = auto(search={"sampler": "random"})
    session = make_session(spec)
    work_until_done(session)
    before = {(row.arm, row.source) for row in session.ledger.rows("judge")}
    plan_search(session.ledger, spec, 24)
    assert pending_stage(spec, session.ledger.rows()) == "search"
    work_until_done(session)
    after = session.ledger.rows("judge")
    new = [row for row in after if (row.arm, row.source) not in before and row.role == "best"]
    assert len({row.arm for row in new}) > 0, "twenty further random trials found nothing better"
    assert {sum(row.arm == arm for row in new) for arm in {row.arm for row in new}} <= set(analysis_seeds(spec))
    assert pending_stage(spec, session.ledger.rows()) is None
