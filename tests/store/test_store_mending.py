from __future__ import annotations

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from ralr_tune.records import Row
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.mending import find_orphan, strays, unsettled
from ralr_tune.store.studies import ask, optuna_name, optuna_study, resume_trial


def study_of(ledger: Ledger, block: int = 1) -> optuna.Study:
    name = optuna_name(ledger.study, "ralr", block)
    return optuna_study(ledger.storage, name, sampler=RandomSampler(), direction="maximize")


def claimed(ledger: Ledger) -> Row:
    row = ledger.claim("me", "search")
    assert row is not None
    return row


@pytest.fixture(autouse=True)
def planned(dying: Ledger) -> None:
    """One trial in each of two blocks."""
    dying.plan(PlannedRow("ralr", "search", block, 0, seed=0) for block in (1, 2))


def test_a_trial_that_was_asked_for_and_not_attached_is_found(dying: Ledger) -> None:
    row = claimed(dying)
    assert find_orphan(dying, row) is None
    study = study_of(dying)
    study.tell(ask(study, dying.storage, row.id), 0.5)  # finished: nobody's orphan
    ask(study, dying.storage, row.id + 1)  # another row's
    study.ask()  # somebody's own
    orphan = ask(study, dying.storage, row.id)
    ask(study, dying.storage, row.id)
    again = claimed(dying)
    assert find_orphan(dying, again) == orphan.number == 3
    dying.attach(again, orphan.number)


def test_orphans_are_looked_for_in_their_own_block(dying: Ledger) -> None:
    study = study_of(dying, 2)
    second = dying.rows()[1]
    orphan = ask(study, dying.storage, second.id)
    assert find_orphan(dying, second) == orphan.number
    assert find_orphan(dying, dying.rows()[0]) is None


def test_done_rows_whose_trial_was_not_told_are_found(dying: Ledger) -> None:
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


def test_trials_of_one_number_in_two_blocks_are_told_apart(ledger: Ledger, dying: Ledger) -> None:
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
    stray = ask(study, dying.storage, late.id)  # by who had lost the row
    study.ask()  # somebody's own
    assert strays(dying) == [(study.study_name, stray.number)]
    study.tell(stray.number, state=TrialState.FAIL)
    assert strays(dying) == []


def test_a_failed_row_keeps_its_trial_for_when_it_is_opened_again(dying: Ledger) -> None:
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
