"""timm's noise: its law and bounds, with independent seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ralr_tune.schedules.noise import NOISE_LAWS, Noise


@st.composite
def noises(draw: st.DrawFn) -> Noise:
    law = draw(st.sampled_from(NOISE_LAWS))
    std = draw(st.floats(1e-3, 1000)) if law == "normal" else 1.0
    return Noise(draw(st.floats(0, 0.99)), std, law)


@given(noises(), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_the_rate_stays_positive_and_within_the_amplitude(noise: Noise, seed: int, index: int) -> None:
    factors = noise.factors(seed, index, 50)
    assert (factors > 0).all()
    assert ((factors >= 1 - noise.amplitude) & (factors <= 1 + noise.amplitude)).all()


def test_rounding_does_not_exceed_the_amplitude() -> None:
    """The interval is 1e-16 of the standard deviation: it contains only a few floating-point values of the cdf."""
    factors = Noise(1e-13, 1000).factors(0, 0, 200)
    assert ((factors >= 1 - 1e-13) & (factors <= 1 + 1e-13)).all()


@given(noises(), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 40))
def test_vectorised_equals_scalar_to_the_last_bit(noise: Noise, seed: int, start: int, count: int) -> None:
    expected = [noise.factor(seed, start + offset) for offset in range(count)]
    assert noise.factors(seed, start, count).tolist() == expected


@pytest.mark.parametrize(("amplitude", "std"), [(0.67, 1.0), (0.67, 0.3), (0.9, 0.05)])
def test_normal_noise_is_what_timms_redrawing_gives(amplitude: float, std: float) -> None:
    redrawn = np.random.default_rng(0).normal(0, std, 200_000)
    redrawn = redrawn[np.abs(redrawn) < amplitude][:20_000]
    noise = Noise(amplitude, std).factors(3, 0, 20_000) - 1
    assert stats.ks_2samp(noise, redrawn).pvalue > 1e-3
    assert stats.kstest(noise, stats.truncnorm(-amplitude / std, amplitude / std, scale=std).cdf).pvalue > 1e-3


@pytest.mark.parametrize("extreme", [2.0**-53, 1 - 2.0**-53])
def test_the_most_extreme_draws_give_a_valid_factor(extreme: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 2**52 draws, with a bound of about 8 standard deviations: the inverse must not be evaluated at 1."""
    monkeypatch.setattr("ralr_tune.schedules.noise.uniforms", lambda *_: np.full((1, 4), extreme))
    for deviations in np.linspace(7.5, 8.5, 2000).tolist():
        assert 0.5 <= Noise(0.5, 0.5 / deviations).factor(0, 0) <= 1.5


def test_uniform_noise_is_uniform() -> None:
    noise = Noise(0.67, law="uniform").factors(3, 0, 20_000) - 1
    assert stats.kstest(noise, stats.uniform(-0.67, 2 * 0.67).cdf).pvalue > 1e-3


def test_the_standard_deviation_is_not_ignored() -> None:
    assert Noise(0.67, 0.1).factors(3, 0, 500).std() == pytest.approx(0.1, rel=0.15)


def test_neighbouring_seeds_share_no_draw() -> None:
    one, two = (Noise().factors(seed, 0, 300) for seed in (42, 43))
    assert not np.isin(one, two).any()
    assert abs(np.corrcoef(one[1:], two[:-1])[0, 1]) < 5 / np.sqrt(299)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amplitude": 1.0}, r"amplitude = 1.0; allowed: a number in \[0, 1\)"),
        ({"std": 0}, r"std = 0; allowed: a number in \(0, 1000\]"),
        ({"law": "cauchy"}, "law = 'cauchy'; allowed: normal, uniform"),
        ({"law": "uniform", "std": 0.5}, "std = 0.5; allowed: no std, since law is 'uniform'"),
        ({"window": (0.9, 0.1)}, "window = 0.9"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise(**arguments)
