"""A trial of the simulated task: it trains nothing (see tasks.simulated), and behaves like one that does. No torch."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.errors import DataError
from ralr_tune.records import EpochRecord
from ralr_tune.tasks.base import Split
from ralr_tune.tasks.simulated import SimulatedTask, learning_rate
from ralr_tune.training.base import WATCHED, TrainingSplit
from ralr_tune.training.files import replacing

if TYPE_CHECKING:
    from ralr_tune.spec import Configuration

logger = logging.getLogger(__name__)


class SimulatedTrial:
    """A Trial (see training.base); its checkpoint is the curve, as JSON."""

    def __init__(
        self,
        task: SimulatedTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        split: TrainingSplit = "train",
    ) -> None:
        self._task, self._configuration, self._seed = task, configuration, seed
        self._checkpoint, self._split = checkpoint, split
        self._identity = f"{task.identity}|{configuration.identity(seed)}|{split}"
        self._rate = learning_rate(configuration, seed)
        self.curve: list[EpochRecord] = self._saved_curve()
        self._learned = len(self.curve)

    def epochs(self) -> Generator[EpochRecord, None, None]:
        while len(self.curve) < self._configuration.training.epochs:
            record = self._epoch(len(self.curve))
            self.curve.append(record)
            self._learned = record.epoch
            self._save()
            yield record

    def train_value(self) -> float:
        return self.evaluate("probe")

    def evaluate(self, split: Split) -> float:
        return self._task.point(self._configuration, seed=self._seed, epochs=self._learned, split=split)

    def save_weights(self, path: Path) -> None:
        """There are none: a JSON file with the number of epochs, all that such a trial learns."""
        with replacing(path) as beside:
            beside.write_text(json.dumps({"simulated": True, "epochs": self._learned}))

    def load_weights(self, path: Path) -> None:
        try:
            self._learned = int(json.loads(path.read_text())["epochs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: no weights of a simulated trial: {error}") from error

    def _epoch(self, epoch: int) -> EpochRecord:
        began = time.perf_counter()
        value = self._task.point(self._configuration, seed=self._seed, epochs=epoch + 1, split=WATCHED[self._split])
        time.sleep(self._task.seconds_per_epoch)
        return EpochRecord(
            epoch=epoch + 1,
            value=value,
            train_loss=-math.log(max(value, 1e-6)),
            lr=float(self._rate.rates(epoch)[0]),
            factor=float(self._rate.factors(epoch)[0]),
            seconds=time.perf_counter() - began,
        )

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        with replacing(self._checkpoint) as beside:
            beside.write_text(json.dumps({"identity": self._identity, "curve": [asdict(r) for r in self.curve]}))

    def _saved_curve(self) -> list[EpochRecord]:
        if self._checkpoint is None or not self._checkpoint.exists():
            return []
        try:
            state = json.loads(self._checkpoint.read_text())
            curve = [EpochRecord(**record) for record in state["curve"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("checkpoint %s cannot be read (%s): starting anew", self._checkpoint, type(error).__name__)
            return []
        if state.get("identity") != self._identity:
            logger.warning("checkpoint %s belongs to another trial: starting anew", self._checkpoint)
            return []
        return curve
