"""A trial of the simulated task: trains nothing (see task.py) but behaves like a real trial. No torch."""

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
from ralr_tune.machine.files import opened, write
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Split
from ralr_tune.tasks.trial import TrainingSplit, evaluated_split
from ralr_tune.training.checkpoint import Checkpoints, Unusable, curve_to_dicts, read_curve

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
        self._saved = [json.dumps(entry) for entry in curve_to_dicts(self.curve)]
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
        """Writes a JSON file with the number of epochs: a simulated trial has no weights, and no other state."""
        write(path, json.dumps(_weights(self._learned)).encode())

    def load_weights(self, path: Path) -> None:
        try:
            with opened(path, WEIGHTS_BYTES) as file:
                stored = json.loads(file.read(WEIGHTS_BYTES))
            valid = stored == _weights(stored["epochs"]) and 0 <= stored["epochs"] <= self._epochs
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not the weights of a simulated trial: {error}") from error
        if not valid:
            raise DataError(f"{path}: not the weights of a simulated trial: damaged, or from a longer trial")
        self._learned = stored["epochs"]

    def _epoch(self, epoch: int) -> EpochRecord:
        began = time.perf_counter()
        value = self._trajectory.point(epoch + 1, evaluated_split(self._split))
        loss = -math.log(max(self._task.metric.as_gain(value), 1e-6))
        if self._task.seconds_per_epoch:  # sleep(0) would still yield to other threads
            time.sleep(self._task.seconds_per_epoch)
        return EpochRecord(
            epoch=epoch + 1,
            value=value,
            train_loss=loss,
            lr=self._trajectory.rates[epoch],
            factor=self._trajectory.factors[epoch],
            seconds=time.perf_counter() - began,
            others={"loss": loss} if self._task.loss else {},
        )

    def _save(self, record: EpochRecord) -> None:
        """Saves the curve with `record` appended. Only the new record is encoded, so that long runs stay fast."""
        saved = [*self._saved, *map(json.dumps, curve_to_dicts([record]))]
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
            stored = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"cannot be read: {error}") from error
        return read_curve(stored, self.epochs)


def _weights(epochs: int) -> dict[str, Any]:
    """Stands for the weights after `epochs` epochs. The derived seed serves as a checksum."""
    return {"simulated": True, "epochs": epochs, "check": derive_seed("simulated weights", epochs)}
