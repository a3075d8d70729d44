"""The state of one worker while it works on one study."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from ralr_tune.errors import LeaseLost, StorageError
from ralr_tune.records import Row
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.offline import Offline
from ralr_tune.search.published import Published, Waiting
from ralr_tune.search.stopping import Stop
from ralr_tune.search.tasks import Tasks
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec


@dataclass
class Session:
    """One worker's access to a study: storage, ledger, data and folder."""

    spec: StudySpec
    storage: Storage
    ledger: Ledger
    tasks: Tasks
    out: Path
    owner: str
    stop: Stop = field(default_factory=Stop)
    published: Published | None = None
    """The objects in the study's store; None if its artifacts stay in `out`."""

    @property
    def artifacts(self) -> ArtifactStore:
        """Checkpoints and weights of this study, in this out folder."""
        return ArtifactStore(self.out / "checkpoints", self.spec, self.ledger.key)

    def forget(self, row: Row) -> None:
        """Removes the files and objects of all attempts of the row; the row must be done."""
        self.artifacts.forget(row)
        if self.published is not None:
            self.published.forget(row)

    def tidy(self) -> None:
        """Removes what killed processes left of rows that are done by now."""
        for each in (self.artifacts, self.published):
            if each is not None:
                each.tidy(lambda: self.ledger.rows(curves=False))


class Training:
    """Trains epoch after epoch: a stop may interrupt it, and long epochs hold no connection to the database."""

    def __init__(self, session: Session) -> None:
        self._stop = session.stop
        self._epochs = Offline(session.storage)

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Inside, an epoch trains."""
        with self._epochs.stretch(), self._stop.interruptible():
            yield


class Lease:
    """Keeps this worker's lease on a row while it trains: a thread renews it when a third of its duration has passed
    since the last report, which renews it, too."""

    def __init__(self, ledger: Ledger, row: Row) -> None:
        self._ledger, self._row = ledger, row
        self._over = Event()
        self._lost = False
        self._renewed = time.monotonic()

    def check(self) -> None:
        """Raise LeaseLost if another owns the row."""
        if self._lost:
            raise LeaseLost(f"row {self._row.id}: the lease expired and another worker claimed the trial")

    def renewed(self) -> None:
        """Note that a report renewed the lease."""
        self._renewed = time.monotonic()

    def _due_s(self) -> float:
        return self._renewed + self._ledger.lease_s / 3 - time.monotonic()

    def _renew(self) -> None:
        while not self._over.wait(max(self._due_s(), 0.0)):
            if self._due_s() > 0:
                continue
            self.renewed()
            try:
                self._ledger.renew_lease(self._row)
            except LeaseLost:
                self._lost = True
                return
            except StorageError:
                continue  # the database does not answer: if the lease is lost meanwhile, the next renewal finds out

    def waiting(self, published: Published, stop: Stop) -> Waiting:
        """How the row's worker waits for the store."""
        return Waiting(published, stop, self.check, lambda message: self._ledger.note(self._row, message))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, this worker keeps the row as long as the database answers and no other worker has claimed it."""
        thread = Thread(target=self._renew, name=f"lease-{self._row.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
