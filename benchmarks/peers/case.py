"""What every row trains: data, network, batch, epochs, search space, budget. Each script takes it as JSON."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LR = (1e-3, 1.0)
WEIGHT_DECAY = (1e-5, 1e-2)
MOMENTUM = 0.9
MILESTONES = (0.5, 0.75)
"""Shares of the run at which the learning rate is divided by 10."""
VALIDATION = 0.2
FIRST = 8


@dataclass(frozen=True)
class Case:
    """One search: `trials` configurations of learning rate and weight decay, both logarithmic."""

    name: str
    data: str
    """An .npz as `source = "arrays"` reads it."""
    model: str
    batch_size: int
    epochs: int
    trials: int
    augment: tuple[str, ...]
    device: str = "cpu"
    pruning: bool = False
    seed: int = 0

    def first(self) -> list[dict[str, float]]:
        """Configurations that every row tries first, at most FIRST: a sampler's lucky start is not speed."""
        drawn = random.Random(self.seed)

        def number(low: float, high: float) -> float:
            return math.exp(drawn.uniform(math.log(low), math.log(high)))

        return [{"lr": number(*LR), "weight_decay": number(*WEIGHT_DECAY)} for _ in range(min(FIRST, self.trials))]


@dataclass(frozen=True)
class Job:
    """A case, its settings, and the file into which the script logs what it does."""

    case: Case
    settings: dict[str, Any] = field(default_factory=dict)
    events: str = ""

    def note(self, kind: str, **facts: Any) -> None:
        """A line of JSON: "start" when a trial begins to train, "epoch" after each. Atomic, even if
        other processes write."""
        line = json.dumps({"kind": kind, "time": time.time(), **facts}) + "\n"
        with Path(self.events).open("a") as file:
            file.write(line)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def job_of_command() -> Job:
    """The job given on the command line."""
    given = json.loads(sys.argv[1])
    given["case"]["augment"] = tuple(given["case"]["augment"])
    return Job(Case(**given["case"]), given["settings"], given["events"])


@dataclass(frozen=True)
class Data:
    """Images (N, H, W, C) uint8 and labels, split as ralr_tune splits them."""

    path: str
    seed: int

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        from ralr_tune.kinds.classification.pool import pool_and_rows
        from ralr_tune.kinds.classification.sources import open_source

        _, rows = pool_and_rows(
            open_source({"source": "arrays", "path": self.path}), VALIDATION, self.seed, "cpu", None
        )
        held = np.load(self.path)
        images, labels = held["train_images"], held["train_labels"]
        split = {name: rows[name].numpy() for name in ("train", "validation")}
        return {
            **{f"{name}_images": images[chosen] for name, chosen in split.items()},
            **{f"{name}_labels": labels[chosen].astype(np.int64) for name, chosen in split.items()},
        }

    @property
    def classes(self) -> int:
        return int(self.arrays["train_labels"].max()) + 1
