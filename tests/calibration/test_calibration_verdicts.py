"""Error rates of the verdicts: 200 studies per row; slow tests 1,000 (or RALR_TUNE_CALIBRATE), analyses tenfold."""

from __future__ import annotations

import numpy as np
import pytest

from ralr_tune.analysis.sequential import Plan
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.studyfile import Configuration
from ralr_tune.studyfile.configuration import AmplifyConfig, TrainingConfig
from tests.calibration.tables import Table
from tests.calibration.verdicts import (
    EPOCHS,
    RARELY_WRONG,
    SEEN,
    TABLES,
    NoiseShares,
    accuracy,
    analyses,
    arms,
    blocks_alone,
    configurations,
    equivalence,
    power,
    ralr_arms,
    seeds_for_arms,
    several_analyses,
)

FEW = 200


@pytest.mark.parametrize("lr", [0.1, 0.003, 0.9])
def test_the_formula_is_the_simulated_tasks(lr: float) -> None:
    configuration = Configuration(training=TrainingConfig(epochs=EPOCHS, batch_size=32, lr=lr))
    still = SimulatedTask(noise=0.0, epoch_noise=0.0)
    expected = still.point(configuration, seed=0, epochs=EPOCHS)
    assert accuracy(np.array(lr), np.array(5.0), np.array(5.0), task=still) == pytest.approx(expected)
    noisy = accuracy(np.array(lr), np.array(1.0), np.array(-1.0))
    assert noisy == pytest.approx(expected + SimulatedTask().noise - SimulatedTask().epoch_noise)


def test_amplification_wobbles_as_in_the_simulated_task() -> None:
    task, settings = SimulatedTask(noise=0.0, epoch_noise=0.0), TrainingConfig(epochs=EPOCHS, batch_size=32, lr=0.1)
    plain = Configuration(training=settings)
    amplified = Configuration(training=settings, amplify=AmplifyConfig(probability=1.0, lower=3.0, width=0.0))
    still = task.point(plain, seed=0, epochs=EPOCHS)
    theirs = [task.point(amplified, seed=seed, epochs=EPOCHS) - still for seed in range(400)]
    ours = accuracy(
        np.full(400, 0.1), np.zeros(400), np.random.default_rng(0).standard_normal(400), np.array(3.0), task=task
    )
    assert np.std(theirs) == pytest.approx(ours.std(), rel=0.15)


@pytest.mark.parametrize("noise", [NoiseShares(), NoiseShares(seed=0.9)])
def test_equal_configurations_rarely_differ(noise: NoiseShares) -> None:
    assert configurations(FEW, 5, noise).broken == []


def test_a_clear_difference_is_detected() -> None:
    assert power(FEW).broken == []


def test_what_differs_by_the_margin_is_rarely_called_equivalent() -> None:
    assert equivalence(FEW, 5).broken == []


def test_equal_arms_rarely_differ() -> None:
    assert arms(FEW, 4, NoiseShares()).broken == []


def test_equal_arms_rarely_differ_if_all_blocks_share_their_seeds() -> None:
    assert arms(FEW, 6, NoiseShares(seed_in_arm=0.5)).broken == []
    assert ralr_arms(FEW, 6).broken == []


def test_interim_analyses_together_rarely_err() -> None:
    assert analyses(FEW, Plan((3, 4, 5, 6, 8, 10), margin=0.0), 0.0).broken == []
    assert several_analyses(FEW, Plan((5, 8), margin=0.0, comparisons=3)).broken == []


def test_wrong_methods_and_low_power_break_the_promises() -> None:
    assert RARELY_WRONG.broken(blocks_alone(FEW, 6))
    assert RARELY_WRONG.broken(seeds_for_arms(FEW, 20))
    assert SEEN.broken(power(FEW, difference=1.0))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_every_row(table: Table) -> None:
    assert [fault for row in table.counted() for fault in row.broken] == []
