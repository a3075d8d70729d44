"""Database failures: transient ones (deadlock, lock, a server that restarts) are retried, others become StorageError.

Any call passed to `retry` must be safe to run twice: the first try may have been committed although its acknowledgement
was lost.
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

RETRY_S = 300.0
"""How long a call is retried: a server restarts, or fails over to another one, in less time."""
OPEN_RETRY_S = 10.0
"""The same when a user waits at a command: the URL may be wrong, or there may be no server at all."""
WARN_AFTER_FAILURES = 8
"""Consecutive failures after which a warning is logged: about 9 s."""

_retry_s: ContextVar[float] = ContextVar("retry_s", default=RETRY_S)

# SQLite primary result codes: BUSY, LOCKED (https://www.sqlite.org/rescode.html).
_SQLITE = {5, 6}
# PostgreSQL, appendix A: serialization failure, deadlock, lock not available, shutdown, crash, starting up, too many
# connections, idle in a transaction for too long. Class 08 (connection exceptions) is checked separately.
_POSTGRESQL = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25P03"}
_POSTGRESQL_BUSY = ("the database system is", "too many clients", "connection slots", "terminating connection")
_PGBOUNCER_BUSY = (
    "no more connections allowed",
    "cannot connect to server",
    "server login has been failing",
    "query_wait_timeout",
    "shutting down",
)
"""Its messages to a client that connects: too many clients, or the server behind it is away, full or restarting."""
# MySQL and MariaDB: record changed, too many connections, shutdown, lock wait timeout, deadlock, connection killed,
# cannot connect (socket, host), server gone, connection lost, lost in a system call, client idle too long.
_MYSQL = {1020, 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031}


def retry(
    call: Callable[[], T],
    *,
    retry_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """`call()`, retried for `retry_s` (None: as `retry_for` says) while it fails for a transient reason.

    After that, its last error is raised.
    """
    end = clock() + (_retry_s.get() if retry_s is None else retry_s)
    for failures in count(1):
        try:
            return call()
        except Exception as error:
            if not transient(error) or clock() >= end:
                raise
            if failures == WARN_AFTER_FAILURES:
                log.warning("the database does not answer; retrying for another %.0f s", end - clock())
        sleep(pause_s(failures))
    raise AssertionError("count() never ends")


@contextmanager
def retry_for(seconds: float) -> Iterator[None]:
    """Inside, `retry` in this thread retries for this many seconds."""
    before = _retry_s.set(seconds)
    try:
        yield
    finally:
        _retry_s.reset(before)


def pause_s(failures: int) -> float:
    """Seconds to wait after this many consecutive failures: doubled each time, at most 5, up to half of it random.

    The random part keeps workers that collided from colliding again.
    """
    return min(5.0, 0.05 * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def transient(error: BaseException) -> bool:
    """Whether the same statement may succeed a moment later; also if Optuna or this package wrapped the error."""
    fault = _database_error(error)
    if isinstance(fault, PendingRollbackError | TimeoutError):
        return True  # a broken connection was used again; or the pool had no free connection
    return isinstance(fault, DBAPIError) and (fault.connection_invalidated or _is_transient(fault))


@contextmanager
def storage_errors(address: Address) -> Iterator[None]:
    """Turns every error that the database or its driver raises inside into a StorageError, except IntegrityError."""
    try:
        yield
    except IntegrityError:
        raise
    except JSONDecodeError as error:
        raise StorageError(
            f"{address}: a text that Optuna stored was changed and is no longer JSON; restore a copy: {error}"
        ) from error
    except TypeError as error:
        option = re.search(r"unexpected keyword argument (\S+)", str(error))  # PyMySQL's error for an option of the URL
        if option is None:
            raise
        raise StorageError(f"{address}: the driver has no option {option[1]}; leave it out of the URL") from error
    except UnicodeError as error:
        raise StorageError(f"{address}: a text that this database or its connection cannot hold: {error}") from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        fault = _database_error(error)
        message = fault.orig if isinstance(fault, DBAPIError) else fault
        masked = f"; *** is no password: write it, or set {PASSWORD_VARIABLE}" if address.url.password == MASK else ""
        raise StorageError(f"{address}: {address.clean(message or error)}{masked}") from error


def _database_error(error: BaseException) -> SQLAlchemyError | None:
    """SQLAlchemy's error: `error` itself, or the first one in its chain of causes."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SQLAlchemyError):
        cause = cause.__cause__
    return cause


def _refused(message: str) -> bool:
    """Whether a PostgreSQL server refused the connection: wrong or missing password, no such database.

    libpq gives no error code for failures while connecting, only a message.
    """
    if "no password supplied" in message:
        return True
    return "FATAL" in message and not any(busy in message for busy in (*_POSTGRESQL_BUSY, *_PGBOUNCER_BUSY))


def _is_transient(fault: DBAPIError) -> bool:
    original = fault.orig
    if original is None:
        return False
    driver = type(original).__module__.partition(".")[0]
    if driver == "sqlite3":
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in _SQLITE
    if driver == "psycopg":
        state = getattr(original, "sqlstate", None)
        if state is None:  # the connection could not be opened, or broke
            return isinstance(fault, OperationalError) and not _refused(str(original))
        return state in _POSTGRESQL or state.startswith("08")
    return bool(original.args) and original.args[0] in _MYSQL
