from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from ralr_tune.spec import Configuration
from ralr_tune.tasks.simulated import SimulatedTask
from tests.calibration.importance import (
    CELLS,
    EPOCHS,
    FALSE_ALARMS,
    IGNORED,
    NOISE,
    POWER,
    RANGE,
    Cell,
    Rates,
    accuracies,
    calibrate,
    report,
    simulated_study,
    studies_a_cell,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class Still(np.random.Generator):
    """No noise at all."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64())

    def normal(self, *_: object, size: int | None = None) -> float | np.ndarray:  # type: ignore[override]
        return 0.0 if size is None else np.zeros(size)


def test_the_formula_is_that_of_the_simulated_task() -> None:
    task = SimulatedTask(noise=0.0, epoch_noise=0.0)
    for lr in (0.002, 0.1, 0.7):
        tables = {"training": {"epochs": EPOCHS, "batch_size": 32, "lr": lr}}
        settings = Configuration.model_validate(tables)
        theirs = [task.point(settings, seed=0, epochs=epoch) for epoch in range(1, EPOCHS + 1)]
        assert accuracies("peak", lr, 0.5, Still()) == pytest.approx(theirs)


def test_the_noise_and_the_weak_effect_are_what_they_are_called() -> None:
    random = np.random.default_rng(0)
    final = np.array([accuracies("peak", 0.01, 0.5, random)[-1] for _ in range(2000)])
    assert final.std() == pytest.approx(NOISE, rel=0.05)
    low, high = (accuracies("peak", 0.01, weak, Still())[-1] for weak in (0.0, 1.0))
    assert (high - low) / RANGE == pytest.approx(EPOCHS / (EPOCHS + 1))


def test_studies_are_a_function_of_cell_and_seed_and_are_pruned_where_they_should() -> None:
    cell = Cell("cliff", "tpe", "median", 20)
    once, again = (simulated_study(cell, 3).trials for _ in range(2))
    assert [(trial.params, trial.state) for trial in once] == [(trial.params, trial.state) for trial in again]
    assert 0.2 < calibrate(cell, 3).pruned < 0.8
    assert calibrate(cell._replace(pruner="none"), 3).pruned == 0


def test_bounds_allow_for_chance_and_no_more() -> None:
    rates = Rates(300, Counter(fine=25, much=60), 0.0)
    assert (rates.exceeds("fine", 0.05), rates.exceeds("much", 0.05)) == (False, True)
    assert (rates.falls_short("much", 0.2), rates.falls_short("fine", 0.2)) == (False, True)
    assert report(CELLS[0], rates).startswith("| peak-random-none-20 | 0% | 300 | 0.0% (0.0% to 1.2%) |")


def test_a_cell_that_does_not_exist_is_named() -> None:
    command = [sys.executable, "-m", "tests.calibration.importance", "peak-tpe-none-50", "peak-tpe-none-51"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "no such cell: peak-tpe-none-51; allowed: peak-random-none-20" in run.stderr


def holds(cell: Cell, studies: int) -> None:
    """What importance promises, binomial chance allowed for; the weak parameter's share is promised at 50 trials."""
    rates = calibrate(cell, studies)
    assert not any(rates.exceeds(name, FALSE_ALARMS) for name in IGNORED), report(cell, rates)
    if cell.trials >= 50:
        assert not rates.falls_short("momentum", POWER), report(cell, rates)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_few_studies(sampler: str) -> None:
    holds(Cell("peak", sampler, "median", 50), studies_a_cell(12))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell(cell: Cell) -> None:
    holds(cell, studies_a_cell(300))
