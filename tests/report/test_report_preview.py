"""The figure of a scheduler's preview."""

from __future__ import annotations

import numpy as np

from ralr_tune.report.preview import plot_preview
from ralr_tune.schedules.wrapper.preview import RatePreview


def preview(groups: int) -> RatePreview:
    base = np.array([[0.1, 0.01], [0.1, 0.01], [0.0, 0.0]])[:, :groups]
    factors = np.array([1.0, 2.0, 1.0])
    return RatePreview(np.arange(5, 8), base, factors, base * factors[:, None])


def test_rates_and_base_schedule_are_stepped_lines_over_the_steps() -> None:
    plot = plot_preview(preview(1))
    rates, base = plot.data
    assert (rates.name, base.name) == ("Learning rate", "Learning rate, base schedule")
    assert rates.x == base.x == (5, 6, 7, 8)
    assert rates.y == (0.1, 0.2, None, None)  # a logarithmic axis has no 0
    assert base.y == (0.1, 0.1, None, None)
    assert {line.line.shape for line in plot.data} == {"hv"}
    assert (plot.layout.xaxis.title.text, plot.layout.yaxis.type) == ("Step", "log")


def test_each_param_group_has_its_colour() -> None:
    plot = plot_preview(preview(2))
    assert [line.name for line in plot.data[::2]] == ["Param group 0", "Param group 1"]
    assert len({line.line.color for line in plot.data}) == 2


def test_a_rate_that_is_always_0_makes_an_empty_figure() -> None:
    zero = np.zeros((2, 1))
    assert plot_preview(RatePreview(np.arange(2), zero, np.ones(2), zero)).data[0].y == (None, None, None)
