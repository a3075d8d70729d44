"""The weight decay of every step: its course, and what it follows."""

from __future__ import annotations

import numpy as np
import pytest

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import make_curve
from ralr_tune.schedules.rate import LearningRate
from ralr_tune.schedules.weight_decay import Follows, Shape, WeightDecay


def decay(
    shape: Shape = "constant", follows: Follows = "rate", *, amplified: bool = False, **ends: float
) -> WeightDecay:
    perturbation = Amplification(probability=0.5, lower=2.0, upper=4.0, granularity="step") if amplified else None
    rate = LearningRate(0.1, make_curve("cosine", epochs=4), 4, (5, 4, 5, 6), perturbation, seed=1)
    return WeightDecay(**{"start": 0.1, "end": 0.0} | ends, shape=shape, follows=follows, rate=rate)


def course(given: WeightDecay) -> np.ndarray:  # type: ignore[type-arg]
    return np.concatenate([given.values(epoch) for epoch in range(4)])


def test_a_constant_weight_decay_does_not_vary() -> None:
    assert not decay().varies
    assert (course(decay()) == 0.1).all()
    assert not decay(follows="base").varies  # nothing to leave out
    assert course(decay(follows="base")).tolist() == course(decay()).tolist()


@pytest.mark.parametrize("end", [0.0, 0.4])
def test_the_course_from_start_to_end(end: float) -> None:
    positions = np.concatenate([epoch + np.arange(steps) / steps for epoch, steps in enumerate((5, 4, 5, 6))]) / 4
    line, wave = decay("linear", end=end), decay("cosine", end=end)
    assert line.varies
    assert wave.varies
    np.testing.assert_allclose(course(line), 0.1 + (end - 0.1) * positions)
    np.testing.assert_allclose(course(wave), end + (0.1 - end) * (1 + np.cos(np.pi * positions)) / 2)


@pytest.mark.parametrize("shape", ["constant", "cosine"])
def test_following_the_base_leaves_the_amplification_out_of_the_decay(shape: Shape) -> None:
    own, plain = decay(shape, "base", amplified=True), decay(shape, amplified=True)
    assert own.varies
    for epoch in range(4):
        factors = own.rate.factors(epoch)
        np.testing.assert_allclose(
            own.values(epoch) * own.rate.rates(epoch) * factors, plain.values(epoch) * own.rate.rates(epoch)
        )
    assert len(set((course(plain) / course(own)).round(6))) > 2
