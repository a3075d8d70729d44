"""Waiting for a store that is away: short failures are retried quietly, a long one pauses the work with one line."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from ralr_tune.errors import DiskError
from ralr_tune.objects.stores import StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)

QUIET_FAILURES = 4
"""Consecutive failures before the pause is announced: about 2 s."""
MAX_PAUSE_S = 6 * 3600.0
"""How long a worker waits for a store before it gives up (our choice)."""
_MAX_WAIT_S = 10.0

Wait = Callable[[float], None]
"""Waits for these seconds; may raise an error that ends the waiting."""
Announce = Callable[[str | None], None]
"""Called with the reason when the pause begins, and with None when the store is back."""


def patiently(
    call: Callable[[], T],
    shown: str,
    *,
    wait: Wait = time.sleep,
    announce: Announce = lambda reason: None,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """`call()`, repeated until the store `shown` answers. Raises DiskError after MAX_PAUSE_S, and what `wait` raises.

    `call` must be safe to run twice: the first try may have succeeded although its answer was lost.
    """
    began, announced = clock(), False
    for failures in count(1):
        try:
            found = call()
        except StoreError as error:
            if clock() - began >= MAX_PAUSE_S:
                raise DiskError(
                    f"artifacts {shown}: away for {MAX_PAUSE_S / 3600:g} hours: {error}; run again: nothing is lost"
                ) from error
            if failures >= QUIET_FAILURES and not announced:
                announced = True
                log.warning("artifacts %s: %s; paused: training goes on when it is back", shown, error)
                announce(str(error))
            wait(wait_s(failures))
            continue
        if announced:
            log.warning("artifacts %s: back after %.0f s; training goes on", shown, clock() - began)
            announce(None)
        return found
    raise AssertionError("count() never ends")


def wait_s(failures: int) -> float:
    """Seconds to wait after this many consecutive failures: doubled each time, at most 10, up to half of it random."""
    return min(_MAX_WAIT_S, 0.25 * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
