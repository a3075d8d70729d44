"""The law of random amplification: bounds, purity, distribution, independence of seeds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ralr_tune.schedules.amplification import LAWS, Amplification, Law
from ralr_tune.schedules.perturbation import uniforms

Floats = NDArray[np.float64]

seeds = st.integers(0, 2**64 - 1)
indices = st.integers(0, 2**40)
laws = st.sampled_from(LAWS)


@st.composite
def amplifications(draw: st.DrawFn) -> Amplification:
    lower = draw(st.floats(1, 1e6))
    return Amplification(draw(st.floats(0, 1)), lower, draw(st.floats(lower, 2e6)), draw(laws))


@given(amplifications(), seeds, indices)
def test_a_factor_is_1_or_within_the_bounds(law: Amplification, seed: int, index: int) -> None:
    factors = law.factors(seed, index, 50)
    assert ((factors == 1) | ((factors >= law.lower) & (factors <= law.upper))).all()


@given(amplifications(), seeds, indices, st.integers(0, 70))
def test_vectorised_equals_scalar_to_the_last_bit(law: Amplification, seed: int, start: int, count: int) -> None:
    factors = law.factors(seed, start, count)
    assert factors.shape == (count,)
    assert factors.tolist() == [law.factor(seed, start + offset) for offset in range(count)]


@given(amplifications(), seeds, st.lists(st.integers(0, 200), max_size=20))
def test_a_draw_does_not_depend_on_earlier_draws(law: Amplification, seed: int, order: list[int]) -> None:
    whole = law.factors(seed, 0, 201)
    assert [law.factor(seed, index) for index in order] == [whole[index] for index in order]


def test_rounding_does_not_exceed_a_bound() -> None:
    lower = 1.7
    upper = float(np.nextafter(lower, 2))
    assert set(Amplification(1, lower, upper, "loguniform").factors(0, 0, 200)) <= {lower, upper}


@given(seeds)
def test_probability_0_is_never_and_1_is_always(seed: int) -> None:
    assert (Amplification(0, 2, 3).factors(seed, 0, 100) == 1).all()
    assert (Amplification(1, 2, 3).factors(seed, 0, 100) >= 2).all()


def test_the_trace_is_the_same_in_every_version() -> None:
    """Recorded values: a run resumed under a newer numpy must get the same ones."""
    uniform = [1.0, 1.8688925079191836, 1.0, 2.1166682659214224, 1.0, 1.0]
    assert Amplification(0.5, 1, 3).factors(42, 0, 6).tolist() == uniform
    log_uniform = [1.949972460481313, 2.7393906363726632, 4.344043297697825]
    assert Amplification(1, 1.5, 6, "loguniform").factors(42, 0, 3) == pytest.approx(log_uniform, rel=1e-14)


@pytest.mark.parametrize("probability", [0.05, 0.25, 0.6])
@pytest.mark.parametrize("seed", [0, 1, 2**48 - 1])
def test_the_share_of_amplified_epochs_is_the_probability(probability: float, seed: int) -> None:
    amplified = int((Amplification(probability, 1.5, 3).factors(seed, 0, 20_000) > 1).sum())
    assert stats.binomtest(amplified, 20_000, probability).pvalue > 1e-4


@pytest.mark.parametrize(("law", "expected"), [("uniform", stats.uniform(1.5, 4.5)), ("loguniform", None)])
def test_the_factors_follow_their_law(law: Law, expected: Any) -> None:
    drawn = Amplification(0.3, 1.5, 6, law).factors(7, 0, 30_000)
    amplified = drawn[drawn > 1]
    law_of_factors = expected or stats.loguniform(1.5, 6)
    other = stats.loguniform(1.5, 6) if expected else stats.uniform(1.5, 4.5)
    assert stats.kstest(amplified, law_of_factors.cdf).pvalue > 1e-3
    assert stats.kstest(amplified, other.cdf).pvalue < 1e-6


@pytest.mark.parametrize("word", range(4))
def test_the_first_draws_of_neighbouring_seeds_are_uniform_and_uncorrelated(word: int) -> None:
    first = np.array([uniforms(seed, 0, 1)[0, word] for seed in range(2000)])
    assert stats.kstest(first, stats.uniform.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / np.sqrt(2000)


def shifted_correlations(traces: Floats) -> Floats:
    """Shape (11,): the correlation of each row with the next one, shifted by -5..5; mean over the rows."""
    ahead, behind = traces[:-1], traces[1:]
    pairs = [(ahead[:, 5 + k : len(ahead[0]) - 5 + k], behind[:, 5:-5]) for k in range(-5, 6)]
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def test_neighbouring_seeds_are_not_shifts_of_each_other() -> None:
    law = Amplification(0.4, 1.5, 3)
    traces = np.stack([law.factors(seed, 0, 200) for seed in range(60)])
    assert np.abs(shifted_correlations(traces)).max() < 5 / np.sqrt(59 * 190)
    for one, two in pairwise(traces):
        both = (one[:, None] > 1) & (one[:, None] == two[None, :])
        assert not both.any(), "an amplified factor of one seed occurs again in the next"


def test_the_check_above_would_detect_timms_seeding() -> None:
    """timm seeds with seed + t: seed 43 at t is seed 42 at t + 1."""
    traces = np.array([[np.random.default_rng(seed + t).random() for t in range(60)] for seed in range(20)])
    assert shifted_correlations(traces).max() > 0.99


def test_draws_of_one_seed_are_uncorrelated() -> None:
    drawn = uniforms(11, 0, 20_000)
    columns = np.concatenate([drawn[1:], drawn[:-1]], axis=1).T  # all words at t + 1, all words at t
    off_diagonal = np.corrcoef(columns) - np.eye(8)
    shifted = np.kron(np.array([[0, 1], [1, 0]]), np.ones((4, 4))) * off_diagonal
    assert np.abs(shifted).max() < 5 / np.sqrt(20_000)
    assert 0 < drawn.min() < drawn.max() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": -0.1}, r"probability = -0.1; allowed: a number in \[0, 1\]"),
        ({"probability": 1.5}, "probability = 1.5"),
        ({"probability": float("nan")}, "probability = nan"),
        ({"probability": "0.3"}, "probability = '0.3'"),
        ({"probability": True}, "probability = True"),
        ({"lower": 0.9}, r"lower = 0.9; allowed: a number in \[1, inf\)"),
        ({"upper": 1.2}, r"upper = 1.2; allowed: a number in \[1.5, inf\)"),
        ({"upper": float("inf")}, "upper = inf"),
        ({"law": "normal"}, "law = 'normal'; allowed: uniform, loguniform"),
        ({"granularity": "batch"}, "granularity = 'batch'; allowed: epoch, step"),
        ({"window": (0.5, 0.5)}, r"window = 0.5; allowed: a number in \[0, 0.5\)"),
        ({"window": (0.2, 1.5)}, "window = 1.5"),
        ({"window": 0.5}, "window = 0.5; allowed: two shares"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Amplification(**{"probability": 0.3, "lower": 1.5, "upper": 3.0, **arguments})


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**64, 0), (0, -1), (0.5, 0), (0, 2**64)])
def test_seed_and_index_must_be_64_bit_integers(seed: Any, index: Any) -> None:
    with pytest.raises(ValueError, match="allowed: an integer"):
        Amplification(0.3, 1.5, 3).factor(seed, index)
