"""When a database fails: what passes (deadlock, lock, a server that restarts) is tried again, the rest is told.

Whatever is given to `persist` must be safe to do twice: the first try may have been committed although its
acknowledgement was lost.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from json import JSONDecodeError
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
    TimeoutError,
)

from ralr_tune.errors import StorageError
from ralr_tune.secrecy import MASK
from ralr_tune.store.address import PASSWORD_VARIABLE, Address

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long a call goes on trying: a server restarts, or fails over to another, in less."""
OPENING_S = 10.0
"""The same where a person waits: the URL may be wrong, or the server not be there at all."""
SAID_AFTER = 8
"""Failures in a row after which the log says so: about 9 s."""

_patience_s: ContextVar[float] = ContextVar("patience_s", default=PATIENCE_S)

# SQLite primary result codes: BUSY, LOCKED (https://www.sqlite.org/rescode.html).
_SQLITE = {5, 6}
# PostgreSQL, appendix A: serialization failure, deadlock, lock not available, shutdown, crash, starting up, too many
# connections, silent in a transaction for too long. Class 08 (connection exceptions) is looked at beside these.
_POSTGRESQL = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25P03"}
_POSTGRESQL_BUSY = ("the database system is", "too many clients", "connection slots", "terminating connection")
# MySQL and MariaDB: record changed, too many connections, shutdown, lock wait timeout, deadlock, connection killed,
# cannot connect (socket, host), server gone, connection lost, lost in a system call, client idle too long.
_MYSQL = {1020, 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031}


def persist(
    call: Callable[[], T],
    *,
    patience_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """`call()`, tried again for `patience_s` (None: `patience`) while it fails for a passing reason.

    Then its last error is raised.
    """
    end = clock() + (_patience_s.get() if patience_s is None else patience_s)
    for failures in count(1):
        try:
            return call()
        except Exception as error:
            if not transient(error) or clock() >= end:
                raise
            if failures == SAID_AFTER:
                log.warning("the database does not answer; trying on for %.0f s", end - clock())
        sleep(pause_s(failures))
    raise AssertionError("count() never ends")


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Inside, calls of this thread are tried again for so long."""
    before = _patience_s.set(seconds)
    try:
        yield
    finally:
        _patience_s.reset(before)


def pause_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, at most 5, half of it by chance.

    The chance keeps workers that collided from colliding again.
    """
    return min(5.0, 0.05 * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def transient(error: BaseException) -> bool:
    """Whether the same statement may succeed a moment later. Optuna's and our wrapping of the error is seen through."""
    fault = _database_error(error)
    if isinstance(fault, PendingRollbackError | TimeoutError):
        return True  # the connection broke before somebody went on with it; no connection was to be had
    return isinstance(fault, DBAPIError) and (fault.connection_invalidated or _passing(fault))


@contextmanager
def told(address: Address) -> Iterator[None]:
    """Whatever a database or its driver raises inside becomes a StorageError; IntegrityError alone is an answer."""
    try:
        yield
    except IntegrityError:
        raise
    except JSONDecodeError as error:
        raise StorageError(f"{address}: a text that Optuna stored is no JSON, somebody changed it: {error}") from error
    except TypeError as error:
        option = re.search(r"unexpected keyword argument (\S+)", str(error))  # PyMySQL's answer to an option of the URL
        if option is None:
            raise
        raise StorageError(f"{address}: the driver has no option {option[1]}; leave it out of the URL") from error
    except UnicodeError as error:
        raise StorageError(f"{address}: a text that this database or its connection cannot hold: {error}") from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        fault = _database_error(error)
        said = fault.orig if isinstance(fault, DBAPIError) else fault
        masked = f"; *** is no password: write it, or set {PASSWORD_VARIABLE}" if address.url.password == MASK else ""
        raise StorageError(f"{address}: {address.clean(said or error)}{masked}") from error


def _database_error(error: BaseException) -> SQLAlchemyError | None:
    """SQLAlchemy's error: `error` itself, or what it was raised from, however often."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SQLAlchemyError):
        cause = cause.__cause__
    return cause


def _turned_away(message: str) -> bool:
    """Whether a PostgreSQL server answered, and does not want us: a wrong password or none, no such database.

    libpq hands over no code for what happens while connecting, only words.
    """
    if "no password supplied" in message:
        return True
    return "FATAL" in message and not any(passing in message for passing in _POSTGRESQL_BUSY)


def _passing(fault: DBAPIError) -> bool:
    original = fault.orig
    if original is None:
        return False
    driver = type(original).__module__.partition(".")[0]
    if driver == "sqlite3":
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in _SQLITE
    if driver == "psycopg":
        state = getattr(original, "sqlstate", None)
        if state is None:  # the connection could not be made, or broke
            return isinstance(fault, OperationalError) and not _turned_away(str(original))
        return state in _POSTGRESQL or state.startswith("08")
    return bool(original.args) and original.args[0] in _MYSQL
