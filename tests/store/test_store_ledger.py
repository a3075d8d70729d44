from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from ralr_tune.errors import LeaseLost, StorageError
from ralr_tune.records import EpochRecord, Row
from ralr_tune.store.claiming import Claim
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Count, Ledger, PlannedRow
from ralr_tune.store.tables import Now
from ralr_tune.store.tables import ledger as table

Together = Callable[[int, Callable[[int], Any]], list[Any]]

CURVE = (
    EpochRecord(epoch=1, value=0.5, train_loss=1.25, lr=0.1, factor=1.0, seconds=0.25),
    EpochRecord(epoch=2, value=0.625, train_loss=math.inf, lr=0.15, factor=1.5, seconds=0.25),
)


def epoch(number: int, value: float) -> EpochRecord:
    return EpochRecord(number, value, train_loss=1.0, lr=0.1, factor=1.0, seconds=0.25)


def search(arm: str = "ralr", ordinals: int = 3, block: int = 1) -> list[PlannedRow]:
    return [PlannedRow(arm, "search", block, ordinal, seed=2**48 - 1 - ordinal) for ordinal in range(ordinals)]


def claimed(ledger: Ledger, owner: str = "me") -> Row:
    row = ledger.claim(owner, "search")
    assert row is not None
    return row


def again(ledger: Ledger) -> Ledger:
    """The same ledger, as another process would open it."""
    return Ledger(open_storage(ledger.storage.url), ledger.study, ledger.lease_s)


# Planning


def test_planned_rows_come_back(ledger: Ledger) -> None:
    twin = PlannedRow("ralr", "judge", 2, 7, seed=1, role="twin", source=4, params={"lr": 0.1, "name": "ä"})
    assert ledger.plan([*search(), twin]) == 4
    first, *_, last = ledger.rows()
    assert (first.arm, first.stage, first.block, first.ordinal, first.role) == ("ralr", "search", 1, 0, "")
    assert (first.seed, first.params, first.source, first.trial) == (2**48 - 1, {}, None, None)
    assert (first.state, first.attempt, first.epoch, first.owner, first.curve) == ("free", 0, 0, None, ())
    assert (last.role, last.source, last.params) == ("twin", 4, {"lr": 0.1, "name": "ä"})
    assert [row.ordinal for row in ledger.rows("search")] == [0, 1, 2]


def test_planning_twice_plans_once(ledger: Ledger) -> None:
    assert ledger.plan(search(ordinals=3)) == 3
    row = claimed(ledger)
    assert ledger.plan(search(ordinals=3)) == 0
    assert ledger.plan(search(ordinals=5)) == 2
    assert ledger.plan([*search("other", 1), *search("other", 1)]) == 1
    assert ledger.row(row.id).state == "held"


def test_one_ordinal_may_repeat_several_configurations(ledger: Ledger) -> None:
    rows = [PlannedRow("ralr", "choose", 1, 0, seed=0, role="best", source=source) for source in (3, 0, 3)]
    assert ledger.plan(rows) == 2
    assert [row.source for row in ledger.rows("choose")] == [3, 0]
    assert ledger.plan(rows) == 0


def test_studies_do_not_see_each_other(ledger: Ledger) -> None:
    theirs = Ledger(ledger.storage, ledger.study.upper())
    ledger.plan(search())
    assert theirs.plan(search(ordinals=1)) == 1
    assert len(theirs.rows()) == 1
    with pytest.raises(StorageError, match=f"study '{theirs.study}' has no ledger row"):
        theirs.row(ledger.rows()[0].id)


def test_arms_that_differ_in_case_are_different(ledger: Ledger) -> None:
    assert ledger.plan([*search("RALR"), *search("ralr")]) == 6
    assert {arm for arm, _ in ledger.counts()} == {"RALR", "ralr"}


def test_names_that_do_not_fit_are_refused(ledger: Ledger) -> None:
    with pytest.raises(StorageError, match=r"arm 'a{201}' has 201 characters; allowed: 1 to 200"):
        ledger.plan(search("a" * 201))
    assert ledger.plan(search("a" * 200)) == 3


def test_many_rows_keep_their_order(ledger: Ledger) -> None:
    rows = [PlannedRow(arm, "search", 1, ordinal, seed=0) for ordinal in range(600) for arm in ("b", "a")]
    assert ledger.plan(rows) == 1200
    assert [(row.arm, row.ordinal) for row in ledger.rows()] == [(row.arm, row.ordinal) for row in rows]


def test_concurrent_planners_plan_once(ledger: Ledger, together: Together) -> None:
    added = together(4, lambda index: again(ledger).plan(search(ordinals=50 + index)))
    assert sorted(row.ordinal for row in ledger.rows()) == list(range(53))
    assert sum(added) == 53


