"""Whole simulated studies in memory, through the package's own sampler, pruner, selection and verdict.

Slower than the arrays of `verdicts.py`, and without their assumptions: TPE and the median pruner with their histories,
RALR's own dimensions and learning-rate traces (the same trace for the same seed), divergence, and `search.stages` for
finalists, choosing seeds, winners and judging seeds. The simulated task's `effect` is 0 and its jitter has mean zero,
so that both arms have the same best. Only database and worker are left out. `python -m tests.calibration.searches`
prints their table.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import optuna

from ralr_tune.analysis.comparison import Comparison
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.errors import TrialError
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.records import ArmRecord, EpochRecord, Row, Stage, StudyRecord
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.space import suggest
from ralr_tune.search.stages import choosing_seeds, finalists, judging_seeds, winners
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec
from tests.calibration.tables import Counted, Table, rows_of, show
from tests.calibration.verdicts import COLUMNS, RARELY_WRONG
from tests.metrics import ACCURACY
from tests.studies import simulated

TASK = SimulatedTask()
IDS = count(1)


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
    rows = [
        row for arm in spec.arms for block in range(1, spec.search.blocks + 1) for row in searched(spec, arm, block)
    ]
    for arm in spec.arms:
        for row in finalists(spec, rows, arm):
            rows += again(spec, row, "choose", choosing_seeds(spec))
    for arm in spec.arms:
        for row in winners(spec, rows, arm):
            rows += again(spec, row, "judge", judging_seeds(spec, spec.confirm.max_seeds))
    arms = {name: ArmRecord(name, {}, tuple(row for row in rows if row.arm == name)) for name in spec.arms}
    return StudyRecord(
        name=spec.name, spec_text="", fingerprint="", storage="", created=0.0, environment={},
        baseline="monotone", metric=ACCURACY,
        margin=spec.confirm.margin, confidence=spec.confirm.confidence, arms=arms,
    )  # fmt: skip


def searched(spec: StudySpec, arm: str, block: int) -> Iterator[Row]:
    """The search rows of one block, as `search.trial` has them."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(spec))
    for ordinal in range(spec.search.trials):
        study.sampler = make_sampler(spec, arm, block, ordinal)
        trial, seed = study.ask(), derive_seed("trial", spec.study.seed, block, ordinal)
        suggest(trial, spec, arm)
        curve: list[EpochRecord] = []
        outcome = "complete"
        try:
            for record in epochs(spec.configuration(arm, trial.params), seed):
                curve.append(record)
                trial.report(record.value, record.epoch)
                if record.epoch < spec.file.training.epochs and trial.should_prune():
                    outcome = "pruned"
                    break
        except TrialError:
            outcome = "diverged"
        if outcome == "pruned":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, curve[-1].value if outcome == "complete" else TASK.metric.worst)
        value = curve[-1].value if outcome != "diverged" else None
        yield row_of(
            arm, "search", ordinal, block=block, seed=seed, params=trial.params, trial=trial.number,
            outcome=outcome, value=value, curve=tuple(curve),
        )  # fmt: skip


def again(spec: StudySpec, row: Row, stage: Stage, seeds: list[int]) -> Iterator[Row]:
    """A configuration on fresh seeds."""
    configuration = spec.configuration(row.arm, row.params)
    for ordinal, seed in enumerate(seeds):
        value: float | None
        try:
            *_, last = epochs(configuration, seed)
            value, outcome = last.value, "complete"
        except TrialError:
            value, outcome = None, "diverged"
        known = {"block": row.block, "role": "best", "source": row.trial, "params": row.params}
        yield row_of(row.arm, stage, ordinal, seed=seed, outcome=outcome, value=value, **known)


def epochs(configuration: Configuration, seed: int) -> Iterator[EpochRecord]:
    """The curve of one run."""
    course = TASK.trajectory(configuration, seed=seed)
    for epoch in range(1, configuration.training.epochs + 1):
        yield EpochRecord(epoch, course.point(epoch), 0.0, 0.0, 1.0, 0.0)


def row_of(arm: str, stage: Stage, ordinal: int, **known: Any) -> Row:
    defaults: dict[str, Any] = {
        "role": "", "source": None, "trial": None, "state": "done", "attempt": 1, "owner": None, "failure": None,
        "message": None, "epoch": 0, "train_value": None, "curve": (), "seconds": None, "started": None,
        "finished": None,
    }  # fmt: skip
    return Row(id=next(IDS), arm=arm, stage=stage, ordinal=ordinal, **(defaults | known))


TABLE = Table(
    "Arm against arm, monotone and RALR, through the package's own search",
    rows_of(whole, (3, "tpe", "median"), (4, "qmc", "none"), (6, "tpe", "median")),
    COLUMNS,
    200,
)

if __name__ == "__main__":
    sys.exit("\n".join(show([TABLE])) or None)
