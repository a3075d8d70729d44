"""Signal handlers for the duration of a block, and the detection of repeated signals."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REPEAT_S = 2.0
"""Seconds after the first signal in which further ones count as repeats: an engine signals every process of a job, and
the job's script may forward the signal too."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handling(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Inside, `handler` handles these signals; afterwards the previous handlers do. Main thread only (Python)."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class Requests:
    """Distinguishes new stop requests from repeats of the first one."""

    def __init__(self) -> None:
        self._first: float | None = None

    def is_repeat(self) -> bool:
        """Whether the signal that has just arrived repeats the first one. Call it once for each signal."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first < REPEAT_S
