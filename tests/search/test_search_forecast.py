"""The epochs that a study has left: of planned rows, and of rows that no stage has planned yet."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ralr_tune.records import Row
from ralr_tune.search import forecast
from ralr_tune.search.forecast import epochs_left
from ralr_tune.search.stages import STAGES, advance
from ralr_tune.search.trial import work_on
from ralr_tune.studyfile import StudySpec
from tests.search.conftest import MakeSession
from tests.studies import simulated

UNPRUNED = {"trials": 4, "pruner": "none"}
# choose: 2 arms x 2 finalists x 2 seeds; judge: 3 seeds x (2 winners, a twin, an added amplification)
CHOOSE, JUDGE = 8 * 4, 12 * 4


def expected(spec: StudySpec, rows: Sequence[Row] = ()) -> list[float]:
    left = epochs_left(spec, rows)
    return [left[stage].expected for stage in STAGES]


def test_an_unplanned_study_has_all_its_stages_left() -> None:
    left = epochs_left(simulated(search=UNPRUNED), [])
    assert [left[stage].expected for stage in STAGES] == [2 * 4 * 4, 0, CHOOSE, JUDGE, 12 / 3]
    assert [left[stage].most for stage in STAGES] == [2 * 4 * 4, 0, CHOOSE, JUDGE, 12 / 3]


@pytest.mark.parametrize(("top", "blocks"), [(2, 1), (4, 1), (1, 3)])
def test_what_is_left_is_what_is_then_trained(make_session: MakeSession, top: int, blocks: int) -> None:
    spec = simulated(search=UNPRUNED | {"blocks": blocks}, confirm={"top": top, "seeds": 3})
    session = make_session(spec)
    while advance(session.ledger, session.storage, session.spec) is not None:
        for stage in STAGES:
            while session.ledger.remaining(stage):
                before = expected(session.spec, session.ledger.rows(curves=False))
                row = session.ledger.claim("me", stage)
                assert row is not None
                work_on(session, row)
                after = expected(session.spec, session.ledger.rows(curves=False))
                trained = 1 / 3 if stage == "test" else 4
                assert sum(before) - sum(after) == pytest.approx(trained)
    assert sum(expected(session.spec, session.ledger.rows(curves=False))) == 0


def test_pruning_is_expected_after_the_first_trials_and_learned_from_those_that_ended(
    make_session: MakeSession,
) -> None:
    search = {"trials": 12, "pruner_options": {"n_startup_trials": 3}, "start": [{"lr": 0.1}]}
    spec = simulated(search=search)
    share = forecast.TRAINED_SHARE
    assert epochs_left(spec, [])["search"] == pytest.approx((2 * 4 * (3 + 9 * share), 2 * 4 * 12))
    session = make_session(spec)
    while (row := session.ledger.claim("me", "search")) is not None and row.ordinal < 8:
        work_on(session, row)
    rows = session.ledger.rows("search")
    seen = [each.epoch / 4 for each in rows if each.state == "done" and each.ordinal >= 3]
    assert len(seen) == 10
    assert any(each < 1 for each in seen)
    learned = (share * forecast.PRIOR_TRIALS + sum(seen)) / (forecast.PRIOR_TRIALS + len(seen))
    assert epochs_left(spec, rows)["search"] == pytest.approx((2 * 4 * 4 * learned, 2 * 4 * 4))


def test_an_audit_is_expected_to_train_what_pruning_saves() -> None:
    left = epochs_left(simulated(search={"trials": 12, "audit": 1.0}), [])
    assert left["search"].expected + left["audit"].expected == pytest.approx(2 * 4 * 12)


def test_with_automatic_seeds_each_interim_analysis_may_be_the_last() -> None:
    left = epochs_left(simulated(search=UNPRUNED, confirm={"seeds": "auto", "most_seeds": 11}), [])
    assert left["judge"] == ((5 + 8 + 11) / 3 * 4 * 4, 11 * 4 * 4)
