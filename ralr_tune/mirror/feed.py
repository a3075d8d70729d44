"""Sends what has changed in a study to trackers, each at its own pace: one that is away catches up later.

What a tracker has of each run is asked of the tracker itself. A small file in OUT/mirror remembers the runs that are
complete there, so that they need not be asked for again; without the file, the result is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ralr_tune.errors import StorageError, UsageError
from ralr_tune.machine.files import write
from ralr_tune.machine.locks import FileLock
from ralr_tune.mirror.runs import TrackedStudy, tracked_run
from ralr_tune.mirror.targets import Target
from ralr_tune.mirror.tracker import Tracker
from ralr_tune.records import Row
from ralr_tune.secrecy import hidden
from ralr_tune.store.database import Storage
from ralr_tune.store.reading import read_rows

log = logging.getLogger(__name__)

BATCH = 50
"""Rows that are read with their curves, and sent, before the next poll: the cost of a poll has a limit."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""Until a tracker that failed is tried again: doubled each time."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Due:
    """A row that a tracker must hear of."""

    row: int
    generation: int
    finished: float | None

    @property
    def stamp(self) -> str:
        """What the file remembers: a row that failed and runs again ends at another time."""
        return f"{self.finished:.6f}"


class Feed:
    """One tracker of one study. `say`: prints a line."""

    def __init__(
        self,
        storage: Storage,
        study: str,
        target: Target,
        out: Path,
        *,
        studies: Callable[[int], TrackedStudy],
        say: Callable[[str], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._storage, self._study, self._target, self._out = storage, study, target, out
        self._studies, self._say, self._clock = studies, say, clock
        self._trackers: dict[int, Tracker] = {}
        self._due: dict[int, Due] = {}
        self._memory = _Memory(out / "mirror" / f"{target.kind}-{_digest(target.place)}")
        self._failures, self._retry_at = 0, 0.0
        self._is_away = False
        self._verdict: tuple[int, str, Mapping[str, str]] | None = None

    def __str__(self) -> str:
        return str(self._target)

    def begin(self, generation: int) -> None:
        """Raises UsageError if its place cannot be used, or if another mirror feeds the same tracker from here."""
        self._memory.acquire(f"--to {self._target}")
        try:
            if self._tracker(generation).is_new:
                self._memory.forget()
        except UsageError:
            raise
        except Exception as error:
            if not self._target.is_remote:
                raise UsageError(f"--to {self._target}: {_first_line(error)}") from error
            self._note_failure(error)

    def note(self, rows: Sequence[Row], generation: int) -> None:
        """Rows that are new or have changed."""
        for row in rows:
            due = Due(row.id, generation, row.finished if row.state == "done" else None)
            if (row.epoch or row.state == "done") and not self._memory.has(due):
                self._due[row.id] = due

    def note_verdict(self, generation: int, verdict: str, facts: Mapping[str, str]) -> None:
        """What is to be shown once all rows are."""
        self._verdict = (generation, verdict, facts)

    @property
    def unsent(self) -> int:
        """Rows, and the verdict, that the tracker does not have yet."""
        return len(self._due) + (self._verdict is not None)

    @property
    def is_waiting(self) -> bool:
        """Whether the tracker failed, and it is too early to try again."""
        return self._clock() < self._retry_at

    def send(self) -> None:
        """Send a batch of what is due. Raises StorageError if the database does not answer, nothing else."""
        if self.is_waiting or not self.unsent:
            return
        try:
            self._send_rows(list(self._due.values())[:BATCH])
            if not self._due and self._verdict is not None:
                generation, verdict, facts = self._verdict
                self._tracker(generation).conclude(verdict, facts)
                self._verdict = None
        except StorageError:
            raise
        except Exception as error:  # whatever a library raises: the study must not be disturbed
            self._note_failure(error)
            return
        finally:
            self._memory.save()
        self._note_success()

    def close(self) -> None:
        """Close the tracker; what is not done goes on with the next mirror."""
        for tracker in self._trackers.values():
            try:
                tracker.close()
            except Exception as error:
                log.debug("%s: %s", self._target, error)
        self._memory.save()
        self._memory.release()

    def _send_rows(self, batch: Sequence[Due]) -> None:
        for generation in sorted({due.generation for due in batch}):
            ids = [due.row for due in batch if due.generation == generation]
            found = {row.id: row for row in read_rows(self._storage, self._study, generation, ids)}
            tracker, study = self._tracker(generation), self._studies(generation)
            for number in ids:
                due = self._due.pop(number)
                if (row := found.get(number)) is None:  # it was withdrawn
                    continue
                try:
                    tracker.update(tracked_run(study, row))
                except BaseException:
                    self._due[number] = due  # at the end: a run that the tracker refuses must not hold up the others
                    raise
                self._failures = 0
                if row.state == "done":
                    self._memory.add(Due(row.id, generation, row.finished))

    def _tracker(self, generation: int) -> Tracker:
        if generation not in self._trackers:
            tracker = self._target.tracker(self._studies(generation), self._out)
            tracker.open()
            self._trackers[generation] = tracker
        return self._trackers[generation]

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        pause = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
        self._retry_at = self._clock() + pause
        if not self._is_away:
            self._say(f"{self._target}: {_first_line(error)}; the study goes on, and what is missing is sent later")
        self._is_away = True

    def _note_success(self) -> None:
        if self._is_away:
            self._say(f"{self._target}: answers again")
        self._failures, self._is_away = 0, False


class _Memory:
    """The rows that a tracker has completely, in a file next to the study's others. Losing it costs time only."""

    def __init__(self, path: Path) -> None:
        self._file = path.with_suffix(".json")
        self._lock = FileLock(path.with_suffix(".lock"), remove=False)
        self._done = self._read()
        self._is_saved = True

    def acquire(self, what: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{what}: {self._file.parent} cannot be created: {error.strerror}; give --out") from None
        try:
            is_free = self._lock.acquire()
        except OSError:  # a file system without locks
            return
        if not is_free:
            raise UsageError(
                f"{what}: another mirror of this study feeds it from {self._file.parent}; stop that one first"
            )

    def release(self) -> None:
        self._lock.release()

    def forget(self) -> None:
        self._done = {}

    def has(self, due: Due) -> bool:
        return due.finished is not None and self._done.get(str(due.row)) == due.stamp

    def add(self, due: Due) -> None:
        if due.finished is not None:
            self._done[str(due.row)] = due.stamp
            self._is_saved = False

    def save(self) -> None:
        if self._is_saved:
            return
        try:
            write(self._file, json.dumps({"done": self._done}).encode())
            self._is_saved = True
        except Exception as error:  # a full disk: it is only a shortcut
            log.debug("%s: %s", self._file, error)

    def _read(self) -> dict[str, Any]:
        try:
            done = json.loads(self._file.read_bytes())["done"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return done if isinstance(done, dict) else {}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return hidden(f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]
