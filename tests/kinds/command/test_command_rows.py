"""A program and the row of the ledger that its worker holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ralr_tune.errors import Interrupted, TrialError
from ralr_tune.search.failing import MAX_LOSSES
from ralr_tune.search.session import Session
from ralr_tune.search.trial import epochs_of, work_on
from ralr_tune.store import incidents
from ralr_tune.store.ledger import Ledger
from tests.kinds.command.conftest import PROGRAM, Write
from tests.search.conftest import MakeSession, sessions

ANSWERS = PROGRAM.replace(
    """    if client.report(epoch, value(state, "validation"), checkpoint="state.json") != client.CONTINUE:
        sys.exit()
""",
    """    answer = client.report(epoch, value(state, "validation"), checkpoint="state.json")
    with open("answers", "a") as log:
        log.write(answer + " ")
    if answer != client.CONTINUE:
        sys.exit()
""",
)
"""The program, which also writes down the answers."""


@pytest.fixture
def make_session(tmp_path: Path, quick_tables: None) -> Iterator[MakeSession]:
    with sessions(tmp_path) as make:
        yield make


@pytest.fixture
def session(study: Write, folder: Path, make_session: MakeSession) -> Session:
    (folder / "program.py").write_text(ANSWERS)
    return make_session(study(search={"trials": 1, "start": []}))


def killed_in(epoch: int) -> str:
    """The program, which always ends in this epoch as if the system had killed it."""
    report = "    answer = client.report"
    return ANSWERS.replace(report, f"    if epoch == {epoch}:\n        os.kill(os.getpid(), 9)\n{report}")


def answers(folder: Path) -> list[str]:
    return (folder / "answers").read_text().split()


def test_a_fenced_program_reports_nothing_and_is_released(
    session: Session, folder: Path, make_session: MakeSession
) -> None:
    row = session.ledger.claim("me", "search")
    assert row is not None
    work = epochs_of(session, row)
    next(work)
    next(work)  # epoch 1 is reported
    Ledger(session.storage, session.spec.name, lease_s=-1).renew_lease(row)
    other = make_session(session.spec, "other")
    new = other.ledger.claim("other", "search")
    assert new is not None
    assert (new.id, new.attempt) == (row.id, 2)
    assert list(work) == []
    found = other.ledger.row(row.id)
    assert (found.owner, found.epoch) == ("other", 1)
    assert answers(folder) == ["continue", "release"]
    work_on(other, new)
    assert [record.epoch for record in other.ledger.row(row.id).curve] == [1, 2, 3]


def test_a_worker_that_must_leave_releases_the_program_and_the_row(session: Session, folder: Path) -> None:
    row = session.ledger.claim("me", "search")
    assert row is not None
    work = epochs_of(session, row)
    next(work)
    next(work)
    with pytest.raises(Interrupted):
        work.throw(Interrupted("the worker exits"))
    assert answers(folder) == ["release"]
    again = session.ledger.claim("me", "search")
    assert again is not None
    assert (again.id, again.epoch) == (row.id, 1)
    work_on(session, again)
    assert answers(folder) == ["release", "continue", "continue"]  # epochs 2 and 3


def test_a_pruned_program_is_stopped(session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralr_tune.search.pruning.Judge.should_prune", lambda *_: True)
    row = session.ledger.claim("me", "search")
    assert row is not None
    work_on(session, row)
    assert session.ledger.row(row.id).outcome == "pruned"
    assert answers(folder) == ["stop"]


def test_a_program_that_is_killed_resumes_from_its_checkpoint(session: Session, folder: Path) -> None:
    (folder / "program.py").write_text(killed_in(epoch=2))
    for attempt in (1, 2):
        row = session.ledger.claim("me", "search")
        assert row is not None
        assert (row.attempt, row.epoch) == (attempt, attempt - 1)
        work_on(session, row)
    (first, second) = incidents.of_row(session.storage, session.ledger.key, row.id)
    assert [(each.kind, each.attempt, each.epoch) for each in (first, second)] == [("lost", 1, 1), ("lost", 2, 1)]
    assert "was ended by SIGKILL" in first.message
    (folder / "program.py").write_text(ANSWERS)
    last = session.ledger.claim("me", "search")
    assert last is not None
    work_on(session, last)
    assert [record.epoch for record in session.ledger.row(row.id).curve] == [1, 2, 3]
    assert answers(folder) == ["continue"] * 3  # no epoch was reported twice


def test_a_program_that_is_always_killed_ends_the_study_until_the_next_run(session: Session, folder: Path) -> None:
    (folder / "program.py").write_text(killed_in(epoch=1))
    for _ in range(MAX_LOSSES):
        row = session.ledger.claim("me", "search")
        assert row is not None
        work_on(session, row)
    row = session.ledger.claim("me", "search")
    assert row is not None
    with pytest.raises(TrialError, match=rf"program {MAX_LOSSES} times in a row after epoch 0.*last time.*SIGKILL"):
        work_on(session, row)
    (folder / "program.py").write_text(ANSWERS)
    assert session.ledger.reopen_failed() == 1
    again = session.ledger.claim("me", "search")
    assert again is not None
    work_on(session, again)
    assert session.ledger.row(row.id).outcome == "complete"
