"""The figure of a learning-rate range test."""

from __future__ import annotations

import math

from ralr_tune.analysis.range_test import RangeProposal, SeedRange
from ralr_tune.records import RateSweep
from ralr_tune.report.range_test import Panel, draw_range_test, loss_axis, spread

RATES = (0.01, 0.1, 1.0, 10.0, 100.0)
SWEEPS = (
    RateSweep(0, RATES, (2.0, 1.0, 1.5, 3.0, 50.0), False),
    RateSweep(1, RATES[:4], (2.2, 1.2, 1.1, math.nan), True),
)
FOUND = RangeProposal(0.01, 2.0, (SeedRange(0, None, 0.01, 0.1, 1.0, 2.0),))
NONE = RangeProposal(None, None, (SeedRange(0, "flat"),))


def test_the_spread_is_that_of_the_seeds_that_reached_a_rate() -> None:
    drawn = spread(SWEEPS, 1)
    assert drawn.rates == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert drawn.low == [2.0, 1.0, 1.1, 3.0, 50.0]
    assert drawn.high == [2.2, 1.2, 1.5, 3.0, 50.0]
    assert drawn.middle == [2.1, 1.1, 1.3, 3.0, 50.0]


def test_a_diverged_loss_does_not_flatten_the_rest() -> None:
    low, high = loss_axis(spread(SWEEPS, 1))
    assert 0.8 < low < 1.0
    assert 3.0 < high < 3.5


def test_losses_that_are_never_finite_make_an_empty_panel() -> None:
    sweep = RateSweep(0, RATES[:2], (math.nan, math.nan), True)
    assert spread([sweep], 1).rates == []
    plot = draw_range_test("x", [Panel("arm a", [sweep], 1, NONE)])
    assert "no proposal" in plot.layout.annotations[0].text


def test_each_panel_shows_its_proposal_as_an_area() -> None:
    panels = [Panel("arms a, <b>", SWEEPS, 1, FOUND), Panel("arm c", SWEEPS, 1, NONE)]
    plot = draw_range_test("a & b", panels)
    (area,) = plot.layout.shapes
    assert (area.x0, area.x1, area.xref) == (0.01, 2.0, "x")
    assert plot.layout.annotations[0].text == "arms a, &lt;b&gt;: proposed 0.01 to 2 (shaded)"
    assert plot.layout.annotations[1].text == "arm c: no proposal"
    assert plot.layout.xaxis.type == plot.layout.xaxis2.type == "log"
    assert plot.layout.title.text.startswith("a &amp; b: ")
    assert "2 seeds" in plot.layout.xaxis2.title.text
    assert len(plot.data) == 6
