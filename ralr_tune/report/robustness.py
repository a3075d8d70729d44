"""The figure of robustness: the expected score at each base learning rate, and the range of good ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.robustness import RateRange
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import ArmStyle, figure, number_axis, safe, score_axis, templated

SHOWN = 6  # tolerances below the best; anything worse than five counts as bad
_ROUNDING = 1e-9  # of a rate


class RateLine(NamedTuple):
    """One arm."""

    arm: str
    found: RateRange

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(rate, expected score)."""
        return list(zip(self.found.rates, self.found.expected, strict=True))

    @property
    def good(self) -> list[tuple[float, float]]:
        """Those within the tolerance of the best."""
        return [pair for pair in self.pairs if self.holds(pair[0])]

    def holds(self, rate: float) -> bool:
        """Whether a rate lies in the range."""
        return self.found.low * (1 - _ROUNDING) <= rate <= self.found.high * (1 + _ROUNDING)


def robustness_facts(facts: Facts) -> tuple[RateLine, ...]:
    """One line for each arm that searched the rate with enough trials."""
    return tuple(RateLine(each.arm, each.rates) for each in facts.robustness if each.rates is not None)


def draw_robustness(lines: Sequence[RateLine], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Thin lines, thick where the score is within the tolerance of the arm's best."""
    rates = [rate for line in lines for rate in line.found.rates]
    x = number_axis("Base learning rate", (min(rates), max(rates)), log=True)
    y = score_axis(facts.metric, where="expected validation") | {"range": _range(lines, facts)}
    plot = figure("Expected score at each base learning rate", x=x, y=y)
    for line in lines:
        style = arm_styles[line.arm]
        stroke = {"color": style.colour, "dash": style.dash}
        _draw(plot, line, line.pairs, facts, stroke | {"width": 1.5}, legend=False)
        _draw(plot, line, line.good, facts, {"color": style.colour, "width": 5}, legend=True)
        _draw_ends(plot, line, facts, style)
    return plot


def _range(lines: Sequence[RateLine], facts: Facts) -> list[float]:
    gain = facts.metric.as_gain
    best = max(gain(value) for line in lines for value in line.found.expected)
    close = max(line.found.tolerance for line in lines)
    ends = (gain(best - SHOWN * close), gain(best + close))
    return [facts.unit.factor * end for end in sorted(ends)]


def _draw(
    plot: go.Figure,
    line: RateLine,
    pairs: Sequence[tuple[float, float]],
    facts: Facts,
    style: Mapping[str, object],
    *,
    legend: bool,
) -> None:
    plot.add_scatter(
        x=[rate for rate, _ in pairs],
        y=[value * facts.unit.factor for _, value in pairs],
        mode="lines",
        name=safe(line.arm),
        legendgroup=f"arm {line.arm}",
        showlegend=legend,
        line=dict(style),
        hovertemplate=f"{templated(line.arm)}<br>rate %{{x:.3g}}: %{{y:.4g}}{facts.unit.value_suffix}<extra></extra>",
    )


def _draw_ends(plot: go.Figure, line: RateLine, facts: Facts, style: ArmStyle) -> None:
    """A stroke where the range ends; an arrow where it may continue beyond the tried rates."""
    if not line.good:
        return
    found = line.found
    ends = (line.good[0], line.good[-1])
    symbols = [
        "triangle-left" if found.low_open else "line-ns-open",
        "triangle-right" if found.high_open else "line-ns-open",
    ]
    plot.add_scatter(
        x=[rate for rate, _ in ends],
        y=[value * facts.unit.factor for _, value in ends],
        mode="markers",
        legendgroup=f"arm {line.arm}",
        showlegend=False,
        marker={"symbol": symbols, "size": 13, "color": style.colour, "line": {"color": style.colour, "width": 2}},
        hoverinfo="skip",
    )


def robustness_note(lines: Sequence[RateLine], facts: Facts) -> str:
    """How to read the figure."""
    close = facts.unit.size(max(line.found.tolerance for line in lines), 0)
    return (
        f"Local linear regression over the search trials, averaged over all other parameters. Thick: within {close} of "
        "the arm's best; an arrow: the range may continue beyond the rates that were tried."
    )


def robustness_data(lines: Sequence[RateLine], facts: Facts) -> Data:
    """One row for each rate."""
    columns = ("arm", "base_lr", metric_column(facts, "expected_validation"), "within_tolerance")
    rows = [(line.arm, rate, value, line.holds(rate)) for line in lines for rate, value in line.pairs]
    return Data("robustness", columns, rows)


def robustness_alt(lines: Sequence[RateLine], facts: Facts) -> str:
    """The ranges."""
    close = facts.unit.size(max(line.found.tolerance for line in lines), 0)
    ranges = [f"{line.arm} {line.found.low:.2g} to {line.found.high:.2g}" for line in lines]
    return f"Base learning rates within {close} of the best: {', '.join(ranges)}."
