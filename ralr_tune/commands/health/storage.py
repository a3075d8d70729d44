"""The database: whether it answers, how quickly, and whether this program can work with its tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext

from ralr_tune.commands.health.check import Check, judged
from ralr_tune.commands.locate import naming
from ralr_tune.errors import StorageError
from ralr_tune.report.words import size
from ralr_tune.store.address import Address, parse_address
from ralr_tune.store.file import network_file_system
from ralr_tune.store.probing import Answer, ask, usable

SLOW_S = 0.05
"""Of a write: an epoch takes two or three, and a worker waits for them."""
SKEW_S = 60.0
CONNECTIONS_A_WORKER = 3
"""Measured: two, and for moments a third, while the lease is renewed."""
LITTLE_SPACE = 2**29


def storage_checks(url: str, typed: Callable[[str], str] | None = None) -> Iterator[Check]:
    """The database behind a storage URL; one check alone where it cannot be used at all.

    `typed`: a command on the study that is asked for, as it may be typed.
    """
    try:
        address = parse_address(url)
    except StorageError as error:
        yield Check("database", "problem", str(error), "correct --storage, or RALR_TUNE_STORAGE")
        return
    if address.file is not None:
        yield file_check(address)
        if not address.file.exists():
            return
    try:
        answer = ask(url)
    except StorageError as error:
        yield Check("database", "problem", str(error), _mend(address))
        return
    yield answer_check(answer, str(address))
    if answer.connections is not None:
        yield connections_check(*answer.connections)
    if answer.ahead_s is not None:
        yield clock_check(answer.ahead_s)
    yield tables_check(url, answer, typed)


def file_check(address: Address) -> Check:
    """Where a SQLite file lies, or would."""
    file = address.file
    assert file is not None
    folder = next(parent for parent in file.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    there = size(file.stat().st_size) if file.exists() else "not there yet: `run` makes it"
    network = network_file_system(folder)
    where = f" on a network file system ({network})" if network else ""
    return judged(
        "database file",
        f"{file}, {there}{where}; {size(free)} free there",
        problem="use a local disk, PostgreSQL or MariaDB: SQLite's locks do not hold between machines there"
        if network
        else "",
        warning="make room" if free < LITTLE_SPACE else "",
    )


def answer_check(answer: Answer, shown: str) -> Check:
    """The server, and how long a trial waits for it."""
    times = f"read {_ms(answer.read_s)}"
    if answer.write_s is not None:
        times += f", write {_ms(answer.write_s)}"
    journal = f", journal {answer.journal}" if answer.journal else ""
    slow = max(answer.read_s, answer.write_s or 0.0) > SLOW_S
    warning = "use one that is nearer, or longer epochs: workers wait for it after each" if slow else ""
    if answer.journal not in (None, "wal"):
        warning = f"PRAGMA journal_mode=WAL, or workers block each other: it is {answer.journal}"
    return judged("database", f"{answer.server} at {shown}: {times} (medians){journal}", warning=warning)


def connections_check(used: int, allowed: int) -> Check:
    """Whether there is room for workers."""
    workers = max(0, allowed - used) // CONNECTIONS_A_WORKER
    warning = "raise max_connections, or put a pooler before the server" if workers < 8 else ""
    found = f"{used} of {allowed} in use: room for about {workers} workers"
    return judged("connections", found, warning=warning)


def clock_check(ahead_s: float) -> Check:
    """Leases go by the database's clock alone; reports and logs show both."""
    word = "ahead of" if ahead_s > 0 else "behind"
    warning = "set the clocks (NTP): times in logs and reports will not fit" if abs(ahead_s) > SKEW_S else ""
    return judged("clock", f"the database's is {_ms(abs(ahead_s))} {word} this machine's", warning=warning)


def tables_check(url: str, answer: Answer, typed: Callable[[str], str] | None = None) -> Check:
    """Whether this program can work with what is stored there."""
    if answer.write_s is None:
        return Check("tables", "ok", "none yet: `run` makes them")
    try:
        with naming(typed) if typed else nullcontext():
            usable(url)
    except StorageError as error:
        return Check("tables", "problem", str(error).removeprefix(f"{parse_address(url)}: "), "do as it says")
    return Check("tables", "ok", "of this program's version, and of the installed Optuna's")


def _mend(address: Address) -> str:
    if address.file is not None:
        return "see that it is a database of ralr_tune, and that you may write to it and its folder"
    return "see that the server runs, that this machine reaches it, and that user, password and database are right"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 1 else f"{seconds:.1f} s"
