"""Decoded images as one file that every process of a machine maps: they are in memory once, and decoded once.

    a .npy array, uint8 (N, C, H, W) | SHA-256 of what was read and of that array

A mapped page that nobody writes to is the system's own copy of the file, whoever maps it. The name says what was read
(`Samples.stamp`), so that changed data are other files; the digest, that the file is whole. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import Images, Samples, why
from ralr_tune.machine.locks import locked

logger = logging.getLogger(__name__)

SMALLEST_BYTES = 2**24
"""Less is decoded sooner than it is looked after."""

FORMAT = "decoded 1"
DIGEST_BYTES = hashlib.sha256().digest_size


def load(parts: Sequence[Samples], folder: Path | None) -> Images:
    """The images of all parts, one after the other, (N, C, H, W); mapped from `folder`, where they are put first.

    Without a folder, or where it cannot be written to, or of sources without a stamp, they are read into memory. Nobody
    may write to them. Raises DataError.
    """
    stamp = _stamp(parts)
    if folder is None or stamp is None:
        return _read(parts)
    path = folder / f"images-{stamp[:32]}.npy"
    with alone(folder.parent):
        images = _mapped(path, stamp, sum(map(len, parts)))
        if images is None:
            images = _read(parts)
            if images.nbytes >= SMALLEST_BYTES and _written(path, stamp, images):
                mapped = _mapped(path, stamp, len(images))
                images = images if mapped is None else mapped
    return images


def _stamp(parts: Sequence[Samples]) -> str | None:
    """A hash of all that decides which images the parts have."""
    total = hashlib.sha256(FORMAT.encode())
    for part in parts:
        if part.stamp is None:
            return None
        total.update(f"|{part.stamp}|{len(part)}|".encode())
        total.update(part.rows.astype("<i8").tobytes())
    return total.hexdigest()


def _read(parts: Sequence[Samples]) -> Images:
    arrays = [np.ascontiguousarray(part.load()) for part in parts]
    train, *others = arrays
    for other in others:
        if other.shape[1:] != train.shape[1:]:
            raise DataError(
                f"validation images are {other.shape[1:]}, those of train {train.shape[1:]}"
                " (C, H, W); give data.size = N to cut all to N x N"
            )
    return np.concatenate(arrays) if others else train


def _mapped(path: Path, stamp: str, count: int) -> Images | None:
    """None where there is no such file, or not as it was written; the latter is said, and it is written anew."""
    try:
        # "c": pages may be written to, and then are one's own; torch warns of arrays that may not
        images: Images = np.load(path, mmap_mode="c", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            said = file.read()
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count or said != _digest(stamp, images):
            raise ValueError("damaged")
        with suppress(OSError):
            os.utime(path)  # `gc` leaves alone what was opened lately
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy has no list of what comes out of damaged bytes
        logger.warning("%s is decoded again: %s", path, why(error))
        return None
    return images


def _written(path: Path, stamp: str, images: Images) -> bool:
    """Beside and renamed; where that fails, training goes on with a copy of its own."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        with beside.open("wb") as file:
            file.writelines([header.getvalue(), images.data, _digest(stamp, images)])
        beside.replace(path)
    except OSError as error:
        logger.info("%s: cannot be written (%s): images are in memory once for each worker", path, why(error))
        with suppress(OSError):
            beside.unlink()
        return False
    return True


def _digest(stamp: str, images: Images) -> bytes:
    total = hashlib.sha256(f"{stamp}|{images.shape}".encode())
    total.update(images.data)
    return total.digest()


@contextmanager
def alone(folder: Path, lock: str = ".decoding.lock") -> Iterator[None]:
    """Of several workers that start in one out folder, one decodes and the others wait: else each would map its own."""
    with ExitStack() as held:
        if folder.is_dir():  # the lock would make it
            with suppress(OSError):  # a closed folder, or a network file system without locks
                held.enter_context(locked(folder / lock))
        yield
