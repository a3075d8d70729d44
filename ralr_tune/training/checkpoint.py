"""Checkpoint files: integrity and owner are verified before the content is parsed.

    MAGIC, with the format's number | SHA-256 of the trial's identity | SHA-256 of that and the content | content

The digest is needed: neither torch nor JSON detects a changed number. Of 3,000 files that `torch.save` wrote, with one
bit flipped in each, `torch.load` read 2,509 without an error and with another weight (measured).
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
from ralr_tune.machine.files import opened, write
from ralr_tune.records import EpochRecord

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAGIC = b"ralr_tune checkpoint 2\n"
"""A file with another format number is not read."""

DIGEST_BYTES = hashlib.sha256().digest_size


class Unusable(Exception):
    """A checkpoint is ignored. The message gives the reason; it appears only in the log."""


class Reader(Protocol[T_co]):
    """Parses and validates the content of a trial's checkpoint."""

    @property
    def limit(self) -> int:
        """Maximum size of the content in bytes."""

    def read(self, content: bytes) -> T_co:
        """The parsed content. Raises Unusable if it is invalid."""


class Checkpoints:
    """Stores the last state of one trial: in a file or, without a path, in memory.

    Each attempt of a trial has its own file, so that a process that lost its lease cannot overwrite the file of another
    process. `earlier` are the files of earlier attempts, the preferred one first: they are read and not changed.
    """

    def __init__(self, identity: str, path: Path | None, earlier: Sequence[Path] = ()) -> None:
        self._identity = hashlib.sha256(identity.encode()).digest()
        self._path = path
        self._candidates = [*([path] if path else []), *earlier]
        self._last: Path | bytes | None = None

    def first(self, reader: Reader[T]) -> T | None:
        """The content of the first usable file; damaged, foreign and invalid files are ignored, with a warning."""
        ignored = False
        for path in self._candidates:
            try:
                found = reader.read(self._content(path, reader.limit))
            except FileNotFoundError:
                continue
            except Unusable as reason:
                logger.warning("checkpoint %s ignored: %s", path, reason)
                ignored = True
            else:
                self._last = path
                return found
        if ignored:
            logger.warning("no usable checkpoint: starting with the first epoch")
        return None

    def save(self, content: bytes) -> None:
        """Replaces the stored content. Raises DiskError."""
        if self._path is None:
            self._last = content
        else:
            write(self._path, MAGIC, self._identity, digest(self._identity, content), content)
            self._last = self._path

    def last(self, reader: Reader[T]) -> T | None:
        """What `save` stored last or, before the first `save`, what `first` found; None if there is neither.

        Raises DiskError if the file has disappeared or changed since.
        """
        if not isinstance(self._last, Path):
            return None if self._last is None else reader.read(self._last)
        try:
            return reader.read(self._content(self._last, reader.limit))
        except (FileNotFoundError, Unusable) as error:
            reason = "it no longer exists" if isinstance(error, FileNotFoundError) else error
            raise DiskError(f"{self._last}: cannot be read again: {reason}; run again") from error

    def _content(self, path: Path, limit: int) -> bytes:
        """Raises FileNotFoundError, and Unusable if the file is not what this trial wrote."""
        header, content = _read(path, limit)
        owner, stored_digest = header[len(MAGIC) : -DIGEST_BYTES], header[-DIGEST_BYTES:]
        if not header.startswith(MAGIC):
            raise Unusable("not a checkpoint of this version of the program")
        if owner != self._identity:
            raise Unusable("belongs to another trial")
        if stored_digest != digest(owner, content):
            raise Unusable("damaged: the content does not match its digest")
        return content


def companion(checkpoint: Path) -> Path:
    """The folder for further files of the same attempt, if its trial has any."""
    return checkpoint.with_suffix(".files")


def digest(identity: bytes, content: bytes) -> bytes:
    """SHA-256 over both, so that a header of one trial with the content of another is detected."""
    total = hashlib.sha256(identity)
    total.update(content)
    return total.digest()


def _read(path: Path, limit: int) -> tuple[bytes, bytes]:
    """The header and the content of a file."""
    size = len(MAGIC) + 2 * DIGEST_BYTES
    try:
        with opened(path, size + limit) as file:
            return file.read(size), file.read(limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from error


def curve_to_dicts(curve: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """A curve as a list of dicts of numbers."""
    return [_entry(record) for record in curve]


def _entry(record: EpochRecord) -> dict[str, Any]:
    entry = dict(vars(record))  # `asdict` would deep-copy every number
    others = entry.pop("others")
    return entry | ({"others": dict(others)} if others else {})


def read_curve(stored: object, epochs: int, *, every: int = 1) -> list[EpochRecord]:
    """The curve from the output of `curve_to_dicts`: records of each `every`-th of `epochs` epochs and of the last one,
    from the first one on, all numbers finite but those of further metrics.

    Raises Unusable.
    """
    if not isinstance(stored, list) or len(stored) > epochs:
        raise Unusable(f"invalid: its curve is not a list of at most {epochs} epochs")
    try:
        curve = [EpochRecord(**entry) for entry in stored]
    except TypeError as error:
        raise Unusable(f"invalid: its curve: {error}") from error
    for number, record in enumerate(curve, 1):
        epoch, *numbers, others = astuple(record)
        expected = min(number * every, epochs)
        if type(epoch) is not int or epoch != expected:
            raise Unusable(f"invalid: epoch {epoch!r} instead of epoch {expected}")
        if not all(type(value) is float and math.isfinite(value) for value in numbers):
            raise Unusable(f"invalid: not all numbers of epoch {expected} are finite")
        if type(others) is not dict or not all(type(value) is float for value in others.values()):
            raise Unusable(f"invalid: the further metrics of epoch {expected} are not numbers by name")
    return curve
