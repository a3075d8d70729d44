"""Whole simulated studies in memory, through the package's own sampler, pruner, selection and verdict.

Slower than the arrays of `verdicts.py`, and without their assumptions: TPE and the median pruner with their histories,
RALR's own dimensions and learning-rate traces (the same trace for the same seed), divergence, and `search.stages` for
finalists, choosing seeds, winners and judging seeds (replayed by `benchmarks.decisions.package`). The simulated task's
`effect` is 0 and its jitter has mean zero, so that both arms have the same best. Only database and worker are left out.
`python -m tests.calibration.searches` prints their table.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from benchmarks.decisions.package import Replay
from benchmarks.decisions.package import record_of as records
from benchmarks.decisions.worlds import Curve
from ralr_tune.analysis.comparison import Comparison
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.errors import TrialError
from ralr_tune.records import StudyRecord
from ralr_tune.search.artifacts import confirm_configuration
from ralr_tune.search.tasks import Tasks
from ralr_tune.store.ledger import PlannedRow
from ralr_tune.studyfile import StudySpec
from tests.calibration.tables import Counted, Table, rows_of, show
from tests.calibration.verdicts import COLUMNS, RARELY_WRONG
from tests.studies import simulated


def whole(studies: int, blocks: int, sampler: str, pruner: str) -> Counted:
    """Whole studies with seeds 0, 1, ...."""
    started, before = time.process_time(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    files = (study_of(seed, sampler=sampler, pruner=pruner, blocks=blocks) for seed in range(studies))
    verdicts = Counter(arm_comparison(file).verdict for file in files)
    optuna.logging.set_verbosity(before)
    what = f"{blocks} blocks, {sampler}, pruner {pruner}"
    return Counted(what, studies, Counter(verdicts), time.process_time() - started, (RARELY_WRONG,))


def study_of(seed: int, *, sampler: str, pruner: str, blocks: int, seeds: int = 5, trials: int = 24) -> StudySpec:
    """A monotone arm of lr and weight decay, and a RALR arm with three more dimensions."""
    return simulated(
        study={"seed": seed},
        training={"epochs": 12},
        search={"trials": trials, "blocks": blocks, "sampler": sampler, "pruner": pruner},
        confirm={"top": 2, "seeds": seeds, "margin": 0.0},
    )


def arm_comparison(spec: StudySpec) -> Comparison:
    """The verdict of a whole study of this file on the schedules themselves."""
    (made,) = arm_verdicts(record_of(spec), "validation").made
    return made


def record_of(spec: StudySpec) -> StudyRecord:
    """The records of a whole study up to judging."""
    replay = Replay(spec, KindRuns(spec, Tasks(spec, device="cpu").of({})))
    replay.search()
    for stage in ("audit", "choose", "judge"):
        replay.finish(stage)
    return records(spec, replay.rows)


@dataclass(frozen=True)
class KindRuns:
    """Runs of the simulated task itself."""

    spec: StudySpec
    task: Any

    def sampler(self, own: BaseSampler) -> BaseSampler:
        return own

    def curve(self, row: PlannedRow, params: Mapping[str, Any]) -> Curve:
        configuration = confirm_configuration(self.spec, replace(row, params=params))
        trajectory = self.task.trajectory(configuration, seed=row.seed)
        curve = np.full(configuration.training.epochs, np.nan)
        with suppress(TrialError):  # diverged
            for epoch in range(len(curve)):
                curve[epoch] = trajectory.point(epoch + 1)
        return curve

    def trained_with(self, seed: int) -> int:
        return seed


TABLE = Table(
    "Arm against arm, monotone and RALR, through the package's own search",
    rows_of(whole, (3, "tpe", "median"), (4, "qmc", "none"), (6, "tpe", "median")),
    COLUMNS,
    200,
)

if __name__ == "__main__":
    sys.exit("\n".join(show([TABLE])) or None)
