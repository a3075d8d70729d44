"""Decoded images in one file that all processes of a machine map: decoded once, and once in memory.

    a .npy array, uint8 (N, C, H, W) | SHA-256 of the source's stamp and of that array

Processes that map the file share its pages in the system's page cache as long as none writes to them. The file name
identifies the source (`Samples.stamp`), so that changed data get another file. The digest shows that the file is
complete. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images, short_reason
from ralr_tune.kinds.classification.samples import Samples
from ralr_tune.machine.files import replacing
from ralr_tune.machine.locks import exclusive

logger = logging.getLogger(__name__)

MIN_BYTES = 2**24
"""Smaller data are not cached: decoding them is cheaper than managing a file."""

FORMAT = "decoded 1"
DIGEST_BYTES = hashlib.sha256().digest_size


def load(parts: Sequence[Samples], folder: Path | None) -> Images:
    """The images of all parts, concatenated, (N, C, H, W): mapped from `folder`, and written there first if missing.

    Without a folder, if it is not writable, or if a source has no stamp, they are read into memory. Callers must not
    write to them. Raises DataError.
    """
    stamp = _stamp(parts)
    if folder is None or stamp is None:
        return _read(parts)
    path = folder / f"images-{stamp[:32]}.npy"
    with exclusive(folder.parent):
        images = _map_file(path, stamp, sum(map(len, parts)))
        if images is None:
            images = _read(parts)
            if images.nbytes >= MIN_BYTES and _write_file(path, stamp, images):
                mapped = _map_file(path, stamp, len(images))
                images = images if mapped is None else mapped
    return images


def _stamp(parts: Sequence[Samples]) -> str | None:
    """A hash of everything that determines the images of the parts."""
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
                f"validation images have shape {other.shape[1:]}, training images {train.shape[1:]}"
                " (C, H, W); set data.size = N to crop all to N x N"
            )
    return np.concatenate(arrays) if others else train


def _map_file(path: Path, stamp: str, count: int) -> Images | None:
    """None if the file does not exist or is damaged. A damaged file is logged, and the caller writes it again."""
    try:
        # "c": copy on write, since torch warns about arrays that are not writable
        images: Images = np.load(path, mmap_mode="c", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(-DIGEST_BYTES, os.SEEK_END)
            stored = file.read()
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count or stored != _digest(stamp, images):
            raise ValueError("damaged")
        with suppress(OSError):
            os.utime(path)  # `gc` keeps files that were opened recently
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy does not document what damaged bytes raise
        logger.warning("%s cannot be used (%s): its images are decoded again", path, short_reason(error))
        return None
    return images


def _write_file(path: Path, stamp: str, images: Images) -> bool:
    """Writes a temporary file and renames it. False if that fails: this process then uses its own copy in memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.writelines([header.getvalue(), images.data, _digest(stamp, images)])
    except OSError as error:
        logger.info(
            "%s: cannot be written (%s): each worker keeps its own copy of the images in memory",
            path,
            short_reason(error),
        )
        return False
    return True


def _digest(stamp: str, images: Images) -> bytes:
    total = hashlib.sha256(f"{stamp}|{images.shape}".encode())
    total.update(images.data)
    return total.digest()
