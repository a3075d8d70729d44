"""The file in which the checkpoint of a judged run waits for its test: a tar archive with the checkpoint's digest.

ralr_tune.json    the trial's identity, the checkpoint's name and its digest; null for a program without checkpoints
tested.SUFFIX     the program's file or folder
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from ralr_tune.child.saved import digest, remove
from ralr_tune.errors import DataError
from ralr_tune.machine.files import replacing, writing

_HEAD, _BODY = "ralr_tune.json", "tested"
_HEAD_BYTES = 8192


def save(path: Path, identity: str, checkpoint: Path | None) -> None:
    """Writes the archive atomically. Raises DiskError."""
    found: dict[str, str | None] = {"name": None, "digest": None}
    if checkpoint is not None:
        found = {"name": _BODY + checkpoint.suffix, "digest": digest(checkpoint)}
    head = json.dumps({"identity": identity, **found}).encode()
    entry = tarfile.TarInfo(_HEAD)
    entry.size = len(head)
    with writing(path), replacing(path) as temporary, tarfile.open(temporary, "w") as archive:
        archive.addfile(entry, io.BytesIO(head))
        if checkpoint is not None:
            archive.add(checkpoint, _BODY + checkpoint.suffix)


def load(path: Path, identity: str, folder: Path) -> Path | None:
    """Unpacks the checkpoint into `folder`; None if the program has none. Raises DataError."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            reader = archive.extractfile(first) if first is not None and first.name == _HEAD else None
            head = json.loads(reader.read(_HEAD_BYTES)) if reader is not None else None
            if not isinstance(head, dict) or head.get("identity") != identity:
                raise DataError(f"{path}: not the weights of this trial")
            if head["digest"] is None:
                return None
            target = folder / Path(head["name"]).name
            remove(target)
            archive.extractall(folder, filter="data")
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if digest(target) != head["digest"]:
        remove(target)
        raise DataError(f"{path}: damaged: the checkpoint does not match its digest")
    return target
