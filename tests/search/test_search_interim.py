"""`confirm.seeds = "auto"`: seeds are added look by look until the verdicts stand, never by the test split."""

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


def work_off(session: Session, until: Any = "test") -> None:
    while (stage := advance(session.ledger, session.storage, session.spec, until)) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)


# ---------------------------------------------------------------- when one looks


@pytest.mark.parametrize(
    ("most", "expected"),
    [(3, (3,)), (5, (5,)), (6, (5, 6)), (8, (5, 8)), (11, (5, 8, 11)), (20, (5, 8, 11, 14, 17, 20))],
)
def test_looks_rise_to_the_most_seeds(most: int, expected: tuple[int, ...]) -> None:
    spec = auto(most)
    assert analysis_seeds(spec) == expected
    plan = plan_of(spec)
    assert plan is not None
    assert (plan.looks, plan.margin, plan.confidence, plan.comparisons) == (expected, 0.005, 0.95, 1)


def test_a_fixed_number_is_one_look_without_a_plan() -> None:
    assert analysis_seeds(simulated()) == (3,)
    assert plan_of(simulated()) is None
    assert asked(simulated(), judged([])) == 3


def test_every_arm_beside_the_baseline_takes_its_share() -> None:
    plan = plan_of(auto(arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}, "other": {"amplify": AMPLIFY}}))
    assert plan is not None
    assert plan.comparisons == 2
    assert plan_of(auto(arms={"monotone": {}})) is None


# ---------------------------------------------------------------- how many seeds are wanted

CLOSE = [(0.90, 0.92), (0.91, 0.90), (0.90, 0.93), (0.92, 0.91), (0.90, 0.90)]
FAR = [(0.90, 0.950 + 0.001 * i) for i in range(5)]


def test_the_first_look_is_planned_at_once() -> None:
    assert asked(auto(), judged([])) == 5
    assert asked(auto(), judged(CLOSE[:3])) == 5


def test_a_clear_difference_ends_at_the_first_look_and_a_close_one_goes_on() -> None:
    assert asked(auto(), judged(FAR)) == 5
    assert asked(auto(), judged(CLOSE)) == 8
    assert asked(auto(), judged([*CLOSE, *CLOSE[:3]])) == 11
    assert asked(auto(), judged([*CLOSE, *CLOSE, *CLOSE[:1]])) == 11  # the last look ends it, whatever it says


def test_a_run_under_way_keeps_everybody_at_its_look() -> None:
    rows = judged(FAR)
    assert asked(auto(), [*rows[:-1], a_run("ralr", "judge", 4, None, state="held", outcome=None)]) == 5


def test_nobody_looks_at_the_test_split() -> None:
    tests = [a_run(arm, "test", i, 0.5 if arm == "ralr" else 0.9) for i in range(5) for arm in ("monotone", "ralr")]
    assert asked(auto(), [*judged(CLOSE), *tests]) == 8


def test_twins_and_other_configurations_have_no_say() -> None:
    others = [a_run("ralr", "judge", i, 0.99 + 0.001 * i, role="twin") for i in range(5)]
    others += [a_run("ralr", "judge", i, 0.99 + 0.001 * i, source=7) for i in range(5)]
    assert asked(auto(), [*judged(CLOSE), *others]) == 8


def test_a_pair_that_lost_a_run_is_none_and_the_seeds_end_all_the_same() -> None:
    """Four pairs are no look of five: one goes on; with all runs lost one still stops at the most."""
    assert asked(auto(), judged([*FAR[:4], (None, 0.95)])) == 8
    assert asked(auto(), judged([(0.9, None)] * 11)) == 11


def test_an_arm_without_a_winner_keeps_nobody_waiting() -> None:
    rows = [row for row in judged(FAR) if row.arm == "monotone"]
    assert asked(auto(), rows) == 5


