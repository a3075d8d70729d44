"""What a program is asked to train: one trial, and what differs between two starts of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ralr_tune.child.metrics import OtherMetrics
from ralr_tune.machine.files import write
from ralr_tune.tasks.trial import TrialStage

VERSION = 1
"""Of the file that describes a trial."""
LOG, DESCRIPTION, SCHEDULE, KEPT = "program.log", "trial.json", "schedule.json", "checkpoint-"
"""Names in an attempt's folder: the program's output, the description of its trial, the schedule of every step, and
checkpoints by epoch."""
WORKERS_OWN = frozenset({LOG, DESCRIPTION, SCHEDULE})
"""Files in that folder which the worker writes."""


@dataclass(frozen=True)
class Start:
    """What differs between two starts of one trial's program."""

    stage: TrialStage
    first_epoch: int
    folder: Path
    checkpoint: Path | None


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a run, as multipliers. All lists have one list for each epoch."""

    base: Sequence[Sequence[float]]
    """The base curve."""
    factors: Sequence[Sequence[float]]
    """The amplification."""
    rates: Sequence[Sequence[float]]
    """The learning rates themselves, both included."""


@dataclass(frozen=True)
class Plan:
    """One trial of a program."""

    identity: str
    epochs: int
    stage: TrialStage
    """What the trial is for; the program that only evaluates it starts with "test"."""
    description: Mapping[str, Any]
    """What the program gets to read: parameters, seed, split, device."""
    schedule: Callable[[int], Schedule]
    """The schedule for a number of steps in each epoch."""
    by_step: bool
    """Whether the rate changes within an epoch, so that the program must ask for the schedule of every step."""
    report_timeout: float | None = None
    """Seconds without a report after which the program counts as stuck."""
    grace_s: float = 10.0
    """Seconds between asking it to leave and SIGTERM, and between SIGTERM and SIGKILL."""
    metrics: OtherMetrics = field(default_factory=OtherMetrics)
    """What it reports besides the study's metric."""
    epoch_metrics: tuple[str, ...] = ()
    """Those of them that every report must contain."""


@dataclass(frozen=True)
class Written:
    """The description of a trial on the disk."""

    path: Path
    token: str
    """Messages of an earlier trial of the same process have another one."""


def describe(plan: Plan, start: Start) -> Written:
    """Writes the file that the program reads. Raises DiskError."""
    token = secrets.token_hex(8)
    schedule = None if plan.by_step else plan.schedule(1)
    found = {
        "version": VERSION,
        "token": token,
        "stage": start.stage,
        "first_epoch": start.first_epoch,
        "epochs": plan.epochs,
        "folder": str(start.folder),
        "log": str(start.folder / LOG),
        "checkpoint": None if start.checkpoint is None else str(start.checkpoint),
        **plan.description,
        "base": None if schedule is None else [epoch[0] for epoch in schedule.base],
        "factors": None if schedule is None else [epoch[0] for epoch in schedule.factors],
    }
    path = start.folder / DESCRIPTION
    write(path, json.dumps(found).encode())
    return Written(path, token)


def write_schedule(folder: Path, schedule: Schedule) -> Path:
    """Writes the schedule of every step for the program. Raises DiskError."""
    path = folder / SCHEDULE
    write(path, json.dumps({"base": schedule.base, "factors": schedule.factors}).encode())
    return path
