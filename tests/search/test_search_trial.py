from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from ralr_tune.errors import DataError, Interrupted, TrialError
from ralr_tune.records import EpochRecord, Row
from ralr_tune.search import trial as trials
from ralr_tune.search.session import Session
from ralr_tune.search.trial import settle, work_on
from ralr_tune.store import studies
from ralr_tune.store.ledger import Ledger
from ralr_tune.training.simulated import SimulatedTrial
from tests.search.conftest import MakeSession
from tests.studies import simulated


class Killed(BaseException):
    """What SIGKILL would do: nothing of ours runs afterwards."""


def optuna_trials(session: Session, arm: str = "monotone") -> list[FrozenTrial]:
    study = studies.optuna_study(session.storage, studies.optuna_name(session.spec.name, arm))
    return study.get_trials(deepcopy=False)


def claim(session: Session) -> Row:
    row = session.ledger.claim(session.owner, "search")
    assert row is not None
    return row


def expire(session: Session) -> None:
    """Let every lease run out now, as if its holder had been away for long."""
    short = Ledger(session.storage, session.spec.name, lease_s=-1)
    for row in session.ledger.rows():
        if row.state == "held":
            short.beat(row)


def test_a_trial_is_asked_trained_reported_and_told(make_session: MakeSession) -> None:
    session = make_session(simulated(search={"pruner": "none", "start": [{"lr": 0.1}]}))
    row = claim(session)
    work_on(session, row)
    done = session.ledger.row(row.id)
    (told,) = optuna_trials(session)
    assert (done.state, done.outcome, done.trial) == ("done", "complete", 0)
    assert told.state == TrialState.COMPLETE
    assert told.params["lr"] == 0.1  # the user's own recipe comes first
    assert told.value == done.value == done.curve[-1].value
    assert told.intermediate_values == {record.epoch: record.value for record in done.curve}
    assert [record.epoch for record in done.curve] == [1, 2, 3, 4]
    assert done.train_value is not None
    assert not list((session.out / "checkpoints").glob("*"))  # nothing is left of a finished trial


def test_a_bad_trial_is_pruned_with_its_curve_kept(make_session: MakeSession) -> None:
    options = {"pruner": "median", "pruner_options": {"n_startup_trials": 1, "n_warmup_steps": 0}}
    spec = simulated(arms={"monotone": {}}, search={"trials": 2, "start": [{"lr": 0.1}, {"lr": 0.001}], **options})
    session = make_session(spec)
    for _ in range(2):
        work_on(session, claim(session))
    pruned = session.ledger.rows()[1]
    assert pruned.outcome == "pruned"
    assert 0 < len(pruned.curve) < 4
    told = optuna_trials(session)[1]
    assert told.state == TrialState.PRUNED
    assert told.value == pruned.value


def test_a_diverged_trial_is_told_as_the_worst_value_and_marked(make_session: MakeSession) -> None:
    session = make_session(simulated(task={"data": {"diverges_above": 1e-9}}))
    row = claim(session)
    work_on(session, row)
    done = session.ledger.row(row.id)
    (told,) = optuna_trials(session)
    assert (done.outcome, done.failure, done.value) == ("diverged", "diverged", None)
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.0)
    assert told.user_attrs["ralr_tune:diverged"] == "diverged"


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_killed_at_any_epoch_another_worker_goes_on_with_the_same_trial(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, epoch: int, tmp_path: Path
) -> None:
    spec = simulated(search={"pruner": "none"})
    whole = make_session(spec, url=f"sqlite:///{tmp_path}/whole.db")
    work_on(whole, claim(whole))
    first = make_session(spec, owner="first")
    row = claim(first)
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedTrial, "_save", _kill_after(epoch, SimulatedTrial._save))
        with pytest.raises(Killed):
            work_on(first, row)
    expire(first)
    second = make_session(spec, owner="second")
    again = claim(second)
    assert (again.id, again.attempt, again.trial) == (row.id, 2, 0)
    work_on(second, again)
    assert [told.state for told in optuna_trials(second)] == [TrialState.COMPLETE]
    found, expected = second.ledger.row(row.id), whole.ledger.row(row.id)
    assert [(r.epoch, r.value, r.lr) for r in found.curve] == [(r.epoch, r.value, r.lr) for r in expected.curve]
    assert set(optuna_trials(second)[0].intermediate_values) == {1, 2, 3, 4}


def _kill_after(epoch: int, save: Any) -> Any:
    def killing(self: SimulatedTrial) -> None:
        save(self)
        if len(self.curve) == epoch:
            raise Killed

    return killing


def test_killed_between_asking_and_attaching_the_orphan_is_adopted(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated())
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "attach", _raise(Killed))
        with pytest.raises(Killed):
            work_on(session, claim(session))
    assert [told.state for told in optuna_trials(session)] == [TrialState.RUNNING]
    expire(session)
    work_on(session, claim(session))
    assert [told.state for told in optuna_trials(session)] == [TrialState.COMPLETE]


