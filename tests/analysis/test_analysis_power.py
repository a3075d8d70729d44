from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ralr_tune.analysis.comparison import Pairs, compare
from ralr_tune.analysis.power import (
    MAX_PAIRS,
    POWER,
    DetectableEffect,
    ErrorFloor,
    detectable_difference,
    detectable_effect,
    pairs_to_differ,
    pairs_to_equal,
    power_to_differ,
    power_to_equal,
    spread_interval,
)
from tests.metrics import ACCURACY

SPREAD = 0.01


def reached(differences: list[float], *, margin: float = 0.005) -> DetectableEffect:
    (made,) = compare(
        [Pairs("configuration", "ralr", "monotone", differences)], margin=margin, confidence=0.95, metric=ACCURACY
    )
    found = detectable_effect(made, float(np.std(differences, ddof=1)), margin=margin, alpha=0.05)
    assert found is not None
    return found


@pytest.mark.parametrize(("n", "difference"), [(2, 1.0), (3, 1.0), (5, 2.0), (10, 1.0), (20, 0.6)])
def test_power_is_scipys_noncentral_t(n: int, difference: float) -> None:
    critical, shift = stats.t.isf(0.025, n - 1), difference * n**0.5
    expected = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power_to_differ(difference, 1.0, n, 0.05) == pytest.approx(expected, abs=1e-3)


def test_power_when_scipys_noncentral_t_fails() -> None:
    assert power_to_differ(40.0, 1.0, 2, 0.05) == pytest.approx(1.0, abs=1e-3)
    assert power_to_differ(0.0, 1.0, 2, 0.05) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("n", "margin", "difference"), [(3, 3.0, 0.0), (10, 1.0, 0.3), (40, 0.5, 0.1)])
def test_power_of_equivalence_agrees_with_a_simulation(n: int, margin: float, difference: float) -> None:
    draws = np.random.default_rng(0).normal(difference, 1.0, (40_000, n))
    half = stats.t.isf(0.05, n - 1) * draws.std(axis=1, ddof=1) / n**0.5
    found = (np.abs(draws.mean(axis=1)) + half < margin).mean()
    assert power_to_equal(difference, 1.0, n, margin, 0.05) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_detectable_difference_has_the_power(n: int) -> None:
    assert power_to_differ(detectable_difference(SPREAD, n, 0.05), SPREAD, n, 0.05) == pytest.approx(POWER)


def test_fewest_pairs_are_enough_and_one_less_is_not() -> None:
    n = pairs_to_differ(SPREAD, difference=0.006, alpha=0.05)
    assert n is not None
    assert power_to_differ(0.006, SPREAD, n, 0.05) >= POWER > power_to_differ(0.006, SPREAD, n - 1, 0.05)
    n = pairs_to_equal(SPREAD, difference=0.001, margin=0.005, alpha=0.05)
    assert n is not None
    assert power_to_equal(0.001, SPREAD, n, 0.005, 0.05) >= POWER > power_to_equal(0.001, SPREAD, n - 1, 0.005, 0.05)


def test_verdicts_that_no_number_of_pairs_reaches() -> None:
    assert pairs_to_differ(SPREAD, difference=0.0, alpha=0.05) is None
    assert pairs_to_differ(SPREAD, difference=SPREAD / 100, alpha=0.05) is None
    assert pairs_to_equal(SPREAD, difference=0.005, margin=0.005, alpha=0.05) is None
    assert pairs_to_equal(SPREAD, difference=0.0, margin=0.0, alpha=0.05) is None


def test_the_interval_of_the_spread_covers() -> None:
    draws = np.random.default_rng(1).normal(0.0, SPREAD, (4000, 4)).std(axis=1, ddof=1)
    covered = np.mean([low <= SPREAD <= high for low, high in (spread_interval(float(s), 4) for s in draws)])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_two_pairs_have_a_wide_interval_of_the_spread() -> None:
    few, more = reached([0.001, 0.004]), reached([0.001, 0.004, 0.002, 0.003, 0.0, 0.005])
    assert few.visible_interval[1] > 60 * few.visible_interval[0]
    assert more.visible_interval[1] < 5 * more.visible_interval[0]
    assert few.more_to_differ_range is not None
    assert few.more_to_differ_range[1] is None or few.more_to_differ_range[1] > 20


def test_a_correction_increases_the_detectable_difference() -> None:
    assert detectable_difference(SPREAD, 5, 0.05 / 3) > detectable_difference(SPREAD, 5, 0.05)


def test_the_nearer_verdict_is_named() -> None:
    found = reached([0.004, -0.002, 0.001, 0.003, -0.001])
    assert found.more_to_differ is not None
    assert found.more_to_equal is not None
    assert found.more == (found.more_to_equal, found.more_to_equal_range)
    assert found.more_to_equal < found.more_to_differ


def test_no_verdict_within_the_maximum_of_pairs() -> None:
    found = reached([0.1, -0.1, 0.1, -0.0999], margin=0.0)
    assert found.more is None
    assert MAX_PAIRS == 1000


def test_no_detectable_effect_without_spread_or_pairs() -> None:
    for differences in ([0.01, 0.01, 0.01], [0.01]):
        (made,) = compare([Pairs("arm", "a", "b", differences)], margin=0.0, confidence=0.95, metric=ACCURACY)
        assert detectable_effect(made, 0.0, margin=0.0, alpha=0.05) is None


def test_more_pairs_do_not_reduce_the_error_of_the_seeds() -> None:
    floor = ErrorFloor(0.002, 4)
    seen = detectable_difference(SPREAD, 4, 0.05, floor=floor)
    assert seen > detectable_difference(SPREAD, 4, 0.05)
    assert power_to_differ(seen, SPREAD, 4, 0.05, floor) == pytest.approx(POWER)
    without = pairs_to_differ(SPREAD, difference=0.008, alpha=0.05)
    assert without is not None
    assert pairs_to_differ(SPREAD, difference=0.008, alpha=0.05, floor=floor) > without  # type: ignore[operator]
    short = ErrorFloor(0.003, 4)
    assert pairs_to_differ(SPREAD, difference=0.008, alpha=0.05, floor=short) is None  # blocks without end are too few
    assert pairs_to_equal(SPREAD, difference=0.0, margin=0.005, alpha=0.05, floor=short) is None


def test_power_over_blocks_and_seeds_roughly_agrees_with_a_simulation() -> None:
    random, blocks, seeds, difference = np.random.default_rng(4), 4, 5, 0.02
    of_block, of_seed = random.normal(0, 0.01, (4000, blocks, 1)), random.normal(0, 0.008, (4000, 1, seeds))
    studies = difference + of_block + of_seed
    pairs = [Pairs("arm", "a", "b", list(d.mean(axis=1)), list(d.mean(axis=0))) for d in studies]
    made = [compare([each], margin=0.0, confidence=0.95, metric=ACCURACY)[0] for each in pairs]
    found = np.mean([each.verdict == "better" for each in made])
    floor = ErrorFloor(0.008 / seeds**0.5, seeds - 1)
    assert power_to_differ(difference, 0.01, blocks, 0.05, floor) == pytest.approx(found, abs=0.06)
