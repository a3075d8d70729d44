from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.studyfile import Configuration
from tests.calibration.importance import (
    CELLS,
    EPOCHS,
    NOISE,
    RANGE,
    Cell,
    accuracies,
    calibrate,
    follow,
    sampler_of,
    simulated_study,
    study_of,
)
from tests.calibration.tables import scaled

ROOT = Path(__file__).parents[2]


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
    states = [trial.state.name for seed in range(3) for trial in simulated_study(cell, seed).trials]
    assert 0.2 < states.count("PRUNED") / len(states) < 0.8
    assert calibrate(1, cell._replace(pruner="none")).more == {"pruned": "0%"}


@pytest.mark.parametrize(
    ("curve", "state", "value"), [([0.1, 0.3], "COMPLETE", 0.3), ([0.1, math.nan, math.nan], "FAIL", None)]
)
def test_a_trial_follows_its_curve_to_its_end_or_until_it_diverges(
    curve: list[float], state: str, value: float | None
) -> None:
    cell = Cell("peak", "random", "none", 1)
    study = study_of(cell, sampler_of(cell, 0))
    follow(study, study.ask(), curve)
    (trial,) = study.trials
    reports = {epoch: one for epoch, one in enumerate(curve, 1) if not math.isnan(one)}
    assert (trial.state.name, trial.value, trial.intermediate_values) == (state, value, reports)


def test_a_cell_that_does_not_exist_is_named() -> None:
    command = [sys.executable, "-m", "tests.calibration.importance", "peak-tpe-none-50", "peak-tpe-none-51"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "no such cell: peak-tpe-none-51; allowed: peak-random-none-20" in run.stderr


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_few_studies(sampler: str) -> None:
    assert calibrate(12, Cell("peak", sampler, "median", 50)).broken == []


def test_an_importance_without_a_null_breaks_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["ralr_tune.analysis.importance"]  # the function of that name hides it
    monkeypatch.setattr(module, "_verdict", lambda value, by_chance: "matters")
    assert len(calibrate(12, Cell("peak", "random", "none", 20)).broken) == 2
    monkeypatch.setattr(module, "_verdict", lambda value, by_chance: "indistinguishable")
    (fault,) = calibrate(12, Cell("peak", "random", "none", 50)).broken
    assert fault == "peak-random-none-50: momentum at least 80%, found 0.0% of 12"


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell(cell: Cell) -> None:
    assert calibrate(scaled(300), cell).broken == []
