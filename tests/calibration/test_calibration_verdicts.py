"""The verdicts keep their error: 200 studies a row; in the slow tests 1,000 (or RALR_TUNE_CALIBRATE), looks tenfold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ralr_tune.analysis.sequential import Plan
from ralr_tune.spec import Configuration
from ralr_tune.spec.configuration import TrainingConfig
from ralr_tune.tasks.simulated import SimulatedTask
from tests.calibration.verdicts import (
    EPOCHS,
    Looked,
    Luck,
    Said,
    accuracy,
    arm_table,
    arms,
    configuration_table,
    configurations,
    look_table,
    looks,
    power,
    studies_asked,
)

FEW = 200


def highest(share: float, studies: int) -> float:
    """The largest share of studies that a true share gives, but for one time in a thousand."""
    return float(stats.binom.ppf(0.999, studies, share)) / studies


def lowest(share: float, studies: int) -> float:
    return float(stats.binom.ppf(0.001, studies, share)) / studies


@pytest.mark.parametrize("lr", [0.1, 0.003, 0.9])
def test_the_formula_is_the_simulated_tasks(lr: float) -> None:
    configuration = Configuration(training=TrainingConfig(epochs=EPOCHS, batch_size=32, lr=lr))
    still = SimulatedTask(noise=0.0, epoch_noise=0.0)
    expected = still.point(configuration, seed=0, epochs=EPOCHS)
    assert accuracy(np.array(lr), np.array(5.0), np.array(5.0), task=still) == pytest.approx(expected)
    noisy = accuracy(np.array(lr), np.array(1.0), np.array(-1.0))
    assert noisy == pytest.approx(expected + SimulatedTask().noise - SimulatedTask().epoch_noise)


@pytest.mark.parametrize("luck", [Luck(), Luck(seed=0.9)])
def test_equal_configurations_rarely_differ(luck: Luck) -> None:
    assert configurations(FEW, 5, luck).differs <= highest(0.05, FEW)


def test_a_clear_difference_is_seen() -> None:
    assert power(FEW).differs >= lowest(0.85, FEW)


def test_equal_arms_rarely_differ() -> None:
    assert arms(FEW, 4, Luck()).differs <= highest(0.05, FEW)


def test_looks_together_rarely_err() -> None:
    found = looks(FEW, Plan((3, 4, 5, 6, 8, 10), margin=0.0), 0.0)
    assert found.said.differs <= highest(0.05, FEW)
    assert found.covered >= lowest(0.95, FEW)


def right(said: Said) -> bool:
    """Whether a row of equal arms or configurations keeps to 5%, and others see what they should."""
    if "2 sd apart" in said.what:
        return said.differs >= 0.85
    if "margin apart" in said.what:
        return said.share("equivalent") <= highest(0.05, said.studies)
    return said.differs <= highest(0.05, said.studies)


MISTAKES = ("1 block, winners over", "4 blocks, 50% of luck the arm's seed's")
"""Rows that show what goes wrong: seeds taken for blocks, and blocks that share their seeds."""


@pytest.mark.slow
@pytest.mark.parametrize("table", [configuration_table, arm_table])
def test_the_tables_of_verdicts(table) -> None:  # type: ignore[no-untyped-def]
    rows: list[Said] = list(table(studies_asked(1000)))
    assert [row.what for row in rows if not (right(row) or row.what.startswith(MISTAKES))] == []


def keeps(found: Looked) -> bool:
    """Whether no true difference is called one, no margin equivalence, and intervals cover."""
    said, enough = found.said, lowest(0.95, found.said.studies)
    if ("0 sd apart" in said.what or "test 0 sd" in said.what) and said.differs > highest(0.05, said.studies):
        return False
    if "margin 1, 1 sd apart" in said.what and said.share("equivalent") > highest(0.05, said.studies):
        return False
    return found.covered >= enough


@pytest.mark.slow
def test_the_table_of_looks() -> None:
    rows = list(look_table(10 * studies_asked(1000)))
    assert [row.said.what for row in rows if not keeps(row)] == []
