"""The rows that one worker has in hand: one, or as many as it trains together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ralr_tune.errors import Interrupted, RalrTuneError
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.search.trial import Work, epochs_of
from ralr_tune.tasks.slots import SlotTrainer
from ralr_tune.tasks.trial import Trial

log = logging.getLogger(__name__)


class SlotPool:
    """A slot holds a row with its work, which waits for the trial's next epoch; all are driven by one thread.

    Whatever happens to one row is seen to by its own work; what ends the worker frees the rows of all slots.
    """

    def __init__(self, session: Session, trainer: SlotTrainer, waiting: Callable[[], int]) -> None:
        """`waiting` counts the rows that wait, for a number of slots that is found out."""
        self._session, self._trainer, self._waiting = session, trainer, waiting
        self._held: dict[int, tuple[Work, Trial]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        return len(self) >= self._trainer.slots

    def take(self, row: Row) -> None:
        """Begin with a claimed row, up to where its trial wants to train."""
        work = epochs_of(self._session, row)
        self._advance(row.id, work)
        if row.id in self._held:
            self._trainer.settle(self._held[row.id][1], self._waiting)

    def train(self) -> None:
        """One epoch of every slot, together where they fit together; each is reported and judged by itself."""
        with self._session.stop.interruptible():
            self._trainer.train([trial for _, trial in self._held.values()])
        for row_id, (work, _) in list(self._held.items()):
            self._advance(row_id, work)

    @contextmanager
    def held(self) -> Iterator[None]:
        """However it is left, no row stays behind."""
        try:
            yield
        finally:
            for row_id, (work, _) in self._held.items():
                try:
                    with suppress(Interrupted, StopIteration):
                        work.throw(Interrupted("the worker leaves"))
                except RalrTuneError as error:  # the database is away, too: the row's lease runs out
                    log.warning("row %d is not freed: %s", row_id, error)
            self._held.clear()

    def _advance(self, row_id: int, work: Work) -> None:
        """To where the trial wants to train; a row that is over leaves its slot, and so does one that raises."""
        self._held.pop(row_id, None)
        trial = next(work, None)
        if trial is not None:
            self._held[row_id] = work, trial
