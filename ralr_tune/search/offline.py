"""Work that needs no database: while it lasts long, no connection to the server is held."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ralr_tune.store.database import Storage

KEEP_S = 5.0
"""Work from this length on holds no connection: a server allows a limited number. Opening one costs milliseconds."""


class Offline:
    """Stretches of one kind of work, such as epochs or uploads: each is expected to last as long as the one before."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._last_s = math.inf  # unknown: the first one may take an hour

    @contextmanager
    def stretch(self) -> Iterator[None]:
        """Inside, such work is done."""
        began = time.monotonic()
        with self._storage.resting() if self._last_s >= KEEP_S else nullcontext():
            yield
        self._last_s = time.monotonic() - began
