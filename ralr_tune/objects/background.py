"""Writing what no trial depends on, such as logs: in a thread of its own, which no worker waits for or fails with."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread

from ralr_tune.objects.patience import wait_s
from ralr_tune.objects.stores import ObjectStore, StoreError

log = logging.getLogger(__name__)

PERIOD_S = 30.0
"""Seconds between two inspections of what may have changed (our choice): what a killed machine's logs lack at most."""
CLOSE_S = 10.0
"""Seconds that the end of a worker waits for its last logs (our choice)."""

Read = Callable[[], bytes | None]
"""The present content of an object; None: nothing yet. Called in the writer's thread."""


@dataclass(frozen=True)
class _Source:
    read: Read
    is_final: bool
    """Whether its content changes no more."""


class BackgroundWriter:
    """Keeps objects up to date with what their sources read, each as a whole.

    A name has one writer, so that its object may be replaced: the present content counts, not every one. If the store
    does not answer, the next inspection tries again.
    """

    def __init__(self, store: ObjectStore, shown: str) -> None:
        """`shown`: the store as messages name it. The thread starts with the first source."""
        self._store, self._shown = store, shown
        self._sources: dict[str, _Source] = {}
        self._written: dict[str, bytes] = {}
        """The digest of what each object contains."""
        self._lock = Lock()
        self._changed, self._closing = Event(), Event()
        self._thread: Thread | None = None

    def follow(self, name: str, read: Read) -> None:
        """Writes what `read` returns whenever it has changed, from the next inspection on."""
        self._add(name, _Source(read, is_final=False))

    def write(self, name: str, content: bytes) -> None:
        """Writes this content soon, in place of a source."""
        self._add(name, _Source(lambda: content, is_final=True))
        self._changed.set()

    def finish(self, name: str) -> None:
        """Writes what the source of this object, if it has one, reads now, and nothing later."""
        with self._lock:
            source = self._sources.pop(name, None)
        content = None if source is None else source.read()
        if content is not None:
            self.write(name, content)

    def follows(self, name: str) -> bool:
        """Whether the object of this name is written here."""
        with self._lock:
            return name in self._sources

    def forget(self, group: str) -> None:
        """Stops writing the objects of a group, whose objects the caller removes next."""
        with self._lock:
            for name in [each for each in self._sources if each.startswith(f"{group}/")]:
                del self._sources[name]
                self._written.pop(name, None)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Writes what has changed, for at most `timeout_s`, and ends the thread."""
        self._closing.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.info("artifacts %s: the last logs may be missing there", self._shown)

    def _add(self, name: str, source: _Source) -> None:
        with self._lock:
            self._sources[name] = source
            if self._thread is None:
                self._thread = Thread(target=self._run, name="background-writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait(PERIOD_S)
            self._changed.clear()
            self._write_changed()
        end, failures = time.monotonic() + CLOSE_S, 0
        while not self._write_changed() and time.monotonic() < end:
            failures += 1
            time.sleep(wait_s(failures))

    def _write_changed(self) -> bool:
        """Whether all objects are up to date now; the first that cannot be written ends it."""
        with self._lock:
            sources = dict(self._sources)
        try:
            for name, source in sources.items():
                self._write(name, source)
        except StoreError as error:
            log.info("artifacts %s: logs are not written now: %s", self._shown, error)
            return False
        return True

    def _write(self, name: str, source: _Source) -> None:
        content = source.read()
        digest = hashlib.sha256(content or b"").digest()
        if content is not None and self._written.get(name) != digest:
            self._store.put(name, content)
        with self._lock:
            forgotten = name not in self._sources
            self._written[name] = digest
            if source.is_final and self._sources.get(name) is source:
                del self._sources[name]
            if name not in self._sources:
                del self._written[name]
        if forgotten:  # while it was written: the removal of its group may have come before
            with suppress(StoreError):
                self._store.remove(name)
