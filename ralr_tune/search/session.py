"""What one worker holds while it works on one study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from ralr_tune.errors import LeaseLost, StorageError
from ralr_tune.records import Row
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.stopping import Stop
from ralr_tune.search.tasks import Tasks
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec


@dataclass
class Session:
    """One worker's view of a study: its storage, its ledger, its data, its folder."""

    spec: StudySpec
    storage: Storage
    ledger: Ledger
    tasks: Tasks
    out: Path
    owner: str
    stop: Stop = field(default_factory=Stop)

    @property
    def artifacts(self) -> ArtifactStore:
        """Checkpoints and weights of this study, in this out folder."""
        return ArtifactStore(self.out / "checkpoints", self.spec)


class Lease:
    """Keeps a row ours while it trains: a thread renews it at a third of its length."""

    def __init__(self, ledger: Ledger, row: Row) -> None:
        self._ledger, self._row = ledger, row
        self._over = Event()
        self._lost = False

    def check(self) -> None:
        """Raise LeaseLost if another owns the row."""
        if self._lost:
            raise LeaseLost(f"row {self._row.id}: the lease ran out and another worker took the trial")

    def _renew(self) -> None:
        while not self._over.wait(self._ledger.lease_s / 3):
            try:
                self._ledger.renew_lease(self._row)
            except LeaseLost:
                self._lost = True
                return
            except StorageError:
                continue  # the database is away: the lease may run out, and then the next renewal says so

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the row stays ours as long as the database answers and nobody else has claimed it."""
        thread = Thread(target=self._renew, name=f"lease-{self._row.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
