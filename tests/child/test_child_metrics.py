"""Metrics besides the study's: which points are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralr_tune.child.metrics import MAX_POINTS, MAX_SERIES, OtherMetrics
from ralr_tune.child.trial import ChildTrial
from ralr_tune.records import MetricSeries
from tests.child.conftest import LOOP
from tests.fuzz import AT_RANDOM

MakeTrial = Callable[..., ChildTrial]

_QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=not AT_RANDOM)


def kept(metrics: OtherMetrics) -> MetricSeries:
    (series,) = metrics.series()
    return series


def stored_and_read(metrics: OtherMetrics) -> OtherMetrics:
    """As with a checkpoint."""
    return OtherMetrics(json.loads(json.dumps(metrics.as_json())))


@_QUIET
@given(st.integers(1, 2000), st.integers(0, 2000))
def test_at_most_50_evenly_spaced_points_and_the_last_one_are_kept(count: int, read_again_at: int) -> None:
    metrics = OtherMetrics()
    for step in range(count):
        if step == read_again_at:
            metrics = stored_and_read(metrics)
        metrics.add("step", step, {"loss": step / 10})
    series = kept(metrics)
    steps = [step for step, _ in series.points]
    *spaced, last = steps
    assert last == count - 1
    assert len(steps) <= MAX_POINTS
    assert spaced == list(range(0, count - 1, series.every))
    assert count < MAX_POINTS or len(steps) >= MAX_POINTS // 2
    assert all(value == step / 10 for step, value in series.points)


@_QUIET
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=6))
def test_a_resume_drops_what_comes_later(runs: list[tuple[int, int]]) -> None:
    """Each run begins at a step, and has a number of steps; the value says in which run it was reported."""
    metrics, current = OtherMetrics(), dict[int, int]()
    for number, (first, count) in enumerate(runs):
        current = {step: run for step, run in current.items() if step < first}
        for step in range(first, first + count):
            metrics.add("step", step, {"loss": number})
            current[step] = number
        metrics = stored_and_read(metrics)
    series = kept(metrics)
    steps = [step for step, _ in series.points]
    assert steps == sorted(set(steps))
    assert len(steps) <= MAX_POINTS
    assert steps[-1] == max(current)
    assert all(current.get(step) == value for step, value in series.points)


def test_values_that_are_not_finite_are_gaps_and_the_number_of_metrics_is_limited() -> None:
    metrics = OtherMetrics()
    metrics.add("epoch", 1, {"f1": math.nan, "auc": 0.5})
    metrics.add("step", 1, {"f1": 0.25})
    assert [(series.name, series.axis, series.points) for series in metrics.series()] == [
        ("auc", "epoch", ((1, 0.5),)), ("f1", "epoch", ((1, None),)), ("f1", "step", ((1, 0.25),))
    ]  # fmt: skip
    metrics.add("step", 2, {f"layer {number}": 1.0 for number in range(2 * MAX_SERIES)})
    assert len(metrics.series()) == MAX_SERIES
    assert len(stored_and_read(metrics).series()) == MAX_SERIES


def test_metrics_of_epochs_and_steps_of_a_program(make_trial: MakeTrial) -> None:
    script = LOOP.replace(
        "    if client.report(epoch, value(epoch), loss=1 / epoch,",
        """
    for step in range(epoch * 30 - 30, epoch * 30):
        client.log(step, loss=step / 100)
    if client.report(epoch, value(epoch), metrics={"top 5": epoch / 10},""",
    )
    trial = make_trial(script)
    epochs = trial.epochs()
    next(epochs), next(epochs)
    epochs.close()
    resumed = make_trial(script, attempt=2, earlier=(1,))
    assert resumed.metrics == trial.metrics
    for _ in resumed.epochs():
        pass
    loss, top = resumed.metrics
    assert (top.name, top.axis, top.points) == ("top 5", "epoch", ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)))
    assert (loss.name, loss.axis, loss.every) == ("loss", "step", 4)
    assert loss.points == tuple((step, step / 100) for step in (*range(0, 120, 4), 119))


@pytest.mark.parametrize("message", ["client.log(-1, loss=0.5)", "client.log(3)", "client.log(3, **{'': 1})"])
def test_wrong_metrics_of_a_step_are_refused(make_trial: MakeTrial, message: str) -> None:
    script = f"""
try:
    {message}
    raise SystemExit("accepted")
except client.Refused:
    pass
"""
    for _ in make_trial(script + LOOP).epochs():
        pass