def test_one_arm_that_is_settled_waits_for_the_other() -> None:
    spec = auto(arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}, "other": {}})
    third = [a_run("other", "search", 0, 0.9), *(a_run("other", "judge", i, 0.9 + 0.03 * (i % 2)) for i in range(5))]
    assert asked(spec, [*judged(FAR), *third]) == 8


# ---------------------------------------------------------------- through the stages

EQUAL = {"monotone": {}, "ralr": {"amplify": {"probability": 0.0, "width": 1.0}}}
FIXED = {"lr": 0.1, "weight_decay": 1e-4}
"""Arms that do the same: every difference is zero, which no look settles without a margin."""


def test_equal_arms_are_judged_to_the_last_look_and_the_test_split_is_read_once(
    make_session: MakeSession, storage_url: str
) -> None:
    spec = auto(arms=EQUAL, training=FIXED, confirm={"margin": 0.0})
    session = make_session(spec, url=storage_url)
    work_off(session)
    rows = session.ledger.rows()
    seeds = judging_seeds(spec, 11)
    for role in ("best", "twin"):
        assert [row.seed for row in rows if (row.stage, row.arm, row.role) == ("judge", "ralr", role)] == seeds
    assert [row.seed for row in rows if row.stage == "test" and row.arm == "ralr" and row.role == "best"] == seeds
    assert sum(row.stage == "judge" for row in rows) == judged_runs(spec) == 11 * 4
    facts = study_facts(read_study(session.storage, "sim"), plan=plan_of(spec))
    assert (facts.looks["ralr"].looks, facts.looks["ralr"].planned, facts.comparisons[0].n) == (3, 3, 11)
    assert pending_stage(spec, rows) is None


def test_a_clear_difference_spares_the_seeds(make_session: MakeSession) -> None:
    """The other arm's rate is far off."""
    arms = {"monotone": {}, "ralr": {"amplify": AMPLIFY, "training": {"lr": 1e-3}}}
    session = make_session(auto(arms=arms))
    work_off(session)
    assert len(session.ledger.rows("judge")) == 5 * 4
    facts = study_facts(read_study(session.storage, "sim"), plan=plan_of(session.spec))
    assert (facts.comparisons[0].verdict, facts.comparisons[0].n, facts.looks["ralr"].looks) == ("worse", 5, 1)


def test_many_workers_and_resumes_plan_the_same(make_session: MakeSession, tmp_path: Any) -> None:
    spec = auto(arms=EQUAL, training=FIXED, confirm={"margin": 0.0})
    alone = make_session(spec, url=f"sqlite:///{tmp_path}/alone.db")
    work_off(alone)
    here, there = make_session(spec), make_session(spec, owner="you")
    while (stage := advance(here.ledger, here.storage, spec)) is not None:
        assert advance(there.ledger, there.storage, spec) == stage
        for session in (here, there):  # in turn, each with a process's own view
            if (row := session.ledger.claim(session.owner, stage)) is not None:
                work_on(session, row)
        settle(here)
    planned = [
        {(row.arm, row.stage, row.ordinal, row.role, row.seed) for row in s.ledger.rows()} for s in (alone, here)
    ]
    assert planned[0] == planned[1]


def test_a_larger_budget_judges_the_new_winners_from_the_first_look_on(make_session: MakeSession) -> None:
    spec = auto(search={"sampler": "random"})
    session = make_session(spec)
    work_off(session)
    before = {(row.arm, row.source) for row in session.ledger.rows("judge")}
    plan_search(session.ledger, spec, 24)
    assert pending_stage(spec, session.ledger.rows()) == "search"
    work_off(session)
    after = session.ledger.rows("judge")
    new = [row for row in after if (row.arm, row.source) not in before and row.role == "best"]
    assert len({row.arm for row in new}) > 0, "twenty further random trials found nothing better"
    assert {sum(row.arm == arm for row in new) for arm in {row.arm for row in new}} <= set(analysis_seeds(spec))
    assert pending_stage(spec, session.ledger.rows()) is None
