"""How often importance is wrong, through real Optuna studies: `python -m tests.calibration.importance [CELL ...]`.

A cell is SHAPE-SAMPLER-PRUNER-TRIALS; without any, all are run, 300 studies each (RALR_TUNE_CALIBRATE thousandths of
that); each cell prints one row of a table.

Objective: the formula of the simulated task (`ralr_tune/kinds/simulated/task.py`, its constants) with `noise` 0.005,
`epoch_noise` 0.002, no jitter and no divergence, evaluated directly. It is a function of `lr` (dominant: 0.32 of
accuracy over its range) and of `momentum`, whose range of effect is 8 times the noise, the standard deviation of a
score between seeds; it ignores `probability` and `flip`. In the shape "cliff" the rate matters little (0.08) until one
above 0.4 ruins the run. 12 epochs; samplers and pruners with Optuna's own defaults.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from ralr_tune.analysis import importance
from ralr_tune.kinds.simulated.task import CEILING, CHANCE, CURVATURE, RATE, SimulatedTask
from tests.calibration.tables import Counted, Promise, Row, Table, show

FIRST = 1000  # seed; `additive._charge` was chosen on seeds 0 to 99
EPOCHS = 12
NOISE = math.hypot(SimulatedTask.noise, SimulatedTask.epoch_noise)
RANGE = 8 * NOISE
IGNORED = ("probability", "flip")
RARELY_CALLED = tuple(Promise((name,), 0.05) for name in IGNORED)
FOUND = Promise(("momentum",), 0.8, at_least=True)

SHAPES = ("peak", "cliff")


class Cell(NamedTuple):
    """One kind of study."""

    curves: str
    """A shape of the formula, or the name of a recorded table."""
    sampler: str
    pruner: str
    trials: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


def cells_of(curves: str) -> list[Cell]:
    return [
        Cell(curves, sampler, pruner, trials)
        for trials in (20, 50, 200)
        for sampler in ("random", "tpe")
        for pruner in ("none", "median")
    ]


CELLS = [cell for shape in SHAPES for cell in cells_of(shape)]


def calibrate(studies: int, cell: Cell) -> Counted:
    """In how many studies of a cell each parameter was called "matters"."""
    promises = (*RARELY_CALLED, FOUND) if cell.trials >= 50 else RARELY_CALLED
    return counted(studies, cell, simulated_study, promises)


def counted(
    studies: int, cell: Cell, make: Callable[[Cell, int], optuna.Study], promises: tuple[Promise, ...]
) -> Counted:
    """The row of a cell, of the studies that `make` gives for seeds FIRST, FIRST + 1, ...

    It counts "matters" under the parameter's name, and any other verdict under `NAME: VERDICT`.
    """
    started = time.process_time()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    calls: Counter[str] = Counter()
    pruned = []
    for seed in range(FIRST, FIRST + studies):
        study = make(cell, seed)
        found = importance(study).items()
        calls.update(name if one.verdict == "matters" else f"{name}: {one.verdict}" for name, one in found)
        pruned.append(np.mean([trial.state.name == "PRUNED" for trial in study.get_trials(deepcopy=False)]))
    optuna.logging.set_verbosity(before)
    more = {"pruned": f"{np.mean(pruned):.0%}"}
    return Counted(str(cell), studies, calls, time.process_time() - started, promises, more)


def simulated_study(cell: Cell, seed: int) -> optuna.Study:
    """One study of a cell, in memory. A pure function of its arguments."""
    study = study_of(cell, sampler_of(cell, seed))
    random = np.random.default_rng([83, seed])
    for _ in range(cell.trials):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        momentum = trial.suggest_float("momentum", 0.8, 0.99)
        trial.suggest_float("probability", 0.05, 0.6)
        trial.suggest_categorical("flip", [False, True])
        follow(study, trial, accuracies(cell.curves, lr, (momentum - 0.8) / 0.19, random))
    return study


def sampler_of(cell: Cell, seed: int) -> BaseSampler:
    return {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[cell.sampler](seed=seed)


def study_of(cell: Cell, sampler: BaseSampler) -> optuna.Study:
    """A study without trials, in memory."""
    pruner = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}[cell.pruner]()
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def follow(study: optuna.Study, trial: optuna.Trial, curve: Sequence[float]) -> None:
    """Reports a curve epoch by epoch until the pruner stops the trial, which fails at a value that is NaN."""
    for epoch, value in enumerate(curve, 1):
        if math.isnan(value):
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.report(value, epoch)
        if epoch < len(curve) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, curve[-1])


def accuracies(shape: str, lr: float, weak: float, random: np.random.Generator) -> list[float]:
    """The curve of one trial; shape: one of SHAPES; weak in [0, 1]."""
    decades = math.log10(lr / SimulatedTask.optimum)
    if shape == "cliff":
        ruin = 1 / (1 + math.exp(-(math.log10(lr) + 0.4) / 0.04))
        asymptote = CEILING - CURVATURE / 4 * decades**2 - (CEILING - CHANCE) * ruin
    else:
        asymptote = CEILING - CURVATURE * decades**2
    learned = 1 - (1 + np.arange(1, EPOCHS + 1)) ** -RATE
    wobble = SimulatedTask.noise * random.normal() + SimulatedTask.epoch_noise * random.normal(size=EPOCHS)
    found = np.clip(CHANCE + (asymptote + RANGE * (weak - 0.5) - CHANCE) * learned + wobble, 0, 1)
    return [float(value) for value in found]


def rows(names: list[str]) -> list[Row]:
    """The cells of these names, or all."""
    known = {str(cell): cell for cell in CELLS}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such cell: {', '.join(unknown)}; allowed: {', '.join(known)}")
    return [partial(calibrate, cell=known[name]) for name in names or known]


def table(names: list[str]) -> Table:
    columns = {name: (name,) for name in (*IGNORED, "momentum", "lr")}
    title = 'Importance: called "matters" (`probability` and `flip` are ignored, `momentum` has 8 times the noise)'
    return Table(title, rows(names), columns, 300, more=("pruned",))


if __name__ == "__main__":
    sys.exit("\n".join(show([table(sys.argv[1:])])) or None)
