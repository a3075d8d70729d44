"""Being asked to stop, from a signal handler's side and from a trial's side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ralr_tune.errors import Interrupted


class Stop:
    """Whether to stop, and whether at once.

    Only training may be broken off in the middle (its last epoch is on disk); a write to the database is let through.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False

    def request(self) -> None:
        """Ask to stop; safe inside a signal handler. Raises Interrupted there if the main thread is training."""
        self.requested = True
        if self._interruptible:
            raise Interrupted("asked to stop")

    def check(self) -> None:
        """Raise Interrupted if asked to stop."""
        if self.requested:
            raise Interrupted("asked to stop")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a request raises Interrupted at once."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False
