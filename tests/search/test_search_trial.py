from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from ralr_tune.errors import DataError, DiskError, Interrupted, TrialError
from ralr_tune.kinds.simulated.kind import SimulatedKind
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.records import EpochRecord, Row
from ralr_tune.search import trial as trials
from ralr_tune.search.failing import MAX_BUGS, MAX_LOSSES
from ralr_tune.search.pruning import Judge
from ralr_tune.search.session import Session
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.store import incidents, studies
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.training.checkpoint import Checkpoints
from tests.search.conftest import MakeSession
from tests.studies import loaded_task, simulated


class Killed(BaseException):
    """Simulates SIGKILL: no handler of this package catches it."""


def optuna_trials(session: Session, arm: str = "monotone") -> list[FrozenTrial]:
    study = studies.optuna_study(session.storage, studies.optuna_name(session.spec.name, arm))
    return study.get_trials(deepcopy=False)


def claim(session: Session) -> Row:
    row = session.ledger.claim(session.owner, "search")
    assert row is not None
    return row


def expire(session: Session) -> None:
    """Let every lease expire now, as if its holder had been suspended for a long time."""
    short = Ledger(session.storage, session.spec.name, lease_s=-1)
    for row in session.ledger.rows():
        if row.state == "held":
            short.renew_lease(row)


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
    assert not list((session.out / "checkpoints").glob("*"))  # a finished trial leaves no files


def test_a_bad_trial_is_pruned_and_keeps_its_curve(make_session: MakeSession) -> None:
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


def test_a_diverged_trial_is_reported_with_the_worst_value_and_marked(make_session: MakeSession) -> None:
    session = make_session(simulated(task={"data": {"diverges_above": 1e-9}}))
    row = claim(session)
    work_on(session, row)
    done = session.ledger.row(row.id)
    (told,) = optuna_trials(session)
    assert (done.outcome, done.failure, done.value) == ("diverged", "diverged", None)
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.0)
    assert told.user_attrs["ralr_tune:diverged"] == "diverged"


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_another_worker_resumes_a_trial_that_was_killed_at_any_epoch(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, epoch: int, tmp_path: Path
) -> None:
    spec = simulated(search={"pruner": "none"})
    whole = make_session(spec, url=f"sqlite:///{tmp_path}/whole.db")
    work_on(whole, claim(whole))
    first = make_session(spec, owner="first")
    row = claim(first)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _kill_after(epoch, Checkpoints.save))
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
    """Simulates a kill after this many checkpoints."""
    saved = count(1)

    def killing(self: Checkpoints, content: bytes) -> None:
        save(self, content)
        if next(saved) == epoch:
            raise Killed

    return killing


