"""File locks between the processes and threads of one machine. A lock ends when the process that holds it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock


class FileLock:
    """A `filelock` on its own file, which the holder removes on release. Not reentrant.

    A waiting process may have opened the file before it was removed. `filelock` detects that the file no longer has a
    name and opens the new one. With `remove=False` the file stays: use this in folders that several machines share,
    because a network file system may answer the waiting process with an error.

    Raises OSError if the file system has no locks (some network ones). `filelock` could use marker files instead
    (`fallback_to_soft`), but the marker of a killed process on another machine would stay forever.
    """

    def __init__(self, file: Path, *, remove: bool = True) -> None:
        self._file, self._remove = file, remove
        # not thread-local: one thread may acquire and another release
        self._lock = filelock.FileLock(file, thread_local=False, fallback_to_soft=False)

    def acquire(self, *, wait: bool = False) -> bool:
        """Acquires the lock and returns True. If another holder has it and `wait` is False, returns False."""
        try:
            self._lock.acquire(blocking=wait)
        except filelock.Timeout:
            return False
        return True

    def release(self) -> None:
        """Releases the lock; does nothing if it is not held."""
        if not self._lock.is_locked:
            return
        if self._remove:
            with suppress(OSError):  # a leftover file is harmless
                self._file.unlink()
        self._lock.release()


@contextmanager
def locked(file: Path, *, remove: bool = True) -> Iterator[None]:
    """Holds a `FileLock` on this file; waits for it without a time limit."""
    lock = FileLock(file, remove=remove)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive(folder: Path, lock: str = ".decoding.lock") -> Iterator[None]:
    """One process at a time inside the block; without a lock if the folder does not exist or cannot have one.

    One of the workers of an out folder decodes or verifies data while the others wait for its result.
    """
    with ExitStack() as stack:
        if folder.is_dir():  # taking the lock would create it
            with suppress(OSError):  # a read-only folder, or a network file system without locks
                stack.enter_context(locked(folder / lock))
        yield
