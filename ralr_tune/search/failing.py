"""What becomes of a row whose trial fails: each kind of failure has its policy (ours).

oom       training goes on in smaller micro-batches; where even that has no room, as diverged
diverged  the configuration counts as a trial, and the sampler is told that it was as bad as can be
data      ends the study: every other trial would meet it, too
bug       the row is tried again (it may be the machine's); MAX_BUGS equal ones, in whichever rows, end the study
lost      the next worker goes on from the checkpoint; MAX_LOSSES in a row without a new epoch end the study
"""

from __future__ import annotations

import logging
import traceback

from ralr_tune.errors import DataError, FailureKind, TrialError
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.search.telling import tell
from ralr_tune.secrecy import hidden
from ralr_tune.store import incidents
from ralr_tune.studyfile.problems import cut, one_line

log = logging.getLogger(__name__)

CONFIGURATION_FAILURES: tuple[FailureKind, ...] = ("diverged", "oom")
"""Failures of the configuration itself: told to the sampler, never tried again."""

MAX_BUGS = 3
MAX_LOSSES = 10
_MAX_MESSAGE = 2000
"""Characters of a message; a traceback has more."""


def kind_of(error: Exception) -> FailureKind:
    """The kind of failure that an exception out of a trial is."""
    if isinstance(error, TrialError):
        return error.kind
    return "data" if isinstance(error, DataError) else "bug"


def record_diverged(session: Session, row: Row, kind: FailureKind, message: str) -> None:
    """The configuration is at fault: it counts as a trial, with no value."""
    said = clean_message(message)
    session.ledger.finish(row, outcome="diverged", value=None, curve=(), seconds=0.0, failure=kind, message=said)
    session.artifacts.forget(row)
    if row.stage == "search":
        tell(session, session.ledger.row(row.id))


def retry_or_end(session: Session, row: Row, kind: FailureKind, error: Exception) -> None:
    """Neither the configuration's fault nor mended: try the row again, or end the study (TrialError)."""
    message = clean_message(f"{type(error).__name__}: {error}")
    signature = incidents.signature_of_error(error)
    detail = "\n".join(map(one_line, hidden("".join(traceback.format_exception(error))).splitlines()))
    times = 1 + incidents.count_equal(session.storage, session.spec.name, signature)
    retry = kind == "bug" and times < MAX_BUGS
    session.ledger.fail(row, kind=kind, message=message, retry=retry, detail=detail, signature=signature)
    _log_failure(row, message, detail, times)
    if not retry:
        often = f" {times} times" if times > 1 else ""
        raise study_ended(row, kind, f"failed{often}: {message}") from error


def end_if_lost_repeatedly(session: Session, row: Row) -> None:
    """Raise TrialError, the study ended, where a row takes every worker down with it.

    The operating system kills a process that takes too much memory, and so does a fault in a library: the next worker
    would fare alike, for ever.
    """
    if row.attempt <= MAX_LOSSES:
        return
    lost = {each.attempt: each.epoch for each in incidents.of_row(session.storage, session.spec.name, row.id)}
    if all(lost.get(attempt) == row.epoch for attempt in range(row.attempt - MAX_LOSSES, row.attempt)):
        message = (
            f"lost its worker {MAX_LOSSES} times in a row after epoch {row.epoch}: killed by the system for taking too "
            "much memory, or crashed in a library; see the workers' logs, then `run` tries it again"
        )
        session.ledger.fail(row, kind="lost", message=message, retry=False)
        raise study_ended(row, "lost", message)


def clean_message(message: str) -> str:
    """What is kept of an error's message: one line that is not too long, in characters that every database takes.

    Without secrets: somebody's own code may tell its environment.
    """
    return cut(one_line(hidden(message)), _MAX_MESSAGE)


def study_ended(row: Row, kind: FailureKind, what: str) -> TrialError:
    """That a row ended the study: which one, what happened to it, and the way out where there is another."""
    way_out = "; an audit: with audit = 0 under [search], `run` goes on without it" if row.stage == "audit" else ""
    return TrialError(kind, f"{_describe(row)} {what}{way_out}")


def _describe(row: Row) -> str:
    """A row in words."""
    return f"arm {row.arm}, {row.stage} {row.ordinal}"


def _log_failure(row: Row, message: str, detail: str, times: int) -> None:
    """The first traceback of equal ones, once."""
    if times == 1:
        log.error("row %d (%s) failed:\n%s", row.id, _describe(row), detail)
    else:
        log.error("row %d (%s) failed: %s (the same as before, %d times now)", row.id, _describe(row), message, times)
