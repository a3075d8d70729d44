"""A metric knows which values are better and how they are formatted, so that no other code checks its direction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ralr_tune.metric import Metric, ascii_minus
from tests.metrics import ACCURACY, BLEU, LOSS


@pytest.mark.parametrize(("metric", "good", "bad"), [(ACCURACY, 0.9, 0.8), (LOSS, 0.1, 2.0), (BLEU, 30.0, 20.0)])
def test_what_is_better(metric: Metric, good: float, bad: float) -> None:
    assert metric.better(good, bad)
    assert not metric.better(bad, good)
    assert not metric.better(good, good)
    assert metric.gain(good, bad) == abs(good - bad)
    assert metric.gain(bad, good) == -abs(good - bad)
    assert (metric.best([bad, good, bad]), metric.worst_of([good, bad])) == (good, bad)
    assert sorted([bad, good], key=metric.as_gain) == [bad, good]


def test_gains_of_many_values_at_once() -> None:
    values = np.array([0.5, math.nan, -2.0])
    assert np.array_equal(LOSS.as_gain(values), -values, equal_nan=True)
    assert np.array_equal(LOSS.as_gain(LOSS.as_gain(values)), values, equal_nan=True)
    assert np.array_equal(ACCURACY.as_gain(values), values, equal_nan=True)


def test_nothing_is_the_best_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        ACCURACY.best([])
    assert math.isnan(LOSS.worst_of([]))


def test_a_diverged_trial_is_as_bad_as_can_be() -> None:
    assert ACCURACY.of_diverged([0.5, -3.0]) == 0.0
    assert LOSS.of_diverged([0.5, math.nan, 7.0, math.inf]) == 7.0
    assert LOSS.of_diverged([math.nan]) == math.inf
    assert replace(LOSS, direction="maximize").of_diverged([]) == -math.inf


def test_close_to_the_best_is_a_point_of_a_share_and_a_hundredth_of_a_number() -> None:
    assert ACCURACY.close(0.5) == 0.01
    assert LOSS.close(-30.0) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("metric", "value", "difference", "reading"),
    [
        (ACCURACY, "98.1%", "+0.2 points", "a share, larger is better"),
        (LOSS, "0.9812", "+0.0021", "a plain number, smaller is better"),
    ],
)
def test_how_values_are_formatted(metric: Metric, value: str, difference: str, reading: str) -> None:
    assert (metric.format.value(0.9812), metric.format.difference(0.0021)) == (value, difference)
    assert metric.reading == reading


def test_a_number_has_a_real_minus_sign_and_zero_has_none() -> None:
    points, plain = ACCURACY.format, LOSS.format
    assert (points.difference(-0.003), points.signed(-0.0312, 2)) == ("\N{MINUS SIGN}0.3 points", "\N{MINUS SIGN}3.12")
    assert (plain.difference(-0.003), plain.value(-2.0)) == ("\N{MINUS SIGN}0.003", "\N{MINUS SIGN}2")
    assert (points.difference(-0.00001), plain.size(-0.003)) == ("+0.0 points", "0.003")
    assert ascii_minus(points.difference(-0.003)) == "-0.3 points"
