"""How often importance is wrong, through real Optuna studies: `python -m tests.calibration.importance [CELL ...]`.

A cell is SHAPE-SAMPLER-PRUNER-TRIALS; without any, all are run. RALR_TUNE_CALIBRATE is the number of studies a cell
(300 by default here); each cell prints one row of a table.

Objective: the formula of the simulated task (`ralr_tune/tasks/simulated.py`, its constants) with `noise` 0.005,
`epoch_noise` 0.002, no jitter and no divergence, evaluated directly. It is a function of `lr` (dominant: 0.32 of
accuracy over its range) and of `momentum`, whose range of effect is 8 times the noise, the standard deviation of a
score between seeds; it ignores `probability` and `flip`. In the shape "cliff" the rate matters little (0.08) until one
above 0.4 ruins the run. 12 epochs; samplers and pruners with Optuna's own defaults.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import optuna
from scipy import stats

from ralr_tune.analysis import importance
from ralr_tune.tasks.simulated import CEILING, CHANCE, CURVATURE, RATE, SimulatedTask

EPOCHS = 12
NOISE = math.hypot(SimulatedTask.noise, SimulatedTask.epoch_noise)
RANGE = 8 * NOISE
IGNORED = ("probability", "flip")
FALSE_ALARMS = 0.05
POWER = 0.8

Shape = Literal["peak", "cliff"]


class Cell(NamedTuple):
    """One kind of study."""

    shape: Shape
    sampler: str
    pruner: str
    trials: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


class Rates(NamedTuple):
    """In how many of the studies each parameter was called "matters", and what share of the trials was pruned."""

    studies: int
    calls: Counter[str]
    pruned: float

    def share(self, name: str) -> float:
        return self.calls[name] / self.studies

    def exceeds(self, name: str, share: float) -> bool:
        """More calls than a true share of this would give in 999 of 1,000 repetitions."""
        return self.calls[name] > int(stats.binom.ppf(0.999, self.studies, share))

    def falls_short(self, name: str, share: float) -> bool:
        """Fewer calls than a true share of this would give in 999 of 1,000 repetitions."""
        return self.calls[name] < int(stats.binom.ppf(0.001, self.studies, share))

    def interval(self, name: str) -> tuple[float, float]:
        """95%, Clopper and Pearson."""
        found = stats.binomtest(self.calls[name], self.studies).proportion_ci(method="exact")
        return float(found.low), float(found.high)


CELLS = [
    Cell(shape, sampler, pruner, trials)
    for shape in ("peak", "cliff")
    for trials in (20, 50, 200)
    for sampler in ("random", "tpe")
    for pruner in ("none", "median")
]


def studies_a_cell(otherwise: int) -> int:
    return int(os.environ.get("RALR_TUNE_CALIBRATE", otherwise))


def calibrate(cell: Cell, studies: int, *, first: int = 0) -> Rates:
    """Rates of a cell over studies with seeds first, first + 1, ...."""
    calls: Counter[str] = Counter()
    pruned = []
    for seed in range(first, first + studies):
        study = simulated_study(cell, seed)
        calls.update(name for name, one in importance(study).items() if one.verdict == "matters")
        pruned.append(np.mean([trial.state.name == "PRUNED" for trial in study.get_trials(deepcopy=False)]))
    return Rates(studies, calls, float(np.mean(pruned)))


def simulated_study(cell: Cell, seed: int) -> optuna.Study:
    """One study of a cell, in memory. A pure function of its arguments."""
    sampler = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[cell.sampler](seed=seed)
    pruner = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}[cell.pruner]()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    random = np.random.default_rng([83, seed])
    for _ in range(cell.trials):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        momentum = trial.suggest_float("momentum", 0.8, 0.99)
        trial.suggest_float("probability", 0.05, 0.6)
        trial.suggest_categorical("flip", [False, True])
        curve = accuracies(cell.shape, lr, (momentum - 0.8) / 0.19, random)
        for epoch, accuracy in enumerate(curve, 1):
            trial.report(accuracy, epoch)
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[-1])
    return study


def accuracies(shape: Shape, lr: float, weak: float, random: np.random.Generator) -> list[float]:
    """The curve of one trial; weak in [0, 1]."""
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


def report(cell: Cell, rates: Rates) -> str:
    """One row of a table."""
    cells = [str(cell), f"{rates.pruned:.0%}", str(rates.studies)]
    for name in (*IGNORED, "momentum", "lr"):
        low, high = rates.interval(name)
        cells.append(f"{rates.share(name):.1%} ({low:.1%} to {high:.1%})")
    return "| " + " | ".join(cells) + " |"


def chosen(names: list[str]) -> Iterator[Cell]:
    known = {str(cell): cell for cell in CELLS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such cell: {', '.join(unknown)}; allowed: {', '.join(known)}")
    yield from (known[name] for name in names) if names else CELLS


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| cell | pruned | studies | probability | flip | momentum | lr |\n|---|---|---|---|---|---|---|", flush=True)
    for cell in chosen(sys.argv[1:]):
        print(report(cell, calibrate(cell, studies_a_cell(300))), flush=True)
