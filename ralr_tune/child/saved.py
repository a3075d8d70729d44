"""What a worker keeps of a program's training: the curve, and the program's checkpoint under the worker's own name.

A program may use one name for all its checkpoints. So the worker links each one that is reported (or copies it, where
the file system has no links) into the attempt's folder as checkpoint-EPOCH: the next one, renamed over the first, does
not change it. Its digest is stored with the curve, so that a damaged or half-written one is never resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ralr_tune.child.metrics import METRICS_BYTES, OtherMetrics
from ralr_tune.machine.files import writing
from ralr_tune.records import EpochRecord
from ralr_tune.training.checkpoint import Unusable, curve_to_dicts, read_curve

logger = logging.getLogger(__name__)

_EPOCH_BYTES, _OTHER_BYTES = 1024, 8192


@dataclass(frozen=True)
class Saved:
    """The training up to an epoch."""

    curve: list[EpochRecord]
    checkpoint: Path | None
    """What the program can resume from after the last epoch of the curve; None if it has reported nothing."""
    metrics: OtherMetrics = field(default_factory=OtherMetrics)
    lost_s: float = 0.0
    """Seconds of earlier epochs that had to be trained again, because there was no checkpoint."""


def encoded(record: EpochRecord) -> str:
    """One epoch as JSON; each is encoded only once, so that long runs stay fast."""
    (entry,) = curve_to_dicts([record])
    return json.dumps(entry | {"train_loss": None} if math.isnan(record.train_loss) else entry)


def content(epochs: Sequence[str], checkpoint: Path | None, metrics: OtherMetrics, lost_s: float) -> bytes:
    """The content of a checkpoint file, which lies next to the folder of `checkpoint`; `epochs`: `encoded` records."""
    kept = None if checkpoint is None else [checkpoint.parent.name, checkpoint.name, digest(checkpoint)]
    rest = {"checkpoint": kept, "metrics": metrics.as_json(), "lost_s": lost_s}
    return f'{{"curve": [{", ".join(epochs)}], {json.dumps(rest)[1:]}'.encode()


@dataclass(frozen=True)
class SavedReader:
    """Reads what `content` wrote (see training.checkpoint.Reader)."""

    epochs: int
    root: Path
    """The folder of the checkpoint files."""

    @property
    def limit(self) -> int:
        return _EPOCH_BYTES * (self.epochs + 1) + _OTHER_BYTES + METRICS_BYTES

    def read(self, content: bytes) -> Saved:
        """Raises Unusable. An unfinished training without a checkpoint starts again, and only its cost remains."""
        try:
            stored = json.loads(content)
            losses = [entry["train_loss"] for entry in stored["curve"]]
            without = [entry | {"train_loss": 0.0} for entry in stored["curve"]]
            curve = _with_losses(read_curve(without, self.epochs), losses)
            kept, metrics = stored["checkpoint"], OtherMetrics(stored.get("metrics", ()))
            lost_s = float(stored.get("lost_s", 0.0))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unusable(f"cannot be read: {error}") from error
        if kept is None:
            if len(curve) < self.epochs:
                logger.warning("the program has reported no checkpoint: starting with the first epoch")
                return Saved([], None, lost_s=lost_s + sum(record.seconds for record in curve))
            return Saved(curve, None, metrics, lost_s)
        folder, name, expected = kept
        path = self.root / folder / name
        if digest(path) != expected:
            raise Unusable(f"the program's checkpoint {path} is missing or damaged")
        return Saved(curve, path, metrics, lost_s)


def _with_losses(curve: Sequence[EpochRecord], losses: Sequence[Any]) -> list[EpochRecord]:
    return [
        replace(record, train_loss=math.nan if loss is None else float(loss))
        for record, loss in zip(curve, losses, strict=True)
    ]


def keep(checkpoint: Path, target: Path) -> Path:
    """Links or copies a file or folder to `target`, which it replaces. Raises DiskError."""
    with writing(target):
        remove(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint.is_dir():
            shutil.copytree(checkpoint, target, copy_function=_link)
        else:
            _link(checkpoint, target)
    return target


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Removes a file or folder if it is there and permissions allow it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def digest(path: Path) -> str | None:
    """SHA-256 of a file, or of the names and contents of all files of a folder; None if it cannot be read."""
    total = hashlib.sha256()
    try:
        for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if part.is_dir():
                continue
            with part.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            total.update(os.fsencode(part.relative_to(path)) + b"\0" + content)
    except OSError:
        return None
    return total.hexdigest()
