"""One holder at a time, over the processes and threads of a machine: a file lock that ends with its holder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock


class FileLock:
    """A `filelock` on a file of its own, which the holder removes when done. Not reentrant.

    A process that waits may have opened the file before it was removed. `filelock` notices that the file has no name
    any more, and opens the next one. With `remove=False` the file stays: for folders that several machines share, since
    a network file system may answer such a process with an error.

    OSError if the file system has no locks (some network ones): `filelock` would use marker files instead
    (`fallback_to_soft`), and the marker of a killed process on another machine stays forever.
    """

    def __init__(self, file: Path, *, remove: bool = True) -> None:
        self._file, self._remove = file, remove
        # not thread-local: the thread that releases need not be the one that acquired
        self._lock = filelock.FileLock(file, thread_local=False, fallback_to_soft=False)

    def acquire(self, *, wait: bool = False) -> bool:
        """Takes the lock and says True; says False if another has it and `wait` is False."""
        try:
            self._lock.acquire(blocking=wait)
        except filelock.Timeout:
            return False
        return True

    def release(self) -> None:
        """Gives back what was taken; nothing if nothing was."""
        if not self._lock.is_locked:
            return
        if self._remove:
            with suppress(OSError):  # a file that stays does no harm
                self._file.unlink()
        self._lock.release()


@contextmanager
def locked(file: Path, *, remove: bool = True) -> Iterator[None]:
    """Holds a `FileLock` on this file, after waiting for it as long as it takes."""
    lock = FileLock(file, remove=remove)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
