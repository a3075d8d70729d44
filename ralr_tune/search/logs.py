"""Logs in a study's store, for people who cannot reach the machines that wrote them.

    logs/node7-0-4711-20261130T031500.log    of a worker: its node, index, process and start
    row12/3.log                              what the program of row 12 printed in attempt 3 (own training code)

Only the end of a longer log is kept, as text in which known secrets are masked.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from ralr_tune.errors import Interrupted, RalrTuneError
from ralr_tune.objects.background import BackgroundWriter
from ralr_tune.objects.opening import open_store
from ralr_tune.objects.stores import Missing, StoreError
from ralr_tune.objects.url import parse_store
from ralr_tune.records import Row
from ralr_tune.secrecy import HidingFormatter, hidden
from ralr_tune.store import artifacts
from ralr_tune.store.database import Storage

FOLDER = "logs"
MAX_BYTES = 2**20
"""Of one log (our choice): some 10,000 lines."""
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RecentLines(logging.Handler):
    """The last lines of what this process logs."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(HidingFormatter(_FORMAT))
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._guard = Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self.add(self.format(record))

    def add(self, text: str) -> None:
        """One or more lines."""
        line = f"{text}\n".encode(errors="replace")[-MAX_BYTES:]
        with self._guard:
            self._lines.append(line)
            self._bytes += len(line)
            while self._bytes > MAX_BYTES:
                self._bytes -= len(self._lines.popleft())

    def content(self) -> bytes | None:
        with self._guard:
            return b"".join(self._lines) or None


@contextmanager
def worker_log(writer: BackgroundWriter | None, owner: str) -> Iterator[None]:
    """Inside, what this process logs is written to the worker's log; on leaving, how the worker ended, too.

    `owner`: the worker as the ledger names it. Without a writer, nothing is done.
    """
    if writer is None:
        yield
        return
    lines = RecentLines()
    root = logging.getLogger()
    root.addHandler(lines)
    writer.follow(f"{FOLDER}/{_stem(owner)}-{time.strftime('%Y%m%dT%H%M%S')}.log", lines.content)
    try:
        yield
    except BaseException as error:
        begin = "" if isinstance(error, Interrupted) else "error: "
        name = "" if isinstance(error, RalrTuneError) else f"{type(error).__name__}: "
        lines.add(hidden(f"{begin}{name}{error}"))
        raise
    finally:
        root.removeHandler(lines)
        writer.close()


def program_log(row: Row) -> str:
    """The name of the object that holds what the program of a row prints in this attempt."""
    return f"row{row.id}/{row.attempt}.log"


def end_of(file: Path) -> Callable[[], bytes | None]:
    """Reads the end of a log file; None if there is none."""

    def read() -> bytes | None:
        try:
            with file.open("rb") as opened:
                opened.seek(max(0, opened.seek(0, 2) - MAX_BYTES))
                return hidden(opened.read(MAX_BYTES).decode(errors="replace")).encode(errors="replace") or None
        except OSError:
            return None

    return read


def stored_log(storage: Storage, study: str, owner: str, lines: int) -> list[str]:
    """The last lines of a worker's log in the study's store; none if there is none, or the store does not answer."""
    place = artifacts.place_of(storage, study)
    if place is None:
        return []
    try:
        store = open_store(parse_store(place.url), place.folder)
        of_owner = re.compile(rf"{FOLDER}/{re.escape(_stem(owner))}-\d+T\d+\.log")
        found = sorted(name for name in store.sizes(FOLDER) if of_owner.fullmatch(name))
        return store.get(found[-1]).decode(errors="replace").splitlines()[-lines:] if found else []
    except (StoreError, Missing, RalrTuneError):
        return []


def _stem(owner: str) -> str:
    node, process, index = (*owner.split(":"), "", "")[:3]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", part) for part in (node, index, process))
