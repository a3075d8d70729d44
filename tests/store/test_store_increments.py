"""What a refresh reads: everything that has changed, at a cost that does not grow with what is finished."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from ralr_tune.records import EpochRecord, Row
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.increments import LiveRows
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.tables import ledger as table
from tests.statements import executed

EPOCHS = 30
CURVE = [EpochRecord(epoch, 0.5, 1.0, 0.1, 1.0, 0.1) for epoch in range(1, EPOCHS + 1)]


def planned(count: int, first: int = 0) -> list[PlannedRow]:
    return [PlannedRow("ralr", "search", 1, ordinal, seed=ordinal) for ordinal in range(first, first + count)]


def claimed(ledger: Ledger) -> Row:
    row = ledger.claim("me", "search")
    assert row is not None
    return row


def finish(ledger: Ledger, row: Row, **more: Any) -> None:
    ledger.finish(row, outcome="complete", value=0.5, curve=CURVE, seconds=1.0, **more)


@pytest.fixture
def ledger(sqlite_url: str) -> Ledger:
    made = Ledger(open_storage(sqlite_url), "sim", lease_s=300)
    made.plan(planned(6))
    return made


def as_read(ledger: Ledger) -> list[Row]:
    return ledger.rows(curves=False)


def test_every_change_is_seen(ledger: Ledger) -> None:
    live = LiveRows(ledger.storage, "sim")
    assert [row.ordinal for row in live.refresh()] == [0, 1, 2, 3, 4, 5]
    assert live.refresh() == []
    first, second = claimed(ledger), claimed(ledger)
    assert [(row.ordinal, row.state) for row in live.refresh()] == [(0, "held"), (1, "held")]
    ledger.progress(first, CURVE[0], curve=CURVE[:1])
    ledger.release(second)
    assert [(row.ordinal, row.state, row.epoch) for row in live.refresh()] == [(0, "held", 1), (1, "free", 0)]
    finish(ledger, first)
    third = claimed(ledger)  # the second again, claimed and done between two refreshes
    ledger.fail(third, kind="bug", message="torn", retry=False)
    assert [(row.ordinal, row.outcome) for row in live.refresh()] == [(0, "complete"), (1, "failed")]
    ledger.plan(planned(8))
    assert [row.ordinal for row in live.refresh()] == [6, 7]
    ledger.withdraw("ralr", 1, keep=7)
    ledger.reopen_failed()
    assert [(row.ordinal, row.state) for row in live.refresh()] == [(1, "free")]
    assert live.rows == as_read(ledger)


def test_a_row_whose_worker_is_gone_waits(ledger: Ledger) -> None:
    live = LiveRows(ledger.storage, "sim")
    claimed(ledger)
    live.refresh()
    ledger.storage.change(update(table).values(lease_end=1.0).where(table.c.state == "held"))
    assert [row.state for row in live.refresh()] == ["free"]
    finish(ledger, claimed(ledger))
    assert [row.outcome for row in live.refresh()] == ["complete"]


def test_a_row_that_was_committed_late_is_found(ledger: Ledger) -> None:
    live = LiveRows(ledger.storage, "sim")
    late, other = claimed(ledger), claimed(ledger)
    ledger.release(late)
    finish(ledger, other)
    live.refresh()
    finish(ledger, claimed(ledger))
    ledger.storage.change(update(table).values(finished=1e9).where(table.c.id == late.id))
    assert [row.id for row in live.refresh()] == [late.id]


def test_random_changes_between_refreshes(ledger: Ledger) -> None:
    draw, held = random.Random(0), []
    live = LiveRows(ledger.storage, "sim")
    for _ in range(60):
        choice = draw.choice(["claim", "progress", "finish", "release", "fail", "plan", "reopen", "refresh"])
        if choice == "claim" and (row := ledger.claim("me", "search")) is not None:
            held.append(row)
        elif choice == "progress" and held:
            ledger.progress(draw.choice(held), CURVE[2], curve=CURVE[:3])
        elif choice in ("finish", "release", "fail") and held:
            row = held.pop(draw.randrange(len(held)))
            if choice == "fail":
                ledger.fail(row, kind="bug", message="torn", retry=False)
            else:
                finish(ledger, row) if choice == "finish" else ledger.release(row)
        elif choice == "plan":
            ledger.plan(planned(1, first=draw.randrange(20)))
        elif choice == "reopen":
            ledger.reopen_failed()
        elif choice == "refresh":
            live.refresh()
            assert live.rows == as_read(ledger)


def cost(url: str, trials: int) -> tuple[int, int, int]:
    """(statements, rows, characters of curves) of a refresh with two running rows, after `trials` have finished."""
    ledger = Ledger(open_storage(url), "sim", lease_s=300)
    ledger.plan(planned(trials + 4))
    for _ in range(trials):
        finish(ledger, claimed(ledger))
    ledger.storage.change(update(table).values(finished=1e9 + 60 * table.c.id).where(table.c.state == "done"))
    running = [claimed(ledger) for _ in range(2)]
    live = LiveRows(ledger.storage, "sim")
    live.refresh()
    finish(ledger, running[0])
    ledger.progress(running[1], CURVE[1], curve=CURVE[:2])
    read: list[Any] = []
    rows = Storage.rows

    def counted(storage: Storage, query: Any) -> Any:
        found = rows(storage, query)
        read.extend(found)
        return found

    with pytest.MonkeyPatch.context() as patch, executed(ledger.storage) as statements:
        patch.setattr(Storage, "rows", counted)
        assert len(live.refresh()) == 2
    texts = sum(len(found.get("curve") or "") for found in read)
    return len(statements), len(read), texts


def test_the_cost_of_a_refresh_does_not_grow_with_the_finished_trials(new_database: Callable[..., str]) -> None:
    few, many = cost(new_database("sqlite"), 5), cost(new_database("sqlite"), 80)
    assert few == many
    statements, rows, characters = many
    assert statements <= 5
    assert rows <= 8
    assert characters < len(json.dumps([0.5] * EPOCHS))  # that of the running row
