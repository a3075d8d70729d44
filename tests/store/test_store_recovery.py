from __future__ import annotations

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from ralr_tune.errors import LeaseLost
from ralr_tune.records import Row
from ralr_tune.store.incidents import of_row
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.recovery import attach, detach, find_orphan, free, inspect, strays, unsettled
from ralr_tune.store.studies import ask, optuna_name, optuna_study, resume_trial
from tests.metrics import ACCURACY


def study_of(ledger: Ledger, block: int = 1) -> optuna.Study:
    name = optuna_name(ledger.study, "ralr", block)
    return optuna_study(ledger.storage, name, sampler=RandomSampler(), metric=ACCURACY)


def claimed(ledger: Ledger) -> Row:
    row = ledger.claim("me", "search")
    assert row is not None
    return row


@pytest.fixture(autouse=True)
def planned(dying: Ledger) -> None:
    """One trial in each of two blocks."""
    dying.plan(PlannedRow("ralr", "search", block, 0, seed=0) for block in (1, 2))


def test_a_trial_that_was_not_attached_is_found(dying: Ledger) -> None:
    row = claimed(dying)
    assert find_orphan(dying, row) is None
    study = study_of(dying)
    study.tell(ask(study, dying.storage, row.id), 0.5)  # finished, so not an orphan
    ask(study, dying.storage, row.id + 1)  # of another row
    study.ask()  # of another program
    orphan = ask(study, dying.storage, row.id)
    ask(study, dying.storage, row.id)
    again = claimed(dying)
    assert find_orphan(dying, again) == orphan.number == 3
    dying.attach(again, orphan.number)


def test_orphans_are_searched_for_in_their_own_block(dying: Ledger) -> None:
    study = study_of(dying, 2)
    second = dying.rows()[1]
    orphan = ask(study, dying.storage, second.id)
    assert find_orphan(dying, second) == orphan.number
    assert find_orphan(dying, dying.rows()[0]) is None


def test_done_rows_whose_trial_was_not_reported_are_found(dying: Ledger) -> None:
    assert unsettled(dying) == []
    row = claimed(dying)
    study = study_of(dying)
    trial = ask(study, dying.storage, row.id)
    dying.attach(row, trial.number)
    assert unsettled(dying) == []
    dying.finish(row, outcome="complete", value=0.5, curve=(), seconds=1.0)
    (found,) = unsettled(dying)
    assert found == dying.row(row.id)
    study.tell(trial.number, 0.5, skip_if_finished=True)
    study.tell(trial.number, 0.5, skip_if_finished=True)
    assert unsettled(dying) == []


def test_trials_with_the_same_number_in_two_blocks_are_distinguished(ledger: Ledger, dying: Ledger) -> None:
    for block in (1, 2):
        row = claimed(ledger)
        assert row.block == block
        study = study_of(dying, block)
        trial = ask(study, dying.storage, row.id)
        dying.attach(row, trial.number)
        dying.finish(row, outcome="pruned", value=0.5, curve=(), seconds=1.0)
        if block == 1:
            study.tell(trial, state=TrialState.PRUNED)
    assert [row.block for row in unsettled(dying)] == [2]


def test_strays_are_trials_that_no_row_will_adopt(dying: Ledger) -> None:
    study = study_of(dying)
    late = claimed(dying)
    row = claimed(dying)
    kept = ask(study, dying.storage, row.id)
    dying.attach(row, kept.number)
    assert strays(dying) == []
    stray = ask(study, dying.storage, late.id)  # by a worker that had lost the row
    study.ask()  # of another program
    assert strays(dying) == [(study.study_name, stray.number)]
    study.tell(stray.number, state=TrialState.FAIL)
    assert strays(dying) == []


def test_a_failed_row_keeps_its_trial_until_it_is_reopened(dying: Ledger) -> None:
    row = claimed(dying)
    study = study_of(dying)
    trial = ask(study, dying.storage, row.id)
    dying.attach(row, trial.number)
    dying.fail(row, kind="bug", message="", retry=False)
    assert unsettled(dying) == []
    assert strays(dying) == []
    assert dying.reopen_failed() == 1
    assert claimed(dying).trial == trial.number
    assert resume_trial(study, trial.number).number == trial.number


def test_a_trial_whose_row_is_gone_is_a_stray(dying: Ledger) -> None:
    study = study_of(dying)
    trial = ask(study, dying.storage, 987_654_321)
    assert strays(dying) == [(study.study_name, trial.number)]


def test_a_trial_whose_row_belongs_to_another_study_is_not_a_stray(dying: Ledger) -> None:
    other = Ledger(dying.storage, f"{dying.study}-other")
    other.plan([PlannedRow("ralr", "search", 1, 0, seed=0)])
    (row,) = other.rows()
    ask(study_of(dying), dying.storage, row.id)
    assert strays(dying) == []


PLACES = [("ralr", 1), ("ralr", 2)]


def asked(ledger: Ledger, row: Row) -> int:
    """A new trial that is attached to a row."""
    trial = ask(study_of(ledger, row.block), ledger.storage, row.id)
    ledger.attach(row, trial.number)
    return trial.number


