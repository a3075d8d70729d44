from __future__ import annotations

import sqlite3

import psycopg
import pymysql
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError

from ralr_tune.errors import StorageError
from ralr_tune.store.address import parse_address
from ralr_tune.store.failures import RETRY_S, pause_s, retry, retry_for, storage_errors, transient


def wrapped(error: Exception, *, lost: bool = False) -> OperationalError:
    return OperationalError("UPDATE x", {}, error, connection_invalidated=lost)


def locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    return error


def from_optuna(cause: Exception) -> Exception:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def as_storage_error(cause: Exception) -> Exception:
    error = StorageError("sqlite:///x: database is locked")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        wrapped(locked()),
        wrapped(psycopg.errors.DeadlockDetected()),
        wrapped(psycopg.errors.SerializationFailure()),
        wrapped(psycopg.errors.AdminShutdown()),
        wrapped(psycopg.errors.TooManyConnections()),
        wrapped(psycopg.errors.IdleInTransactionSessionTimeout()),
        wrapped(psycopg.OperationalError("connection refused")),
        wrapped(psycopg.OperationalError("connection failed: FATAL:  the database system is starting up")),
        wrapped(pymysql.err.OperationalError(1213, "Deadlock found")),
        wrapped(pymysql.err.OperationalError(2013, "Lost connection")),
        wrapped(RuntimeError("any"), lost=True),
        from_optuna(wrapped(locked())),
        from_optuna(PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")),
        as_storage_error(from_optuna(wrapped(locked()))),
    ],
)
def test_transient_errors(error: Exception) -> None:
    assert transient(error)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(sqlite3.OperationalError("no such table: x")),
        wrapped(psycopg.errors.UndefinedTable()),
        wrapped(psycopg.OperationalError("connection failed: fe_sendauth: no password supplied")),
        wrapped(psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "me"')),
        wrapped(psycopg.errors.InsufficientPrivilege()),
        wrapped(pymysql.err.OperationalError(1045, "Access denied")),
        IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE")),
        from_optuna(wrapped(sqlite3.OperationalError("disk I/O error"))),
        StorageInternalError("alone"),
        ValueError("ours"),
    ],
)
def test_permanent_errors(error: Exception) -> None:
    assert not transient(error)


class Flaky:
    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def test_retry_waits_longer_each_time() -> None:
    pauses: list[float] = []
    assert retry(Flaky(5, wrapped(locked())), sleep=pauses.append) == "done"
    assert len(pauses) == 5
    assert all(later > earlier for earlier, later in zip(pauses, pauses[2:], strict=False))


class Clock:
    """A clock that advances only during `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("retry_s", [0, 20, 300])
def test_retry_raises_the_last_error_after_retry_s(retry_s: float) -> None:
    clock = Clock()
    flaky = Flaky(10_000, wrapped(locked()))
    with pytest.raises(OperationalError):
        retry(flaky, retry_s=retry_s, sleep=clock.sleep, clock=clock)
    assert retry_s <= clock.now <= retry_s + 5
    assert flaky.calls > retry_s / 5


def test_retry_s_covers_a_restart_and_can_be_shortened() -> None:
    clock = Clock()
    with retry_for(0), pytest.raises(OperationalError):
        retry(Flaky(1, wrapped(locked())), sleep=clock.sleep, clock=clock)
    assert clock.now == 0
    assert RETRY_S >= 120
    assert retry(Flaky(30, wrapped(locked())), sleep=clock.sleep, clock=clock) == "done"


def test_retry_raises_permanent_errors_at_once() -> None:
    flaky = Flaky(1, ValueError("ours"))
    with pytest.raises(ValueError, match="ours"):
        retry(flaky)
    assert flaky.calls == 1


def test_pauses_are_bounded() -> None:
    assert all(0 < pause_s(failures) <= 5 for failures in range(1, 60))


def test_a_masked_password_that_fails_says_so() -> None:
    address = parse_address("postgresql://me:***@h/d")
    masked = r"refused; \*\*\* is no password: write it, or set RALR_TUNE_STORAGE_PASSWORD$"
    with pytest.raises(StorageError, match=masked), storage_errors(address):
        raise OSError("refused")
    with (
        pytest.raises(StorageError, match="the driver has no option 'ssl_mode'; leave it out"),
        storage_errors(address),
    ):
        raise TypeError("Connection.__init__() got an unexpected keyword argument 'ssl_mode'")
    with pytest.raises(TypeError), storage_errors(address):
        raise TypeError("another")
