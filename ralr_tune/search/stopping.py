"""Stop requests: made by a signal handler, checked by a trial."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ralr_tune.errors import Interrupted

_POLL_S = 0.25


class Stop:
    """Whether a stop was requested, and whether it may interrupt the current work.

    Only training may be interrupted (its last epoch is on disk); a write to the database always completes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False

    def request(self) -> None:
        """Request a stop; safe in a signal handler. Raises Interrupted there if the main thread is training."""
        self.requested = True
        if self._interruptible:
            raise Interrupted("asked to stop")

    def check(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self.requested:
            raise Interrupted("asked to stop")

    def sleep(self, seconds: float) -> None:
        """Wait; a request raises Interrupted at once, also in a thread other than the main one."""
        end = time.monotonic() + seconds
        with self.interruptible():
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _POLL_S))
                self.check()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a request raises Interrupted at once."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False
