from __future__ import annotations

import pytest

from ralr_tune.errors import LeaseLost
from ralr_tune.records import EpochRecord, Row
from ralr_tune.store import incidents, studies
from ralr_tune.store.claiming import Claim
from ralr_tune.store.ledger import Ledger, PlannedRow
from tests.metrics import ACCURACY

RECORD = EpochRecord(1, 0.5, train_loss=1.0, lr=0.1, factor=1.0, seconds=0.25)


def claimed(ledger: Ledger, owner: str = "me") -> Row:
    row = ledger.claim(owner, "search")
    assert row is not None
    return row


def plan(ledger: Ledger, rows: int) -> None:
    ledger.plan(PlannedRow("ralr", "search", 1, ordinal, seed=0) for ordinal in range(rows))


def test_every_kind_of_failure_is_counted_and_the_latest_is_returned(ledger: Ledger) -> None:
    plan(ledger, 4)
    ledger.finish(claimed(ledger), outcome="complete", value=0.5, curve=(RECORD,), seconds=1.0)
    ledger.finish(
        claimed(ledger), outcome="diverged", value=None, curve=(), seconds=1.0, failure="diverged", message="nan"
    )
    ledger.finish(claimed(ledger), outcome="complete", value=0.5, curve=(), seconds=1.0, recovered="in halves")
    bug = claimed(ledger)
    ledger.progress(bug, RECORD)
    ledger.fail(ledger.row(bug.id), kind="bug", message="boom", retry=True, detail="Traceback ...", signature="s")
    assert incidents.counts(ledger.storage, ledger.study) == {"diverged": 1, "oom": 1, "bug": 1}
    last = incidents.latest(ledger.storage, ledger.study)
    assert last is not None
    assert (last.row, last.attempt, last.kind, last.message, last.detail) == (bug.id, 1, "bug", "boom", "Traceback ...")
    assert (last.owner, last.epoch) == ("me", 1)
    assert incidents.count_equal(ledger.storage, ledger.study, "s") == 1
    assert incidents.counts(ledger.storage, "another study") == {}
    assert incidents.latest(ledger.storage, "another study") is None


def test_the_next_worker_records_a_lost_worker(ledger: Ledger, dying: Ledger) -> None:
    plan(ledger, 1)
    old = claimed(dying, "dead")
    dying.progress(old, RECORD)
    new = claimed(ledger, "alive")
    (lost,) = incidents.of_row(ledger.storage, ledger.study, new.id)
    assert (lost.kind, lost.attempt, lost.owner, lost.epoch) == ("lost", 1, "dead", 1)
    assert "dead" in lost.message
    ledger.release(new)
    claimed(ledger, "third")
    assert len(incidents.of_row(ledger.storage, ledger.study, new.id)) == 1  # a released row is not lost


@pytest.mark.parametrize("freed_by", ["failure", "release"])
def test_a_row_that_its_owner_frees_while_another_claims_it_is_not_lost(
    ledger: Ledger, dying: Ledger, monkeypatch: pytest.MonkeyPatch, freed_by: str
) -> None:
    if ledger.storage.address.dialect == "postgresql":
        pytest.skip("a claim locks the row that it reads")
    plan(ledger, 1)
    old = claimed(dying, "suspended beyond its lease")
    reading = Claim._candidates

    def candidates(claim: Claim) -> list[Row]:
        monkeypatch.undo()
        found = reading(claim)
        if freed_by == "failure":
            dying.fail(old, kind="lost", message="the program was ended by SIGKILL", retry=True)
        else:
            dying.release(old)
        return found

    monkeypatch.setattr(Claim, "_candidates", candidates)
    new = claimed(ledger, "alive")
    assert new.attempt == 2
    found = incidents.of_row(ledger.storage, ledger.study, new.id)
    assert [each.message for each in found] == ["the program was ended by SIGKILL"] * (freed_by == "failure")


def test_a_worker_that_lost_the_row_writes_no_incident(ledger: Ledger, dying: Ledger) -> None:
    plan(ledger, 1)
    old = claimed(dying, "dead")
    claimed(ledger, "alive")
    with pytest.raises(LeaseLost):
        dying.fail(old, kind="bug", message="late", retry=True)
    with pytest.raises(LeaseLost):
        dying.finish(old, outcome="complete", value=1.0, curve=(), seconds=0.0, recovered="late")
    assert incidents.counts(ledger.storage, ledger.study) == {"lost": 1}


def test_a_long_traceback_keeps_its_end(ledger: Ledger) -> None:
    plan(ledger, 1)
    ledger.fail(claimed(ledger), kind="bug", message="ä" * 100_000, retry=True, detail="x" * 10**6 + "the end")
    last = incidents.latest(ledger.storage, ledger.study)
    assert last is not None
    assert last.detail.endswith("the end")
    assert len(last.detail) < 50_000


def _raised(number: int) -> BaseException:
    try:
        raise ValueError(f"image {number}")
    except ValueError as error:
        return error


def test_equal_errors_have_one_signature() -> None:
    same = {incidents.signature_of_error(_raised(number)) for number in range(3)}
    assert len(same) == 1
    with pytest.raises(ValueError, match="image 0") as elsewhere:
        raise ValueError("image 0")
    assert incidents.signature_of_error(elsewhere.value) not in same


# Reports


def test_an_epoch_is_reported_once_while_the_lease_is_renewed(ledger: Ledger) -> None:
    storage = ledger.storage
    study = studies.optuna_study(storage, f"{ledger.study}/ralr", metric=ACCURACY)
    plan(ledger, 1)
    row = claimed(ledger)
    trial = studies.ask(study, storage, row.id)
    ledger.progress(row, RECORD, report_to=trial._trial_id)
    ledger.progress(row, EpochRecord(1, 0.9, 1.0, 0.1, 1.0, 0.25), report_to=trial._trial_id)
    ledger.progress(row, EpochRecord(2, 0.6, 1.0, 0.1, 1.0, 0.25), report_to=trial._trial_id)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == {1: 0.5, 2: 0.6}
    assert (ledger.row(row.id).epoch, ledger.row(row.id).value) == (2, 0.6)


def test_a_worker_that_lost_the_row_reports_nothing(ledger: Ledger, dying: Ledger) -> None:
    storage = ledger.storage
    study = studies.optuna_study(storage, f"{ledger.study}/ralr", metric=ACCURACY)
    plan(ledger, 1)
    old = claimed(dying, "sleeper")
    trial = studies.ask(study, storage, old.id)
    claimed(ledger, "other")
    with pytest.raises(LeaseLost):
        dying.progress(old, RECORD, report_to=trial._trial_id)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == {}


def test_the_pruner_sees_cached_reports(ledger: Ledger) -> None:
    study = studies.optuna_study(ledger.storage, f"{ledger.study}/ralr", metric=ACCURACY)
    trial = studies.ask(study, ledger.storage, 1)
    studies.cache_report(trial, RECORD)
    assert trial._get_latest_trial().intermediate_values == {1: 0.5}
