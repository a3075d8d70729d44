"""The rows that one worker trains at the same time: one, or as many as it has slots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ralr_tune.errors import Interrupted, RalrTuneError
from ralr_tune.records import Row
from ralr_tune.search.session import Session, Training
from ralr_tune.search.trial import Work, epochs_of
from ralr_tune.tasks.slots import SlotTrainer
from ralr_tune.tasks.trial import Trial

log = logging.getLogger(__name__)


class SlotPool:
    """A slot holds a row with its work, which waits for the trial's next epoch; one thread drives all slots.

    The work of a row handles everything that happens to that row. When the worker ends, the rows of all slots are freed
    (see `held`).
    """

    def __init__(self, session: Session, trainer: SlotTrainer, waiting: Callable[[], int]) -> None:
        """`waiting` returns the number of waiting rows; a trainer that chooses its number of slots needs it."""
        self._session, self._trainer, self._waiting = session, trainer, waiting
        self._training = Training(session)
        self._held: dict[int, tuple[Work, Trial]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        return len(self) >= self._trainer.slots

    def take(self, row: Row) -> None:
        """Start a claimed row, up to its trial's first epoch to train."""
        work = epochs_of(self._session, row)
        self._advance(row.id, work)
        if row.id in self._held:
            self._trainer.settle(self._held[row.id][1], self._waiting)

    def train(self) -> None:
        """Train one epoch of every slot, fused if the trials allow it; each is reported and pruned by itself."""
        with self._training.epoch():
            self._trainer.train([trial for _, trial in self._held.values()])
        for row_id, (work, _) in list(self._held.items()):
            self._advance(row_id, work)

    @contextmanager
    def held(self) -> Iterator[None]:
        """On leaving, also after an error, all rows are freed."""
        try:
            yield
        finally:
            for row_id, (work, _) in self._held.items():
                try:
                    with suppress(Interrupted, StopIteration):
                        work.throw(Interrupted("the worker exits"))
                except RalrTuneError as error:  # the database does not answer either: the row's lease will expire
                    log.warning(
                        "row %d could not be freed, another worker gets it when its lease expires: %s", row_id, error
                    )
            self._held.clear()

    def _advance(self, row_id: int, work: Work) -> None:
        """Run a row's work up to its next epoch; a row that ends, or raises an error, leaves its slot."""
        self._held.pop(row_id, None)
        trial = next(work, None)
        if trial is not None:
            self._held[row_id] = work, trial