def test_an_orphan_is_adopted_after_a_kill_between_asking_and_attaching(
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


def test_the_next_worker_reports_a_trial_after_a_kill_between_done_and_tell(
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


def test_a_worker_suspended_beyond_its_lease_writes_nothing(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = simulated(search={"pruner": "none"})
    suspended, other = make_session(spec, owner="suspended"), make_session(spec, owner="other")
    row = claim(suspended)
    epochs = SimulatedTrial.epochs

    def sleeping(self: SimulatedTrial) -> Generator[EpochRecord, None, None]:
        for record in epochs(self):
            if record.epoch == 2:
                monkeypatch.setattr(SimulatedTrial, "epochs", epochs)
                expire(suspended)
                work_on(other, claim(other))
            yield record

    monkeypatch.setattr(SimulatedTrial, "epochs", sleeping)
    work_on(suspended, row)  # ends without an error
    done = other.ledger.row(row.id)
    assert (done.owner, done.attempt, done.outcome) == ("other", 2, "complete")
    assert [told.state for told in optuna_trials(other)] == [TrialState.COMPLETE]


# A worker that was suspended beyond its lease changes nothing, wherever the suspension ends


@dataclass(frozen=True)
class Suspension:
    """Suspends a worker before it enters `method` of `owner`, until another worker has finished its row."""

    owner: Any
    method: str

    def install(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
        entered = getattr(self.owner, self.method)

        def sleep(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(self.owner, self.method, entered)
            meanwhile()
            return entered(*args, **kwargs)

        monkeypatch.setattr(self.owner, self.method, sleep)


SUSPENSIONS = {
    "ask": Suspension(studies, "ask"),
    "attach": Suspension(Ledger, "attach"),
    "suggest": Suspension(trials, "suggest"),
    "checkpoint": Suspension(Checkpoints, "save"),
    "report": Suspension(Ledger, "progress"),
    "prune": Suspension(Judge, "should_prune"),
    "finish": Suspension(Ledger, "finish"),
    "tell": Suspension(trials, "tell"),
}


@pytest.mark.parametrize("suspension", SUSPENSIONS.values(), ids=list(SUSPENSIONS))
def test_a_suspended_worker_changes_nothing(
    suspension: Suspension, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = simulated(arms={"monotone": {}}, search={"pruner": "none", "trials": 1, "sampler": "random"})
    suspended, other = make_session(spec, owner="suspended"), make_session(spec, owner="other")
    row = claim(suspended)
    kept: list[tuple[Row, list[FrozenTrial], list[bytes]]] = []

    def meanwhile() -> None:
        expire(suspended)
        if (again := other.ledger.claim("other", "search")) is not None:
            work_on(other, again)
        kept.append(state())

    def state() -> tuple[Row, list[FrozenTrial], list[bytes]]:
        settle(other)
        files = [path.read_bytes() for path in sorted(other.out.rglob("*")) if path.is_file()]
        told = [trial for trial in optuna_trials(other) if trial.state != TrialState.FAIL]  # strays end as FAIL
        return other.ledger.row(row.id), told, files

    suspension.install(monkeypatch, meanwhile)
    work_on(suspended, row)
    assert state() == kept[0]
    done, told, files = kept[0]
    assert (done.outcome, len(told), files) == ("complete", 1, [])
    assert told[0].params == _as_trained(done, told[0])


def test_a_suspended_worker_whose_trial_another_has_finished_ends_without_an_error(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = simulated(search={"pruner": "none"})
    first, suspended, other = (make_session(spec, owner=name) for name in ("first", "suspended", "other"))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _kill_after(2, Checkpoints.save))
        with pytest.raises(Killed):
            work_on(first, claim(first))
    expire(first)
    row = claim(suspended)

    def meanwhile() -> None:
        expire(suspended)
        work_on(other, claim(other))

    Suspension(studies, "resume_trial").install(monkeypatch, meanwhile)
    work_on(suspended, row)
    done = other.ledger.row(row.id)
    assert (done.owner, done.attempt, done.outcome) == ("other", 3, "complete")


def _as_trained(row: Row, told: FrozenTrial) -> dict[str, Any]:
    """The parameters, if the row's curve was trained with them."""
    spec = simulated()
    task = loaded_task(spec)
    trial = SimulatedTrial(task, spec.configuration("monotone", told.params), seed=row.seed)  # type: ignore[arg-type]
    again = [record.value for record in trial.epochs()]
    return told.params if [record.value for record in row.curve] == again else {}


@pytest.mark.parametrize("suspension", ["checkpoint", "report", "weights", "finish"])
def test_a_suspended_worker_in_confirm_changes_neither_row_nor_weights(
    suspension: str, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = simulated()
    suspended, other = make_session(spec, owner="suspended"), make_session(spec, owner="other")
    plan_judged(suspended.ledger)
    row = suspended.ledger.claim("suspended", "judge")
    assert row is not None
    kept: list[tuple[Row, dict[str, bytes]]] = []

    def meanwhile() -> None:
        expire(suspended)
        again = other.ledger.claim("other", "judge")
        assert again is not None
        work_on(other, again)
        kept.append(state())

    def state() -> tuple[Row, dict[str, bytes]]:
        files = {path.name: path.read_bytes() for path in sorted(other.out.rglob("*")) if path.is_file()}
        return other.ledger.row(row.id), files

    suspensions = SUSPENSIONS | {"weights": Suspension(SimulatedTrial, "save_weights")}
    suspensions[suspension].install(monkeypatch, meanwhile)
    work_on(suspended, row)
    assert state() == kept[0]
    assert (kept[0][0].owner, kept[0][0].outcome) == ("other", "complete")
    assert list(kept[0][1]) == [other.artifacts.weights(row).name]


def plan_judged(ledger: Ledger) -> None:
    params = {"lr": 0.1, "weight_decay": 1e-4}
    ledger.plan([PlannedRow("monotone", "judge", 1, 0, seed=5, role="best", source=0, params=params)])


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


def test_a_stop_request_frees_the_row_and_keeps_its_epochs(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"pruner": "none"}))
    monkeypatch.setattr(Checkpoints, "save", _then(Checkpoints.save, session.stop.request))
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
    def both(self: Checkpoints, content: bytes) -> None:
        first(self, content)
        second()

    return both


def test_a_bug_is_retried_and_equal_bugs_end_the_study(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = make_session(simulated())
    session.ledger.release(claim(session))  # an interruption is not a failure
    monkeypatch.setattr(SimulatedKind, "trial", _raise(ZeroDivisionError("in my model")))
    for _ in range(MAX_BUGS - 1):
        work_on(session, claim(session))
        assert session.ledger.rows()[0].state == "free"
    with pytest.raises(TrialError, match=rf"failed {MAX_BUGS} times: ZeroDivisionError: in my model"):
        work_on(session, claim(session))
    failed = session.ledger.rows()[0]
    assert (failed.state, failed.outcome, failed.failure) == ("done", "failed", "bug")
    assert optuna_trials(session)[0].state == TrialState.RUNNING  # it continues once the row is reopened
    assert caplog.text.count("Traceback") == 1  # only that of the first failure
    assert incidents.counts(session.storage, "sim") == {"bug": MAX_BUGS}


AWKWARD = "a\nb\0c\ud800d\x1b[2J" + "e" * 5000


@pytest.mark.parametrize("error", [RuntimeError(AWKWARD), DataError(AWKWARD), TrialError("oom", AWKWARD)])
def test_every_database_accepts_any_error_message(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, storage_url: str, error: Exception
) -> None:
    """File names may contain surrogates, and PostgreSQL's texts must not contain NUL."""
    session = make_session(simulated(), url=storage_url)
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedKind, "trial", _raise(error))
        with suppress(TrialError):  # bad data ends the study
            work_on(session, claim(session))
    kept = session.ledger.rows()[0].message or ""
    assert r"a\nb\x00c\ud800d\x1b[2Jee" in kept
    assert len(kept) < 3000
    latest = incidents.latest(session.storage, "sim")
    assert latest is not None
    assert latest.message == kept
    assert all(map(str.isprintable, latest.detail.splitlines()))


def test_different_bugs_of_one_row_are_counted_apart(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated())
    for error in (ZeroDivisionError("a"), KeyError("b"), ZeroDivisionError("c"), KeyError("d")):
        monkeypatch.setattr(SimulatedKind, "trial", _raise(error))
        work_on(session, claim(session))
    monkeypatch.undo()
    work_on(session, claim(session))
    assert session.ledger.rows()[0].outcome == "complete"


def test_a_row_that_kills_every_worker_ends_the_study_until_the_next_run(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"pruner": "none"}))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _kill_after(2, Checkpoints.save))
        with pytest.raises(Killed):
            work_on(session, claim(session))
        expire(session)
        patch.setattr(SimulatedTrial, "epochs", _raise(Killed))  # from now on it finishes no further epoch
        for _ in range(MAX_LOSSES):
            with pytest.raises(Killed):
                work_on(session, claim(session))
            expire(session)
        with pytest.raises(
            TrialError, match=rf"lost its worker or program {MAX_LOSSES} times in a row after epoch 2.*memory"
        ):
            work_on(session, claim(session))
    assert session.ledger.rows()[0].failure == "lost"
    assert session.ledger.reopen_failed() == 1
    work_on(session, claim(session))
    assert session.ledger.rows()[0].outcome == "complete"


def test_losses_with_new_epochs_between_them_do_not_end_the_study(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(training={"epochs": MAX_LOSSES + 3}, search={"pruner": "none"}))
    monkeypatch.setattr(Checkpoints, "save", _then(Checkpoints.save, _raise(Killed)))
    for _ in range(MAX_LOSSES + 2):
        with pytest.raises(Killed):
            work_on(session, claim(session))
        expire(session)
    monkeypatch.undo()
    work_on(session, claim(session))
    assert session.ledger.rows()[0].outcome == "complete"


def test_a_full_disk_ends_the_worker_and_not_the_trial(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"pruner": "none"}))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _raise(DiskError("out/checkpoints: no space left")))
        with pytest.raises(DiskError):
            work_on(session, claim(session))
    freed = session.ledger.rows()[0]
    assert (freed.state, freed.outcome, freed.failure) == ("free", None, None)
    work_on(session, claim(session))
    assert session.ledger.rows()[0].outcome == "complete"


def test_bad_data_end_the_study_at_once(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(simulated())
    monkeypatch.setattr(SimulatedKind, "trial", _raise(DataError("image 3 is torn")))
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


def test_losing_the_row_while_handling_its_failure_is_no_error(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, other = make_session(simulated(), owner="me"), make_session(simulated(), owner="other")
    row = claim(session)

    def start(*args: Any, **kwargs: Any) -> Any:
        expire(session)
        assert other.ledger.claim("other", "search") is not None
        raise ZeroDivisionError

    monkeypatch.setattr(SimulatedKind, "trial", start)
    work_on(session, row)
    assert (other.ledger.row(row.id).owner, other.ledger.row(row.id).failure) == ("other", None)


def _raise(error: BaseException | type[BaseException]) -> Any:
    def raising(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raising
