"""Base rate, curve and perturbation together, at both granularities."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import make_curve
from ralr_tune.schedules.noise import Noise
from ralr_tune.schedules.perturbation import GRANULARITIES, Granularity, Perturbation
from ralr_tune.schedules.rate import LearningRate


def make(perturbation: Perturbation | None = None, epochs: int = 12, steps: int = 5, **fields: Any) -> LearningRate:
    curve = make_curve("cosine", epochs=epochs, warmup=2)
    return LearningRate(0.4, curve, epochs, steps, perturbation, **{"seed": 3, **fields})


def test_without_perturbation_the_rate_is_the_curve() -> None:
    plain = make()
    assert plain.trace().shape == (12, 5)
    assert plain.rates(7).tolist() == [0.4 * plain.curve.factor(7)] * 5
    assert (plain.factors(7) == 1).all()


def test_at_step_granularity_the_rate_follows_the_curve() -> None:
    moving = make(granularity="step")
    expected = [0.4 * moving.curve.factor(7 + step / 5) for step in range(5)]
    assert moving.rates(7) == pytest.approx(expected, rel=1e-15)


def test_one_draw_per_epoch_or_per_step() -> None:
    by_epoch = Amplification(0.5, 1.5, 3)
    by_step = Amplification(0.5, 1.5, 3, granularity="step")
    assert make(by_epoch).factors(4).tolist() == [by_epoch.factor(3, 4)] * 5
    assert make(by_step).factors(4).tolist() == by_step.factors(3, 20, 5).tolist()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@settings(max_examples=30)
@example(first=55, width=15)  # 0.55 * 100 is 55.00000000000001
@given(first=st.integers(0, 98), width=st.integers(1, 99))
def test_nothing_is_amplified_outside_of_the_window_and_no_draw_is_shifted_inside(
    granularity: Granularity, first: int, width: int
) -> None:
    last = min(first + width, 100)
    everywhere = make(Amplification(1, 1.5, 3, granularity=granularity), 100, 4)
    window = (first / 100, last / 100)
    within = make(Amplification(1, 1.5, 3, granularity=granularity, window=window), 100, 4)
    inside = (np.arange(100) >= first) & (np.arange(100) < last)
    expected = np.where(inside[:, None], everywhere.trace(), make(None, 100, 4).trace())
    np.testing.assert_array_equal(within.trace(), expected)


def test_at_step_granularity_a_window_may_begin_within_an_epoch() -> None:
    within = make(Amplification(1, 1.5, 3, granularity="step", window=(0.125, 0.5)), 4, 10)
    assert [int((within.factors(epoch) > 1).sum()) for epoch in range(4)] == [5, 10, 0, 0]


@pytest.mark.parametrize("perturbation", [Amplification(0.4, 1.5, 3, granularity="step"), Noise()])
def test_rates_are_pure(perturbation: Perturbation) -> None:
    rate = make(perturbation)
    forwards = rate.trace()
    backwards = np.stack([make(perturbation).rates(epoch) for epoch in reversed(range(12))])[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    factors = np.stack([make(perturbation).factors(epoch) for epoch in range(12)])
    np.testing.assert_array_equal(rate.factor_trace(), factors)
    assert rate == make(perturbation)
    assert rate != make(perturbation, seed=4)


# ---------------------------------------------------------------- epochs that differ in their number of steps

STEPS = (5, 2, 7)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(
    "perturbation", [None, Amplification(0.4, 1.5, 3, granularity="step"), Noise(window=(0.2, 0.8))]
)
def test_equal_numbers_for_each_epoch_equal_one_number_for_all(
    granularity: Granularity, perturbation: Perturbation | None
) -> None:
    one, each = (make(perturbation, steps=steps, granularity=granularity) for steps in (5, (5,) * 12))
    np.testing.assert_array_equal(each.trace(), one.trace())
    np.testing.assert_array_equal(each.factor_trace(), one.factor_trace())
    np.testing.assert_array_equal(each.rates(7), one.rates(7))


def test_every_epoch_covers_one_unit_of_the_curve_however_many_steps_it_has() -> None:
    curve = make_curve("linear", epochs=3)
    rate = LearningRate(1.0, curve, 3, STEPS, None, 0, "step")
    for epoch, steps in enumerate(STEPS):
        expected = [curve.factor(epoch + step / steps) for step in range(steps)]
        assert rate.rates(epoch).tolist() == expected
        assert rate.steps(epoch) == steps


def test_the_index_of_a_draw_is_the_number_of_steps_before_it() -> None:
    law = Amplification(0.5, 1.5, 3, granularity="step")
    rate = LearningRate(1.0, make_curve("constant", epochs=3), 3, STEPS, law, 9)
    assert [rate.factors(epoch).tolist() for epoch in range(3)] == [
        law.factors(9, 0, 5).tolist(),
        law.factors(9, 5, 2).tolist(),
        law.factors(9, 7, 7).tolist(),
    ]


def test_a_window_at_step_granularity_is_measured_in_epochs() -> None:
    law = Amplification(1, 1.5, 3, granularity="step", window=(0.5, 1.0))
    rate = LearningRate(1.0, make_curve("constant", epochs=3), 3, (4, 6, 2), law, 0)
    assert [int((rate.factors(epoch) > 1).sum()) for epoch in range(3)] == [0, 3, 2]


def test_one_draw_per_epoch_applies_to_all_its_steps() -> None:
    law = Amplification(1, 1.5, 3)
    rate = LearningRate(1.0, make_curve("constant", epochs=3), 3, STEPS, law, 4)
    assert [rate.factors(epoch).tolist() for epoch in range(3)] == [[law.factor(4, e)] * n for e, n in enumerate(STEPS)]


@pytest.mark.parametrize("name", ["trace", "factor_trace"])
def test_a_trace_of_unequal_epochs_is_refused(name: str) -> None:
    rate = LearningRate(1.0, make_curve("constant", epochs=3), 3, STEPS, None, 0)
    with pytest.raises(ValueError, match=r"steps_per_epoch = \(5, 2, 7\); allowed: for a trace: one number"):
        getattr(rate, name)()


@pytest.mark.parametrize("name", ["multistep", "cosine", "sgdr", "one_cycle"])
def test_an_epoch_of_400_steps_takes_less_than_5_ms(name: str) -> None:
    rate = LearningRate(0.1, make_curve(name, epochs=90), 90, 400, Noise(granularity="step"), 0, "step")
    seconds = []
    for epoch in range(20):
        begun = time.process_time()
        rate.rates(epoch)
        seconds.append(time.process_time() - begun)
    assert np.median(seconds) < 5e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, r"lr = 0.0; allowed: a number in \(0, inf\)"),
        ({"lr": float("inf")}, "lr = inf"),
        ({"epochs": 0}, "epochs = 0"),
        ({"epochs": 13}, "curve.epochs = 12; allowed: the run's own, 13"),
        ({"steps_per_epoch": 0}, "steps_per_epoch = 0"),
        ({"steps_per_epoch": (5,) * 11}, "one number, or one for each of 12 epochs"),
        ({"steps_per_epoch": (5,) * 11 + (0,)}, "steps_per_epoch = 0"),
        ({"granularity": "batch"}, "granularity = 'batch'"),
    ],
)
def test_impossible_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    whole = {"lr": 0.4, "curve": make_curve("constant", epochs=12), "epochs": 12, "steps_per_epoch": 5, **fields}
    with pytest.raises(ValueError, match=message):
        LearningRate(perturbation=None, seed=0, **whole)


@pytest.mark.parametrize("epoch", [-1, 12, 1.5])
def test_only_epochs_of_the_run_have_rates(epoch: Any) -> None:
    with pytest.raises(ValueError, match=r"epoch = .*; allowed: an integer >= 0 and < 12"):
        make().rates(epoch)
