"""When a database fails: what passes (deadlock, lock, lost connection) is tried again, the rest is told in one line.

Whatever is given to `persist` must be safe to do twice: the first try may have been committed although its
acknowledgement was lost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from ralr_tune.errors import StorageError
from ralr_tune.store.address import Address

T = TypeVar("T")

TRIES = 10  # with the pauses below about 12 s in all: a database server restarts in less

# SQLite primary result codes: BUSY, LOCKED (https://www.sqlite.org/rescode.html).
_SQLITE = {5, 6}
# PostgreSQL, appendix A: serialization failure, deadlock, lock not available, shutdown, crash, starting up, too many
# connections. Class 08 (connection exceptions) is looked at beside these.
_POSTGRESQL = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"}
# MySQL and MariaDB: record changed, too many connections, shutdown, lock wait timeout, deadlock, connection killed,
# cannot connect (socket, host), server gone, connection lost, lost in a system call, client idle too long.
_MYSQL = {1020, 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031}


def persist(call: Callable[[], T], *, tries: int = TRIES, sleep: Callable[[float], None] = time.sleep) -> T:
    """`call()`, tried up to `tries` times while it fails for a passing reason; then its last error is raised."""
    for failures in range(1, tries):
        try:
            return call()
        except Exception as error:
            if not transient(error):
                raise
        sleep(pause_s(failures))
    return call()


def pause_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, at most 5, half of it by chance.

    The chance keeps workers that collided from colliding again.
    """
    return min(5.0, 0.05 * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def transient(error: BaseException) -> bool:
    """Whether the same statement may succeed a moment later. Optuna's wrapping of the error is seen through."""
    fault = _database_error(error)
    return fault is not None and (fault.connection_invalidated or _passing(fault))


@contextmanager
def told(address: Address) -> Iterator[None]:
    """Whatever a database or its driver raises inside becomes a StorageError; IntegrityError alone is an answer."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        fault = _database_error(error)
        raise StorageError(f"{address}: {address.clean(fault.orig if fault else error)}") from error


def _database_error(error: BaseException) -> DBAPIError | None:
    """The driver's error as SQLAlchemy wrapped it: `error` itself, or what it was raised from."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, DBAPIError):
            return candidate
    return None


def _passing(fault: DBAPIError) -> bool:
    original = fault.orig
    if original is None:
        return False
    driver = type(original).__module__.partition(".")[0]
    if driver == "sqlite3":
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in _SQLITE
    if driver == "psycopg":
        state = getattr(original, "sqlstate", None)
        if state is None:  # no server said it: the connection could not be made, or broke
            return isinstance(fault, OperationalError)
        return state in _POSTGRESQL or state.startswith("08")
    return bool(original.args) and original.args[0] in _MYSQL
