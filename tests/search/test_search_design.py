from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ralr_tune.search.design import from_unit, sobol_point


def test_a_point_is_a_pure_function_of_seed_and_ordinal() -> None:
    later = [sobol_point(4, ordinal, seed=7) for ordinal in (5, 0, 5)]
    assert np.array_equal(later[0], later[2])
    assert not np.array_equal(later[0], later[1])
    assert not np.array_equal(later[0], sobol_point(4, 5, seed=8))


def test_points_fill_the_space_evenly() -> None:
    points = np.array([sobol_point(3, ordinal, seed=1) for ordinal in range(64)])
    for column in points.T:
        assert sorted((column * 64).astype(int)) == list(range(64))  # one point in each of 64 strata


@pytest.mark.parametrize(
    ("distribution", "ends"),
    [
        (FloatDistribution(2.0, 6.0), (2.0, 6.0)),
        (FloatDistribution(1e-4, 1e2, log=True), (1e-4, 1e2)),
        (FloatDistribution(0.0, 1.0, step=0.25), (0.0, 1.0)),
        (IntDistribution(3, 9), (3, 9)),
        (IntDistribution(2, 10, step=4), (2, 10)),
        (IntDistribution(1, 128, log=True), (1, 128)),
    ],
)
def test_quantiles_reach_both_ends_and_stay_within_them(
    distribution: FloatDistribution, ends: tuple[float, float]
) -> None:
    values = [from_unit(unit, distribution) for unit in np.linspace(0, np.nextafter(1, 0), 2001)]
    assert values[0] == pytest.approx(ends[0])
    assert values[-1] == pytest.approx(ends[1])
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)


def test_every_choice_and_every_step_is_equally_likely() -> None:
    units = (np.arange(600) + 0.5) / 600
    drawn = [from_unit(unit, CategoricalDistribution(["a", "b", "c"])) for unit in units]
    assert [drawn.count(choice) for choice in "abc"] == [200, 200, 200]
    steps = [from_unit(unit, FloatDistribution(0.0, 1.0, step=0.5)) for unit in units]
    assert [steps.count(value) for value in (0.0, 0.5, 1.0)] == [200, 200, 200]


def test_a_log_range_is_uniform_in_the_logarithm() -> None:
    assert from_unit(0.5, FloatDistribution(1e-4, 1.0, log=True)) == pytest.approx(1e-2)
    assert math.isclose(from_unit(0.25, FloatDistribution(1e-4, 1.0, log=True)), 1e-3)
