"""A trial of the simulated task: it trains nothing (see task.py), and behaves like one that does. No torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.errors import DataError
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Split
from ralr_tune.tasks.trial import TrainingSplit, watched
from ralr_tune.training.checkpoint import Checkpoints, Unusable, plain, read_curve
from ralr_tune.training.files import opened, write

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration

WEIGHTS_BYTES = 1000


class SimulatedTrial:
    """A Trial (see tasks.trial); its checkpoint is the curve, as JSON."""

    def __init__(
        self,
        task: SimulatedTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> None:
        self._task, self._epochs, self._split = task, configuration.training.epochs, split
        self._trajectory = task.trajectory(configuration, seed=seed)
        identity = f"{task.identity}|{configuration.identity(seed)}|{split}"
        self._checkpoints = Checkpoints(identity, checkpoint, earlier)
        self.curve: list[EpochRecord] = self._checkpoints.first(_CurveReader(self._epochs)) or []
        self._saved = [json.dumps(entry) for entry in plain(self.curve)]
        self._learned = len(self.curve)
        self.recovered = None

    @property
    def finished(self) -> bool:
        return len(self.curve) >= self._epochs

    def epochs(self) -> Generator[EpochRecord, None, None]:
        while not self.finished:
            record = self._epoch(len(self.curve))
            self._save(record)
            self.curve.append(record)
            self._learned = record.epoch
            yield record

    def train_value(self) -> float:
        return self.evaluate("probe")

    def evaluate(self, split: Split) -> float:
        return self._trajectory.point(self._learned, split)

    def save_weights(self, path: Path) -> None:
        """There are none: a JSON file with the number of epochs, all that such a trial learns."""
        write(path, json.dumps(_weights(self._learned)).encode())

    def load_weights(self, path: Path) -> None:
        try:
            with opened(path, WEIGHTS_BYTES) as file:
                said = json.loads(file.read(WEIGHTS_BYTES))
            known = said == _weights(said["epochs"]) and 0 <= said["epochs"] <= self._epochs
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: no weights of a simulated trial: {error}") from error
        if not known:
            raise DataError(f"{path}: no weights of a simulated trial: damaged, or of a longer one")
        self._learned = said["epochs"]

    def _epoch(self, epoch: int) -> EpochRecord:
        began = time.perf_counter()
        value = self._trajectory.point(epoch + 1, watched(self._split))
        if self._task.seconds_per_epoch:  # a sleep of no time still waits for its turn
            time.sleep(self._task.seconds_per_epoch)
        return EpochRecord(
            epoch=epoch + 1,
            value=value,
            train_loss=-math.log(max(self._task.metric.as_gain(value), 1e-6)),
            lr=self._trajectory.rates[epoch],
            factor=self._trajectory.factors[epoch],
            seconds=time.perf_counter() - began,
        )

    def _save(self, record: EpochRecord) -> None:
        """The curve with `record` as its last; only what is new is written as JSON, or long runs would crawl."""
        saved = [*self._saved, *map(json.dumps, plain([record]))]
        self._checkpoints.save(f"[{', '.join(saved)}]".encode())
        self._saved = saved


@dataclass(frozen=True)
class _CurveReader:
    """Reads a checkpoint of a run of `epochs` (see checkpoint.Reader)."""

    epochs: int

    @property
    def limit(self) -> int:
        return 1024 * (self.epochs + 1)

    def read(self, content: bytes) -> list[EpochRecord]:
        try:
            said = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"cannot be read: {error}") from error
        return read_curve(said, self.epochs)


def _weights(epochs: int) -> dict[str, Any]:
    """What stands for weights after so many epochs; the seed tells a damaged number from the one that was written."""
    return {"simulated": True, "epochs": epochs, "check": derive_seed("simulated weights", epochs)}