def test_killed_between_done_and_told_the_next_worker_tells(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated())
    with monkeypatch.context() as patch:
        patch.setattr(trials, "tell", _raise(Killed))
        with pytest.raises(Killed):
            work_on(session, claim(session))
    assert optuna_trials(session)[0].state == TrialState.RUNNING
    settle(session)
    settle(session)
    assert optuna_trials(session)[0].state == TrialState.COMPLETE
    assert optuna_trials(session)[0].value == session.ledger.rows()[0].value


def test_a_worker_that_slept_through_its_lease_writes_nothing(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = simulated(search={"pruner": "none"})
    sleeper, other = make_session(spec, owner="sleeper"), make_session(spec, owner="other")
    row = claim(sleeper)
    epochs = SimulatedTrial.epochs

    def sleeping(self: SimulatedTrial) -> Generator[EpochRecord, None, None]:
        for record in epochs(self):
            if record.epoch == 2:
                monkeypatch.setattr(SimulatedTrial, "epochs", epochs)
                expire(sleeper)
                work_on(other, claim(other))
            yield record

    monkeypatch.setattr(SimulatedTrial, "epochs", sleeping)
    work_on(sleeper, row)  # ends quietly
    done = other.ledger.row(row.id)
    assert (done.owner, done.attempt, done.outcome) == ("other", 2, "complete")
    assert [told.state for told in optuna_trials(other)] == [TrialState.COMPLETE]


def test_a_trial_asked_for_by_a_worker_that_had_lost_the_row_is_ended(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated())
    row = claim(session)
    work_on(session, row)
    study = studies.optuna_study(session.storage, "sim/monotone")
    studies.ask(study, session.storage, row.id)
    settle(session)
    assert [told.state for told in optuna_trials(session)] == [TrialState.COMPLETE, TrialState.FAIL]


def test_asked_to_stop_the_row_is_free_again_and_its_epochs_are_kept(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"pruner": "none"}))
    monkeypatch.setattr(SimulatedTrial, "_save", _then(SimulatedTrial._save, session.stop.request))
    row = claim(session)
    with pytest.raises(Interrupted):
        work_on(session, row)
    monkeypatch.undo()
    freed = session.ledger.row(row.id)
    assert (freed.state, freed.trial) == ("free", 0)
    assert list((session.out / "checkpoints").glob("*"))
    session.stop.requested = False
    again = claim(session)
    assert again.id == row.id
    work_on(session, again)
    assert [record.epoch for record in session.ledger.row(row.id).curve] == [1, 2, 3, 4]


def _then(first: Any, second: Any) -> Any:
    def both(self: SimulatedTrial) -> None:
        first(self)
        second()

    return both


def test_a_bug_is_tried_again_and_then_ends_the_study(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated())
    session.ledger.release(claim(session))  # an interruption is no failure
    monkeypatch.setattr(trials, "start", _raise(ZeroDivisionError("in my model")))
    work_on(session, claim(session))
    assert session.ledger.rows()[0].state == "free"
    with pytest.raises(TrialError, match=r"ZeroDivisionError: in my model"):
        work_on(session, claim(session))
    failed = session.ledger.rows()[0]
    assert (failed.state, failed.outcome, failed.failure) == ("done", "failed", "bug")
    assert optuna_trials(session)[0].state == TrialState.RUNNING  # it goes on once the row is opened again


def test_bad_data_end_the_study_at_once(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(simulated())
    monkeypatch.setattr(trials, "start", _raise(DataError("image 3 is torn")))
    with pytest.raises(TrialError, match="image 3 is torn"):
        work_on(session, claim(session))
    assert session.ledger.rows()[0].failure == "data"


@pytest.mark.parametrize("where", ["__init__", "epochs", "train_value"])
def test_out_of_memory_counts_as_diverged_and_says_so(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    session = make_session(simulated(search={"pruner": "none"}))
    monkeypatch.setattr(SimulatedTrial, where, _raise(TrialError("oom", "no room")))
    row = claim(session)
    work_on(session, row)
    done = session.ledger.row(row.id)
    assert (done.outcome, done.failure, done.message) == ("diverged", "oom", "no room")
    assert optuna_trials(session)[0].value == 0.0


def test_losing_the_row_while_giving_it_up_is_quiet(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session, other = make_session(simulated(), owner="me"), make_session(simulated(), owner="other")
    row = claim(session)

    def start(*args: Any, **kwargs: Any) -> Any:
        expire(session)
        assert other.ledger.claim("other", "search") is not None
        raise ZeroDivisionError

    monkeypatch.setattr(trials, "start", start)
    work_on(session, row)
    assert (other.ledger.row(row.id).owner, other.ledger.row(row.id).failure) == ("other", None)


def _raise(error: BaseException | type[BaseException]) -> Any:
    def raising(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raising
