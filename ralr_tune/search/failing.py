"""What happens to a row whose trial fails: each kind of failure has its own policy (our choice).

oom       training continues with smaller micro-batches; if even these do not fit in memory, handled as diverged
diverged  the configuration counts as a trial and is reported to the sampler with the worst value
data      ends the study: every other trial would fail in the same way
bug       the row is retried (the machine may be the cause); MAX_BUGS equal failures, in any rows, end the study
lost      the worker, or the program that trains, was ended from outside: the next attempt resumes from the checkpoint;
          MAX_LOSSES in a row without a new epoch end the study
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace

from ralr_tune.errors import DataError, FailureKind, TrialError
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.search.stages import describe, study_ended
from ralr_tune.search.telling import tell
from ralr_tune.secrecy import hidden
from ralr_tune.store import incidents
from ralr_tune.studyfile.problems import cut, one_line

log = logging.getLogger(__name__)

CONFIGURATION_FAILURES: tuple[FailureKind, ...] = ("diverged", "oom")
"""Failures that the configuration itself causes: reported to the sampler, never retried."""

MAX_BUGS = 3
MAX_LOSSES = 10
_MAX_MESSAGE = 2000
"""Characters of an error message that are stored."""


def kind_of(error: Exception) -> FailureKind:
    """The kind of failure that an exception raised by a trial stands for."""
    if isinstance(error, TrialError):
        return error.kind
    return "data" if isinstance(error, DataError) else "bug"


def record_diverged(session: Session, row: Row, kind: FailureKind, message: str) -> None:
    """Finish a row whose configuration caused the failure: it counts as a trial, without a value."""
    text = clean_message(message)
    session.ledger.finish(row, outcome="diverged", value=None, curve=(), seconds=0.0, failure=kind, message=text)
    session.forget(row)
    if row.stage == "search":
        tell(session, session.ledger.row(row.id))


def retry_or_end(session: Session, row: Row, kind: FailureKind, error: Exception) -> None:
    """Handle a failure that the configuration did not cause: retry the row, or end the study (TrialError)."""
    stored_log = None if session.published is None else session.published.shown_log(row)
    copied = f" (a copy of its output: {stored_log})" if stored_log else ""
    message = clean_message(f"{type(error).__name__}: {error}{copied}")
    if kind == "lost":
        _retry_lost(session, row, message)
        return
    signature = incidents.signature_of_error(error)
    detail = "\n".join(map(one_line, hidden("".join(traceback.format_exception(error))).splitlines()))
    times = 1 + incidents.count_equal(session.storage, session.ledger.key, signature)
    retry = kind == "bug" and times < MAX_BUGS
    session.ledger.fail(row, kind=kind, message=message, retry=retry, detail=detail, signature=signature)
    _log_failure(row, message, detail, times)
    if not retry:
        often = f" {times} times" if times > 1 else ""
        raise study_ended(row, kind, f"failed{often}: {message}") from error


def _retry_lost(session: Session, row: Row, message: str) -> None:
    """Free a row whose program was ended from outside, and record the loss, as the next worker does for a lost one."""
    reached = session.ledger.row(row.id).epoch  # `row` is as it was claimed
    session.ledger.fail(replace(row, epoch=reached), kind="lost", message=message, retry=True)
    log.warning("row %d (%s) lost its program: %s", row.id, describe(row), message)


def end_if_lost_repeatedly(session: Session, row: Row) -> None:
    """Raise TrialError, which ends the study, if a row loses every worker or program that trains it.

    The operating system kills a process that uses too much memory, and a bug in a native library can crash it: without
    a limit, each next one would die in the same way.
    """
    if row.attempt <= MAX_LOSSES:
        return
    found = incidents.of_row(session.storage, session.ledger.key, row.id)
    lost = {each.attempt: each for each in found if each.kind == "lost"}
    last = [lost[attempt] for attempt in range(row.attempt - MAX_LOSSES, row.attempt) if attempt in lost]
    if len(last) == MAX_LOSSES and all(each.epoch == row.epoch for each in last):
        message = clean_message(
            f"lost its worker or program {MAX_LOSSES} times in a row after epoch {row.epoch}: the system killed it for "
            "using too much memory, or a library crashed; read the logs of workers and programs, fix the cause, then "
            f"`run` retries it; the last time: {last[-1].message}"
        )
        session.ledger.fail(row, kind="lost", message=message, retry=False)
        raise study_ended(row, "lost", message)


def clean_message(message: str) -> str:
    """An error message as it is stored: one line of limited length, in characters that every database accepts.

    Secrets are masked: the user's own code may put its environment into a message.
    """
    return cut(one_line(hidden(message)), _MAX_MESSAGE)


def _log_failure(row: Row, message: str, detail: str, times: int) -> None:
    """Log the traceback of the first of equal failures; of later ones, the message alone."""
    if times == 1:
        log.error("row %d (%s) failed:\n%s", row.id, describe(row), detail)
    else:
        log.error("row %d (%s) failed: %s (the same as before, %d times now)", row.id, describe(row), message, times)