def test_drop_removes_rows_that_are_neither_held_nor_done(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=5))
    held, done, released = claimed(ledger), claimed(ledger), claimed(ledger)
    ledger.finish(done, outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
    ledger.release(released)
    Ledger(ledger.storage, "other").plan(search())
    dropped = [row for row in Ledger(ledger.storage, "other").rows() + ledger.rows() if row.ordinal < 4]
    assert ledger.drop(dropped) == 2
    assert [row.id for row in ledger.rows()] == [held.id, done.id, ledger.rows()[-1].id]
    assert len(Ledger(ledger.storage, "other").rows()) == 3
    assert ledger.drop([]) == 0


def test_the_search_row_of_an_audit_row(ledger: Ledger) -> None:
    ledger.plan([*search(block=2), *search(), *search("monotone")])
    ledger.plan([PlannedRow("ralr", "audit", 2, 1, seed=0, source=5), PlannedRow("gone", "audit", 1, 0, seed=0)])
    audit, orphan = ledger.rows("audit")
    found = ledger.search_row(audit)
    assert (found.stage, found.arm, found.block, found.ordinal) == ("search", "ralr", 2, 1)
    with pytest.raises(StorageError, match=f"search row of ledger row {orphan.id} is gone"):
        ledger.search_row(orphan)


def test_withdraw_removes_only_rows_that_were_never_started(ledger: Ledger) -> None:
    ledger.plan([*search(ordinals=4), *search(block=2), *search("monotone", 4)])
    held = claimed(ledger)
    ledger.release(claimed(ledger))
    assert ledger.withdraw("ralr", 1, keep=0) == 2
    assert [row.ordinal for row in ledger.rows() if row.arm == "ralr" and row.block == 1] == [0, 1]
    assert len(ledger.rows()) == 9
    assert ledger.withdraw("monotone", 1, keep=3) == 1
    ledger.renew_lease(held)


# Claiming


def test_claims_go_by_id_and_stage(ledger: Ledger) -> None:
    ledger.plan([PlannedRow("ralr", "judge", 1, 0, seed=0), *search()])
    before = time.time()
    row = claimed(ledger, "worker-1")
    assert (row.ordinal, row.state, row.attempt, row.owner) == (0, "held", 1, "worker-1")
    assert row == ledger.row(row.id)
    assert row.started is not None
    assert before - 1 < row.started < time.time() + 1
    assert [claimed(ledger).ordinal for _ in range(2)] == [1, 2]
    assert ledger.claim("me", "search") is None
    assert ledger.claim("me", "judge") is not None


def test_a_row_with_an_expired_lease_is_claimed_again_with_the_same_trial(ledger: Ledger, dying: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    old = claimed(dying, "dead")
    dying.attach(old, 17)
    dying.progress(old, epoch(3, 0.5))
    new = claimed(ledger, "alive")
    assert (new.id, new.attempt, new.owner, new.trial, new.epoch) == (old.id, 2, "alive", 17, 3)
    assert new.started == old.started
    assert ledger.claim("third", "search") is None


def test_a_lease_lasts_for_lease_s(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    row = claimed(ledger, "first")
    left = select((table.c.lease_end - Now()).label("left")).where(table.c.id == row.id)
    assert 20 < ledger.storage.rows(left)[0]["left"] <= 30
    ledger.lease_s = 1000
    ledger.renew_lease(row)
    assert 900 < ledger.storage.rows(left)[0]["left"] <= 1000
    assert ledger.claim("second", "search") is None
    ledger.lease_s = 0.01
    ledger.renew_lease(row)
    time.sleep(0.05)
    assert claimed(ledger, "second").attempt == 2


def drain(ledger: Ledger, owner: str) -> list[int]:
    taken = []
    while (row := ledger.claim(owner, "search")) is not None:
        taken.append(row.id)
    return taken


def test_processes_share_the_rows(ledger: Ledger, together: Together) -> None:
    ledger.plan(search(ordinals=100))
    shares = together(8, lambda index: drain(again(ledger), f"worker-{index}"))
    rows = ledger.rows()
    assert sorted(row_id for share in shares for row_id in share) == [row.id for row in rows]
    assert all(row.attempt == 1 for row in rows)
    assert all(row.id in shares[int((row.owner or "").removeprefix("worker-"))] for row in rows)


def test_threads_with_one_owner_name_share_the_rows(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=40))
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.extend(drain(ledger, "same"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [row.id for row in ledger.rows()]


def test_rows_of_dead_workers_are_claimed_once_each(ledger: Ledger, together: Together) -> None:
    ledger.plan(search(ordinals=24))
    dead = [Claim(ledger.storage, ledger.key, "search", "dead", -1, token="token")._try(row) for row in ledger.rows()]
    assert all(dead)
    shares = together(4, lambda index: drain(again(ledger), f"worker-{index}"))
    assert sorted(row_id for share in shares for row_id in share) == [row.id for row in ledger.rows()]
    assert all(row.attempt == 2 for row in ledger.rows())


# What an owner writes


def test_a_finished_row_stores_everything(ledger: Ledger) -> None:
    ledger.plan(search())
    row = claimed(ledger)
    ledger.attach(row, 5)
    ledger.progress(row, epoch(1, 0.5))
    assert (ledger.row(row.id).epoch, ledger.row(row.id).value) == (1, 0.5)
    ledger.renew_lease(row)
    assert (ledger.row(row.id).epoch, ledger.row(row.id).value) == (1, 0.5)
    ledger.finish(row, outcome="complete", value=0.625, curve=CURVE, train_value=0.75, seconds=0.5)
    done = ledger.row(row.id)
    assert (done.state, done.outcome, done.value, done.train_value) == ("done", "complete", 0.625, 0.75)
    assert (done.trial, done.epoch, done.seconds, done.curve, done.owner) == (5, 2, 0.5, CURVE, "me")
    assert done.started is not None
    assert done.finished is not None
    assert done.started <= done.finished
    assert claimed(ledger).id != row.id


def test_numbers_that_are_not_finite_become_none(ledger: Ledger) -> None:
    ledger.plan(search())
    row = claimed(ledger)
    ledger.progress(row, epoch(1, math.inf))
    ledger.finish(
        row,
        outcome="diverged",
        value=math.nan,
        train_value=-math.inf,
        curve=CURVE[:1],
        seconds=1.0,
        failure="diverged",
        message="loss is nan",
    )
    done = ledger.row(row.id)
    assert (done.value, done.train_value, done.failure, done.message) == (None, None, "diverged", "loss is nan")


def test_a_failure_waits_for_another_attempt_or_ends_the_row(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    row = claimed(ledger)
    ledger.attach(row, 3)
    ledger.fail(row, kind="oom", message="x" * 100_000, retry=True)
    waiting = ledger.row(row.id)
    assert (waiting.state, waiting.outcome, waiting.failure, waiting.finished) == ("free", None, "oom", None)
    again = claimed(ledger)
    assert (again.attempt, again.trial) == (2, 3)
    ledger.fail(again, kind="bug", message="broken", retry=False)
    failed = ledger.row(row.id)
    assert (failed.state, failed.outcome, failed.failure, failed.message) == ("done", "failed", "bug", "broken")
    assert failed.finished is not None
    assert ledger.claim("me", "search") is None


def test_failed_rows_are_reopened_as_they_were(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=2))
    ledger.finish(claimed(ledger), outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
    row = claimed(ledger)
    ledger.attach(row, 4)
    ledger.progress(row, epoch(2, 0.25))
    ledger.fail(row, kind="bug", message="broken", retry=False)
    assert ledger.reopen_failed() == 1
    assert ledger.reopen_failed() == 0
    again = claimed(ledger)
    assert (again.id, again.attempt, again.trial, again.epoch) == (row.id, 2, 4, 2)
    assert (again.outcome, again.failure, again.message, again.finished) == (None, None, None, None)
    with pytest.raises(LeaseLost):
        ledger.renew_lease(row)


def test_success_after_a_failure_clears_the_failure(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    ledger.fail(claimed(ledger), kind="lost", message="gone", retry=True)
    row = claimed(ledger)
    ledger.finish(row, outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
    assert (ledger.row(row.id).failure, ledger.row(row.id).message) == (None, None)


def test_a_released_row_waits_without_a_failure(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    row = claimed(ledger)
    ledger.attach(row, 3)
    ledger.progress(row, epoch(2, 0.5))
    ledger.release(row)
    again = claimed(ledger, "next")
    assert (again.attempt, again.trial, again.epoch, again.value) == (2, 3, 2, 0.5)


def test_the_trial_of_a_row_never_changes(ledger: Ledger) -> None:
    ledger.plan(search())
    row = claimed(ledger)
    ledger.attach(row, 3)
    ledger.attach(row, 3)
    with pytest.raises(StorageError, match="has Optuna trial 3, not 4") as raised:
        ledger.attach(row, 4)
    assert not isinstance(raised.value, LeaseLost)
    assert ledger.row(row.id).trial == 3


WRITES: dict[str, Callable[[Ledger, Row], None]] = {
    "renew_lease": lambda ledger, row: ledger.renew_lease(row),
    "progress": lambda ledger, row: ledger.progress(row, epoch(9, 0.9)),
    "attach": lambda ledger, row: ledger.attach(row, 99),
    "finish": lambda ledger, row: ledger.finish(row, outcome="complete", value=0.9, curve=CURVE, seconds=1.0),
    "fail": lambda ledger, row: ledger.fail(row, kind="bug", message="late", retry=False),
    "fail, retry": lambda ledger, row: ledger.fail(row, kind="bug", message="late", retry=True),
    "release": lambda ledger, row: ledger.release(row),
}

AFTERWARDS: dict[str, Callable[[Ledger, Row], None]] = {
    "claimed": lambda ledger, row: None,
    "released": lambda ledger, row: ledger.release(row),
    "failed": lambda ledger, row: ledger.fail(row, kind="oom", message="", retry=False),
    "done": lambda ledger, row: ledger.finish(row, outcome="pruned", value=0.1, curve=(), seconds=1.0),
}


@pytest.mark.parametrize("owner", ["new", "stale"])
def test_a_worker_that_lost_the_lease_changes_nothing(dying: Ledger, owner: str) -> None:
    """Also if the same worker, under the same name, has claimed its own row again."""
    ledger = dying
    ledger.plan(search(ordinals=1))
    for then in AFTERWARDS.values():
        stale = claimed(ledger, "stale")
        new = claimed(ledger, owner)
        then(ledger, new)
        there = ledger.row(new.id)
        for write in WRITES.values():
            with pytest.raises(LeaseLost, match=f"attempt {stale.attempt} of stale is no longer its owner"):
                write(ledger, stale)
        assert ledger.row(new.id) == there
        if there.state == "done":
            ledger.plan([PlannedRow("ralr", "search", 1, new.ordinal + 1, seed=0)])


@pytest.mark.parametrize("write", ["renew_lease", "attach", "finish", "release", "fail, retry"])
def test_a_worker_that_released_the_row_writes_nothing_more(sqlite: Storage, write: str) -> None:
    ledger = Ledger(sqlite, "s")
    ledger.plan(search(ordinals=1))
    row = claimed(ledger)
    ledger.fail(row, kind="oom", message="", retry=False)
    there = ledger.row(row.id)
    if write == "finish":  # already done: the second call counts as a repetition of the first and writes nothing
        WRITES[write](ledger, row)
    else:
        with pytest.raises(LeaseLost):
            WRITES[write](ledger, row)
    assert ledger.row(row.id) == there


def test_an_owner_may_write_late_while_no_other_worker_has_claimed(dying: Ledger) -> None:
    dying.plan(search(ordinals=1))
    row = claimed(dying)
    dying.finish(row, outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
    assert dying.row(row.id).outcome == "complete"


class LostResponse:
    """Commits the next UPDATE, then breaks the connection before its response arrives."""

    armed = False

    def __call__(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if self.armed and statement.startswith("UPDATE"):
            self.armed = False
            raise OperationalError(statement, {}, RuntimeError("lost"), connection_invalidated=True)


@pytest.fixture
def lost(ledger: Ledger) -> Iterator[LostResponse]:
    answer = LostResponse()
    event.listen(ledger.storage.engine, "after_cursor_execute", answer)
    yield answer
    event.remove(ledger.storage.engine, "after_cursor_execute", answer)


@pytest.mark.parametrize("write", sorted(WRITES))
def test_a_lost_response_is_not_a_lost_lease(ledger: Ledger, lost: LostResponse, write: str) -> None:
    ledger.plan(search(ordinals=1))
    lost.armed = True
    row = claimed(ledger)
    assert (row.attempt, row.owner, lost.armed) == (1, "me", False)
    lost.armed = True
    WRITES[write](ledger, row)
    assert not lost.armed


# Counting


def test_counts_give_the_condition_of_every_row(ledger: Ledger, dying: Ledger) -> None:
    ledger.plan([*search("a", 8), PlannedRow("b", "judge", 1, 0, seed=0)])
    for outcome in ("complete", "complete", "pruned", "diverged"):
        ledger.finish(claimed(ledger), outcome=outcome, value=0.5, curve=(), seconds=1.0)
    ledger.fail(claimed(ledger), kind="bug", message="", retry=False)
    claimed(ledger)
    claimed(dying)
    counts = ledger.counts()
    assert counts == {
        ("a", "search"): Count(waiting=2, running=1, complete=2, pruned=1, diverged=1, failed=1),
        ("b", "judge"): Count(waiting=1),
    }
    assert (counts["a", "search"].budget, counts["a", "search"].done) == (8, 5)
    assert (ledger.remaining("search"), ledger.remaining("judge"), ledger.remaining("test")) == (3, 1, 0)


def test_rows_without_curves(ledger: Ledger) -> None:
    ledger.plan(search(ordinals=1))
    ledger.finish(claimed(ledger), outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
    (light,) = ledger.rows(curves=False)
    assert (light.value, light.curve) == (0.5, ())
