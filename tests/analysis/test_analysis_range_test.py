"""The proposal of a learning-rate range test, on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ralr_tune.analysis.range_test import (
    RangeProposal,
    SeedRange,
    _rounded,
    diverged,
    growing_rates,
    propose,
    smoothed,
    window_of,
)
from ralr_tune.records import RateSweep

STEPS = 300
RATES = growing_rates(1e-5, 30.0, STEPS)
WINDOW = window_of(STEPS)
LOG = np.log10(RATES)

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def valley(log: NDArray[np.float64], *, falls: float = -2.0, rises: float = 0.0) -> NDArray[np.float64]:
    """2.3 until 10^falls, then down to 0.5 within a decade, up again from 10^rises."""
    fall = 1.8 * np.clip(log - falls, 0, 1)
    return 2.3 - fall + 4.0 * np.clip(log - rises, 0, None) ** 2


def sweep(losses: Sequence[float], seed: int = 0) -> RateSweep:
    """As the trainer ends it: the losses are inspected every ten steps."""
    for end in range(10, len(losses), 10):
        if diverged(losses[:end], WINDOW):
            return RateSweep(seed, RATES[:end], tuple(losses[:end]), True)
    return RateSweep(seed, RATES, tuple(losses), diverged(losses, WINDOW))


def noisy(curve: NDArray[np.float64], noise: float, seed: int) -> list[float]:
    return (curve + np.random.default_rng(seed).normal(0, noise, len(curve))).tolist()


def proposed(curve: NDArray[np.float64], *, noise: float = 0.0, seeds: int = 3) -> RangeProposal:
    return propose([sweep(noisy(curve, noise, seed), seed) for seed in range(seeds)], WINDOW)


def test_rates_grow_by_a_constant_factor() -> None:
    rates = growing_rates(1e-3, 10.0, 5)
    assert rates == pytest.approx((1e-3, 1e-2, 0.1, 1.0, 10.0))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2, 0.4])
def test_a_valley_is_found_at_any_noise(noise: float) -> None:
    found = proposed(valley(LOG), noise=noise)
    assert found.low is not None
    assert found.high is not None
    # the loss begins to fall at 0.01, is lowest from 0.1 to 1 and has risen by half at 10^0.47 = 3
    assert 0.002 <= found.low <= 0.02
    assert 2.0 <= found.high <= 10.0
    assert (found.falls_at_once, found.stays_low) == (False, False)
    assert found.line == f"lr = {{ low = {found.low}, high = {found.high}, log = true }}"


def test_many_noisy_valleys_all_contain_the_lowest_losses() -> None:
    """30 tests of three seeds each, with noise of a sixth of the fall."""
    for start in range(30):
        swept = [sweep(noisy(valley(LOG), 0.3, 100 * start + seed), seed) for seed in range(3)]
        found = propose(swept, WINDOW)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 0.1
        assert found.high >= 1.0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [-1e3, 0.0])
def test_scale_and_sign_of_the_loss_do_not_matter(scale: float, offset: float) -> None:
    plain = proposed(valley(LOG))
    other = proposed(scale * (valley(LOG) + offset))
    assert (other.low, other.high) == (plain.low, plain.high)


def test_one_outlier_does_not_move_the_range() -> None:
    losses = valley(LOG).tolist()
    clean = propose([sweep(losses)], WINDOW)
    for step in (20, 180, 220):
        spoiled = [*losses[:step], 1e4, *losses[step + 1 :]]
        assert propose([sweep(spoiled)], WINDOW) == clean


def test_a_loss_that_only_diverges_gives_none() -> None:
    found = proposed(2.3 + np.exp(3 * (LOG + 4)), noise=0.05)
    assert (found.low, found.high, found.line) == (None, None, None)
    assert found.problems == ("rises",) * 3


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_a_flat_loss_gives_none(noise: float) -> None:
    found = proposed(np.full(STEPS, 2.3), noise=noise, seeds=20)
    assert found.line is None
    assert found.problems == ("flat",) * 20


def test_a_loss_that_is_never_finite_gives_none() -> None:
    for losses in ([math.nan] * 10, [math.inf] * 10, [2.3, math.nan, math.nan]):
        found = propose([RateSweep(0, RATES[: len(losses)], tuple(losses), True)], WINDOW)
        assert found.problems == ("not finite",)
        assert found.line is None


def test_a_loss_that_overflows_ends_the_range_where_it_did() -> None:
    losses = valley(LOG, rises=9.0).tolist()
    step = int(np.searchsorted(LOG, 0.0))
    losses[step:] = [math.nan] * (STEPS - step)
    swept = sweep(losses)
    assert swept.ended_early
    found = propose([swept], WINDOW)
    assert found.high in (1.0, 2.0)
    assert not found.stays_low


def test_a_loss_that_never_rises_again_ends_with_the_sweep() -> None:
    found = proposed(valley(LOG, rises=9.0), noise=0.05)
    assert found.high == 50.0  # 30, rounded up
    assert found.stays_low


def test_a_loss_that_falls_from_the_first_rate_on_says_so() -> None:
    found = proposed(valley(LOG, falls=-5.2), noise=0.02)
    assert found.falls_at_once
    assert found.low == 1e-5
    assert not found.stays_low


def test_the_median_of_the_seeds_is_proposed() -> None:
    curves = [valley(LOG), valley(LOG), valley(LOG, falls=-4.0, rises=-2.0)]
    found = propose([sweep(curve.tolist(), seed) for seed, curve in enumerate(curves)], WINDOW)
    alone = propose([sweep(curves[0].tolist())], WINDOW)
    assert (found.low, found.high) == (alone.low, alone.high)
    assert found.seeds[2].low is not None
    assert found.seeds[2].low < 1e-3


def test_most_seeds_must_show_a_range() -> None:
    good, flat = sweep(valley(LOG).tolist()), sweep(noisy(np.full(STEPS, 2.3), 0.1, 1))
    assert propose([good, good, flat], WINDOW).line is not None
    assert propose([good, flat, flat], WINDOW).line is None
    assert propose([good, flat, flat], WINDOW).problems == ("flat", "flat")


def test_the_median_is_centred_and_shorter_at_the_ends() -> None:
    assert smoothed([1.0, 9.0, 2.0, 3.0, math.nan], 3).tolist() == [5.0, 2.0, 3.0, 3.0, math.inf]


def test_divergence_needs_more_than_noise_and_more_than_the_fall() -> None:
    flat = noisy(np.full(STEPS, 2.3), 0.3, 0)
    assert not any(diverged(flat[:end], WINDOW) for end in range(1, STEPS))
    losses = valley(LOG, rises=9.0).tolist()
    assert not diverged([*losses, *[3.9] * WINDOW], WINDOW)  # as high above the start as the lowest is below: 4.1
    assert diverged([*losses, *[4.2] * WINDOW], WINDOW)
    assert diverged([2.3, math.nan], WINDOW)
    assert not diverged([], WINDOW)


@pytest.mark.parametrize("rate", [1e-5, 2e-5, 3e-5, 0.999, 1.0, 1.001, 5.0, 7.0])
def test_rounding_is_outwards_to_1_2_or_5(rate: float) -> None:
    low, high = _rounded(rate, up=False), _rounded(rate, up=True)
    assert low <= rate <= high
    assert high / low <= 2.5 + 1e-9
    assert {f"{end:.0e}"[0] for end in (low, high)} <= set("125")


def test_rounding_ignores_the_last_digits() -> None:
    assert _rounded(30.000000000000007 / 3, up=True) == 10.0
    assert _rounded(0.0009999999999999998, up=False) == 0.001


def test_the_json_has_the_line() -> None:
    found = RangeProposal(0.005, 5.0, (SeedRange(0, None, 0.007, 0.5, 0.4, 4.7),))
    assert found.as_json()["line"] == "lr = { low = 0.005, high = 5.0, log = true }"
    assert found.as_json()["log"] is True
