"""The database: whether it responds, how fast, and whether this program can use its tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext

from ralr_tune.commands.connections import FEW, REMEDY, shortage
from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.commands.locate import naming
from ralr_tune.errors import StorageError, UsageError
from ralr_tune.report.words import size
from ralr_tune.store.address import Address, parse_address
from ralr_tune.store.file import network_file_system
from ralr_tune.store.probing import Answer, Connections, ask, check_usable

MAX_WRITE_S = 0.05
"""An epoch needs two or three writes, and the worker waits for them."""
MAX_SKEW_S = 60.0
MIN_SPACE = 2**29


def storage_checks(url: str, typed: Callable[[str], str] | None = None, workers: int | None = None) -> Iterator[Check]:
    """Check the database of a storage URL; a single check if it cannot be used at all.

    `typed`: the full command for a verb on the given study. `workers`: how many are planned, if that is known.
    """
    try:
        address = parse_address(url)
    except UsageError as error:
        yield Check("database", "problem", str(error), "correct it")
        return
    if address.file is not None:
        yield file_check(address)
        if not address.file.exists():
            return
    try:
        answer = ask(url)
    except StorageError as error:
        yield Check("database", "problem", str(error), _fix(address))
        return
    yield answer_check(answer, str(address))
    if answer.connections is not None or answer.pooled:
        yield connections_check(answer.connections, workers)
    if answer.ahead_s is not None:
        yield clock_check(answer.ahead_s)
    yield tables_check(url, answer, typed)


def file_check(address: Address) -> Check:
    """Check the location of a SQLite file, which may not exist yet."""
    file = address.file
    assert file is not None
    folder = next(parent for parent in file.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    there = size(file.stat().st_size) if file.exists() else "not there yet: `run` creates it"
    network = network_file_system(folder)
    location = f" on a network file system ({network})" if network else ""
    return make_check(
        "database file",
        f"{file}, {there}{location}; {size(free)} free there",
        problem="use a local disk, PostgreSQL or MariaDB: SQLite's locks do not work between machines there"
        if network
        else "",
        warning="free some space" if free < MIN_SPACE else "",
    )


def answer_check(answer: Answer, shown: str) -> Check:
    """Check the server, and how long a trial waits for it."""
    times = f"read {_ms(answer.read_s)}"
    if answer.write_s is not None:
        times += f", write {_ms(answer.write_s)}"
    journal = f", journal {answer.journal}" if answer.journal else ""
    slow = max(answer.read_s, answer.write_s or 0.0) > MAX_WRITE_S
    warning = "use a database that is closer, or longer epochs: workers wait for it after each epoch" if slow else ""
    if answer.journal not in (None, "wal"):
        warning = f"set PRAGMA journal_mode=WAL: with {answer.journal}, workers block each other"
    return make_check("database", f"{answer.server} at {shown}: {times} (medians){journal}", warning=warning)


def connections_check(there: Connections | None, workers: int | None = None) -> Check:
    """Compare the connections of a server with the workers planned; None: it is behind a pooler.

    A worker uses one connection, briefly a second one, and none while an epoch of seconds trains.
    """
    if there is None:
        return Check("connections", "ok", "through a pooler: its own limit must allow one for each worker")
    found = f"{there.used} of {there.allowed} in use: enough for {there.free} workers"
    short = shortage(there, workers or 1)
    problem = short if short and workers and workers > there.allowed else None
    warning = short or (REMEDY if there.free < FEW else "")
    return make_check("connections", found, problem=problem or "", warning=warning)


def clock_check(ahead_s: float) -> Check:
    """Check the clock skew: leases use only the database's clock, but reports and logs show both clocks."""
    word = "ahead of" if ahead_s > 0 else "behind"
    warning = "synchronize the clocks (NTP): times in logs and reports differ" if abs(ahead_s) > MAX_SKEW_S else ""
    return make_check("clock", f"the database's is {_ms(abs(ahead_s))} {word} this machine's", warning=warning)


def tables_check(url: str, answer: Answer, typed: Callable[[str], str] | None = None) -> Check:
    """Check that this program can use the tables of the database."""
    if answer.write_s is None:
        return Check("tables", "ok", "none yet: `run` creates them")
    try:
        with naming(typed) if typed else nullcontext():
            check_usable(url)
    except StorageError as error:
        return Check("tables", "problem", str(error).removeprefix(f"{parse_address(url)}: "), "follow that advice")
    return Check("tables", "ok", "match this program's version and the installed Optuna")


def _fix(address: Address) -> str:
    if address.file is not None:
        return "check that it is a database of ralr_tune, and that you can write to it and its folder"
    return "check that the server runs and is reachable from here, and that user, password and database are correct"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 1 else f"{seconds:.1f} s"
