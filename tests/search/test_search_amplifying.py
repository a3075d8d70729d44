"""The baseline's winner with another arm's amplification: what is planned, trained and reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ralr_tune.analysis.facts import as_json, study_facts
from ralr_tune.records import AMPLIFIED, Row
from ralr_tune.search.artifacts import confirm_configuration
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance, judged_runs, plan_search, winners
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from tests.search.conftest import MakeSession
from tests.studies import AMPLIFY, simulated

NOISE = {"noise": {"std": {"low": 0.1, "high": 1.0}}}
FIXED = {"amplify": {"probability": 1.0, "lower": 2.0, "width": 0.5, "law": "loguniform", "window": [0.25, 0.75]}}


def work_until_done(session: Session) -> None:
    while (stage := advance(session.ledger, session.storage, session.spec)) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)


def done(make_session: MakeSession, **changes: Any) -> Session:
    session = make_session(simulated(**changes))
    work_until_done(session)
    return session


def added(session: Session, stage: Any = "judge") -> list[Row]:
    return [row for row in session.ledger.rows(stage) if row.role.startswith(AMPLIFIED)]


def winner(spec: StudySpec, session: Session, arm: str) -> Row:
    return winners(spec, read_study(session.storage, "sim").rows(), arm)[0]


def test_an_addition_is_the_baselines_winner_with_the_donors_whole_amplification(make_session: MakeSession) -> None:
    session = done(make_session)
    spec, (first, *_) = session.spec, added(session)
    base, ralr = (winner(spec, session, arm) for arm in ("monotone", "ralr"))
    without, amplified = spec.configuration("monotone", base.params), spec.configuration("ralr", ralr.params)
    assert confirm_configuration(spec, first) == without.model_copy(update={"amplify": amplified.amplify})
    assert (first.arm, first.source, first.part) == ("monotone", base.trial, "amplified")


def test_additions_run_on_the_same_seeds_as_all_other_rows(make_session: MakeSession) -> None:
    session = done(make_session)
    for stage in ("judge", "test"):
        best = [row.seed for row in session.ledger.rows(stage) if (row.arm, row.role) == ("monotone", "best")]
        assert [row.seed for row in added(session, stage)] == best
    assert len(session.ledger.rows("judge")) == judged_runs(session.spec)


def test_fixed_amplification_values_of_the_donor_are_added_too(make_session: MakeSession) -> None:
    session = done(make_session, arms={"monotone": {}, "ralr": FIXED})
    amplify = confirm_configuration(session.spec, added(session)[0]).amplify
    assert amplify == session.spec.configuration("ralr", winner(session.spec, session, "ralr").params).amplify
    inside = [record.factor for record in added(session)[0].curve]
    assert inside[0] == inside[3] == 1.0
    assert 2.0 <= inside[1] <= 2.5, inside


def test_the_rates_are_the_baselines_times_the_donors_factors(make_session: MakeSession) -> None:
    session = done(make_session)
    rows = {(row.arm, row.part, row.seed): row for row in session.ledger.rows("judge")}
    for row in added(session):
        base, ralr = rows["monotone", "best", row.seed], rows["ralr", "best", row.seed]
        assert [record.factor for record in row.curve] == [record.factor for record in ralr.curve]
        rates = [record.lr / record.factor for record in row.curve]
        assert rates == pytest.approx([record.lr for record in base.curve])


def test_the_facts_contain_the_addition_with_its_donor(make_session: MakeSession) -> None:
    session = done(make_session)
    facts = study_facts(read_study(session.storage, "sim"))
    (found,) = facts.amplified
    assert (found.arm, found.donor, found.split, found.n) == ("monotone", "ralr", "test", 3)
    assert as_json(facts)["amplified"][0]["amplification"].keys() >= {"amplify.probability", "amplify.law"}
    assert len(facts.twins) == len(facts.comparisons) == 1


def test_two_donors_give_two_additions(make_session: MakeSession) -> None:
    session = done(make_session, arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}, "always": FIXED})
    assert len({row.role for row in added(session)}) == 2
    facts = study_facts(read_study(session.storage, "sim"))
    assert [found.donor for found in facts.amplified] == ["ralr", "always"]
    assert facts.amplified[0].amplification != facts.amplified[1].amplification


@pytest.mark.parametrize("baseline", [{"amplify": AMPLIFY}, NOISE])
def test_a_baseline_that_perturbs_its_rate_gets_no_addition(
    make_session: MakeSession, baseline: dict[str, Any]
) -> None:
    session = done(make_session, arms={"monotone": baseline, "ralr": {"amplify": AMPLIFY}})
    assert added(session) == []
    assert len(session.ledger.rows("judge")) == judged_runs(session.spec)


def test_a_new_winner_is_a_new_donor_and_old_rows_no_longer_count(make_session: MakeSession) -> None:
    session = done(make_session, study={"seed": 1}, search={"sampler": "random", "trials": 1}, confirm={"top": 1})
    before = {row.role for row in added(session)}
    plan_search(session.ledger, session.spec, 40)
    work_until_done(session)
    after = {row.role for row in added(session)}
    record = read_study(session.storage, "sim")
    (found,) = study_facts(record).amplified
    ralr = winner(session.spec, session, "ralr")
    assert before < after, "thirty-nine further random trials found no better donor"
    assert found.amplification["amplify.lower"] == ralr.params["amplify.lower"]
    without = {
        name: replace(arm, rows=[r for r in arm.rows if r.role not in before]) for name, arm in record.arms.items()
    }
    assert study_facts(replace(record, arms=without)).amplified == (found,)