def test_an_inspection_separates_valid_from_expired_leases(ledger: Ledger, dying: Ledger) -> None:
    gone = claimed(dying)
    alive = ledger.claim("other", "search")
    assert alive is not None
    assert alive.id == gone.id  # another worker claimed it at once
    expired = dying.claim("me", "search")
    assert expired is not None
    found = inspect(dying, PLACES)
    assert [found.alive(row) for row in found.rows] == [True, False]
    assert found.expired.keys() == {expired.id}
    assert 0 < found.expired[expired.id] < 60


def test_a_row_with_an_expired_lease_is_freed_once_and_its_owner_loses_it(dying: Ledger) -> None:
    row = claimed(dying)
    (seen,) = (each for each in inspect(dying, PLACES).rows if each.id == row.id)
    assert free(dying, seen)
    assert not free(dying, seen)
    assert dying.row(row.id).state == "free"
    assert [incident.kind for incident in of_row(dying.storage, dying.study, row.id)] == ["lost"]
    with pytest.raises(LeaseLost):
        dying.finish(row, outcome="complete", value=0.5, curve=(), seconds=1.0)


def test_a_row_that_a_worker_holds_is_not_changed(ledger: Ledger, dying: Ledger) -> None:
    row = claimed(ledger)
    asked(ledger, row)
    held = ledger.row(row.id)
    assert not free(ledger, held)
    assert not attach(ledger, held, 7)
    assert not detach(ledger, held)
    assert ledger.row(row.id) == held


def test_a_row_that_was_claimed_since_it_was_read_is_not_changed(ledger: Ledger, dying: Ledger) -> None:
    claimed(dying)
    seen = next(row for row in inspect(dying, PLACES).rows if row.state == "held")
    again = claimed(ledger)
    assert again.id == seen.id
    ledger.release(again)
    assert not free(ledger, seen)
    assert not attach(ledger, seen, 7)
    assert ledger.row(seen.id).trial is None


def test_orphans_are_attached_and_the_others_become_strays(dying: Ledger) -> None:
    row = claimed(dying)
    numbers = [ask(study_of(dying), dying.storage, row.id).number for _ in range(2)]
    ((found, orphans),) = inspect(dying, PLACES).orphans()
    assert (found.id, orphans) == (row.id, numbers)
    assert orphans[0] == find_orphan(dying, row)
    assert attach(dying, found, orphans[0])
    assert inspect(dying, PLACES).orphans() == []
    assert strays(dying) == [(study_of(dying).study_name, numbers[1])]


def test_a_trial_is_not_an_orphan_while_its_worker_lives(ledger: Ledger) -> None:
    """The worker may be about to attach it."""
    row = claimed(ledger)
    ask(study_of(ledger), ledger.storage, row.id)
    assert inspect(ledger, PLACES).orphans() == []


@pytest.mark.parametrize("how", ["ended", "gone", "failed row"])
def test_a_row_whose_trial_has_ended_asks_again(dying: Ledger, how: str) -> None:
    row = claimed(dying)
    number = asked(dying, row)
    if how == "failed row":
        dying.fail(row, kind="bug", message="", retry=False)
    if how == "gone":
        optuna.delete_study(study_name=study_of(dying).study_name, storage=dying.storage.optuna)
    else:
        study_of(dying).tell(number, state=TrialState.FAIL)
    ((stuck, trial),) = inspect(dying, PLACES).stuck()
    assert stuck.id == row.id
    assert (trial is None) == (how == "gone")
    assert detach(dying, stuck)
    assert dying.row(row.id).trial is None
    assert inspect(dying, PLACES).stuck() == []


def test_done_rows_are_compared_with_optunas_trials(dying: Ledger) -> None:
    dying.plan(PlannedRow("ralr", "search", 1, ordinal, seed=0) for ordinal in range(1, 6))
    told = {
        "agrees": ("complete", 0.5, {"values": 0.5}),
        "pruned": ("pruned", 0.5, {"state": TrialState.PRUNED}),
        "diverged": ("diverged", None, {"values": 0.0}),
        "other value": ("complete", 0.5, {"values": 0.6}),
        "other state": ("complete", 0.5, {"state": TrialState.FAIL}),
        "untold": ("complete", 0.5, None),
    }
    names = {}
    for name, (outcome, value, words) in told.items():
        row = claimed(dying)
        names[row.id] = name
        number = asked(dying, row)
        dying.finish(row, outcome=outcome, value=value, curve=(), seconds=1.0)
        if words is not None:
            study_of(dying, row.block).tell(number, **words)
    found = {names[row.id] for row, _ in inspect(dying, PLACES).contradicted(lambda row: 0.0)}
    assert found == {"other value", "other state"}
    optuna.delete_study(study_name=study_of(dying).study_name, storage=dying.storage.optuna)
    assert {trial for _, trial in inspect(dying, [("ralr", 1)]).contradicted(lambda row: 0.0)} == {None}


def test_trials_without_a_mark_belong_to_other_programs(dying: Ledger) -> None:
    study = study_of(dying)
    study.ask()
    study.tell(study.ask(), 0.5)
    study.enqueue_trial({"lr": 0.1})
    asked(dying, claimed(dying))
    found = inspect(dying, PLACES).foreign()
    assert [(place, trial.state.name) for place, trial in found] == [(("ralr", 1), "RUNNING"), (("ralr", 1), "WAITING")]
