"""Signal handlers for as long as something runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REPEAT_S = 2.0
"""Signals that follow the first one so soon are the same request: an engine signals every process of a job, and the
job's script may forward its own."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handling(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Inside, `handler` answers these signals; afterwards whoever did before. Main thread only, as Python has it."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class Requests:
    """Tells further requests from repeats of the first."""

    def __init__(self) -> None:
        self._first: float | None = None

    def is_repeat(self) -> bool:
        """Whether the signal that has just come repeats the first one. Call it once a signal."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first < REPEAT_S
