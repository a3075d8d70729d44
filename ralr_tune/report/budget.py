"""The figure of the best value found by budget: trials, epochs or device time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ralr_tune.analysis.budget import BudgetCurve, FinalPoint
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import thinned
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import ArmStyle, figure, hover_score, safe, score_axis, templated

MAX_POINTS = 150  # of a line; more would not change its shape
MAX_DOTS = 150  # of an arm; more cannot be distinguished
SPAN_FROM = 0.2  # of the budget; the steep rise before it may leave the axis: it would fill the plot


class View(NamedTuple):
    """One way to count the budget: the same lines over another axis."""

    name: str
    title: str
    """Of the axis."""
    x: tuple[tuple[float, ...], ...]
    """Of each trace of the figure."""


class Line(NamedTuple):
    """One arm's trajectory: each tuple has an entry for each drawn number of trials, in stored units."""

    arm: str
    trials: tuple[int, ...]
    epochs: tuple[float, ...]
    seconds: tuple[float, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    stepped: bool
    """True for an observed trajectory, False for an expectation."""
    finals: tuple[FinalPoint, ...] = ()
    """Complete trials, at most MAX_DOTS."""

    @property
    def values(self) -> tuple[float, ...]:
        """The trajectory and its band."""
        return (*self.middle, *(self.low or ()), *(self.high or ()))


class BudgetFacts(NamedTuple):
    """Lines, and the values between which they are shown."""

    lines: tuple[Line, ...]
    span: tuple[float, float]

    @property
    def cut(self) -> bool:
        """Whether any value lies outside the span."""
        low, high = self.span
        return any(not low <= value <= high for line in self.lines for value in line.values)


def budget_facts(facts: Facts) -> BudgetFacts | None:
    """None before a trial is complete."""
    lines = [_line(curve) for curve in facts.budgets if any(best is not None for best in curve.best)]
    return BudgetFacts(tuple(lines), _span(lines)) if lines else None


def _line(curve: BudgetCurve) -> Line:
    known = _drawn([place for place, best in enumerate(curve.best) if best is not None])
    return Line(
        curve.arm,
        _picked(curve.trials, known),
        _picked(curve.epochs, known),
        _picked(curve.seconds, known),
        _picked(curve.best, known),
        None if curve.low is None else _picked(curve.low, known),
        None if curve.high is None else _picked(curve.high, known),
        stepped=curve.kind != "expected",
        finals=tuple(thinned(curve.finals, MAX_DOTS)),
    )


def _drawn(places: Sequence[int]) -> list[int]:
    if len(places) <= MAX_POINTS:
        return list(places)
    return [places[place] for place in np.linspace(0, len(places) - 1, MAX_POINTS).round().astype(int)]


def _picked(values: Sequence[Any], places: Iterable[int]) -> tuple[Any, ...]:
    return tuple(values[place] for place in places)


def _span(lines: Sequence[Line]) -> tuple[float, float]:
    """The range of all lines and bands after a fifth of the budget, and below them the better half of the trials."""
    seen = [
        value
        for line in lines
        for values in (line.middle, line.low, line.high)
        if values is not None
        for trials, value in zip(line.trials, values, strict=True)
        if trials >= SPAN_FROM * line.trials[-1] and math.isfinite(value)
    ]
    dots = [final.value for line in lines for final in line.finals]
    return min(*seen, float(np.median(dots))), max(*seen, float(np.median(dots)))


def draw_budget(drawn: BudgetFacts, facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """The best so far, or expected, above the complete trials; `views` has the other axes."""
    y = score_axis(facts.metric, where="best validation") | _range(drawn.span, facts.unit.factor)
    plot = figure(_finding(drawn, facts), "How good is the best found so far?", x=_x("Trials of the arm"), y=y)
    for line in drawn.lines:
        _draw_dots(plot, line, arm_styles[line.arm], facts)
        _draw_line(plot, line, line.trials, arm_styles[line.arm], facts.unit.factor, facts.unit.value_suffix)
    return plot


def _finding(drawn: BudgetFacts, facts: Facts) -> str:
    """Who found the best; all of those that are level."""
    best = facts.metric.best(line.middle[-1] for line in drawn.lines)
    arms = " and ".join(line.arm for line in drawn.lines if line.middle[-1] == best)
    return f"Best validation {facts.metric.words}: {facts.unit.value(best, 2)} by {arms}"


def _draw_dots(plot: go.Figure, line: Line, style: ArmStyle, facts: Facts) -> None:
    plot.add_scatter(
        x=[final.trials for final in line.finals],
        y=[final.value * facts.unit.factor for final in line.finals],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol + "-open", "size": 5},
        legendgroup=f"arm {line.arm}",
        showlegend=False,
        hovertemplate=f"{templated(line.arm)}<br>a trial, at %{{x:.4g}}: {hover_score(facts.unit)}<extra></extra>",
    )


def views(drawn: BudgetFacts) -> tuple[View, ...]:
    """The axes over which the budget's figure can be drawn."""
    scale, unit = _time_unit(max(line.seconds[-1] for line in drawn.lines))
    axes: tuple[tuple[str, str, Callable[[Line | FinalPoint], Any], float], ...] = (
        ("trials", "Trials of the arm", attrgetter("trials"), 1),
        ("epochs", "Epochs of the arm, summed over its trials", attrgetter("epochs"), 1),
        ("device time", f"Device time of the arm, {unit}", attrgetter("seconds"), scale),
    )
    return tuple(View(name, title, _places(drawn, x_of, scale)) for name, title, x_of, scale in axes)


def _places(
    drawn: BudgetFacts, x_of: Callable[[Line | FinalPoint], Any], scale: float
) -> tuple[tuple[float, ...], ...]:
    """x of every trace, in the order in which they are drawn."""
    found = []
    for line in drawn.lines:
        found.append(tuple(x_of(final) / scale for final in line.finals))
        found += [tuple(x / scale for x in x_of(line))] * _traces(line)
    return tuple(found)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 600:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 4 * 3600 else (3600.0, "hours")


def _x(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "rangemode": "tozero"}


def _range(span: tuple[float, float], factor: float) -> dict[str, Any]:
    low, high = span[0] * factor, span[1] * factor
    padding = 0.06 * ((high - low) or abs(high) or 1.0)
    return {"range": [low - padding, high + padding]}


def _traces(line: Line) -> int:
    return 1 if line.low is None else 3


def _draw_line(plot: go.Figure, line: Line, x: Sequence[float], style: ArmStyle, factor: float, suffix: str) -> None:
    """The band as an area between two invisible lines, and the trajectory on top."""
    shape = {"shape": "hv" if line.stepped else "linear"}
    if line.low is not None and line.high is not None:
        for values, fill in ((line.low, "none"), (line.high, "tonexty")):
            plot.add_scatter(
                x=list(x),
                y=[value * factor for value in values],
                mode="lines",
                line=shape | {"width": 0},
                fill=fill,
                fillcolor=style.tint,
                hoverinfo="skip",
                showlegend=False,
                legendgroup=f"arm {line.arm}",
            )
    plot.add_scatter(
        x=list(x),
        y=[value * factor for value in line.middle],
        mode="lines",
        name=safe(line.arm),
        legendgroup=f"arm {line.arm}",
        line=shape | {"color": style.colour, "width": 2.5, "dash": style.dash},
        hovertemplate=f"{templated(line.arm)}<br>%{{x:.4g}}: %{{y:.4g}}{suffix}<extra></extra>",
        showlegend=True,
    )


def budget_note(facts: Facts) -> str:
    """What the lines, bands and dots mean."""
    kinds = {curve.kind for curve in facts.budgets}
    lines = {
        "expected": "Expected best of that many random trials (Dodge et al. 2019).",
        "blocks": "Best complete trial so far, mean over the search blocks.",
        "realised": "Best complete trial so far in this single search; another search may differ.",
    }
    drawn = budget_facts(facts)
    return " ".join(
        [
            *(text for kind, text in lines.items() if kind in kinds),
            _bands("Bands", facts.budgets),
            *([_dots(drawn)] if drawn else []),
            *(["The first fifth of the budget is partly outside the axes."] if drawn and drawn.cut else []),
        ]
    )


def _dots(drawn: BudgetFacts) -> str:
    """How many of the dots the axis leaves out."""
    low, high = drawn.span
    values = [final.value for line in drawn.lines for final in line.finals]
    outside = sum(not low <= value <= high for value in values)
    return "Dots: complete trials" + (f"; {outside} of {len(values)} lie outside the axis." if outside else ".")


def _bands(what: str, of: Sequence[BudgetCurve]) -> str:
    bands = list(dict.fromkeys(each.band for each in of if each.band))
    return f"{what}: {'; '.join(bands)}." if bands else "A single search has no band."


def budget_data(facts: Facts) -> Data:
    """Every budget of every arm, including those that are not drawn."""
    columns = (
        "arm", "kind", "blocks", "trials", "epochs", "device_time_s", metric_column(facts, "best_validation"),
        "band_low", "band_high", "band",
    )  # fmt: skip
    rows = [
        (curve.arm, curve.kind, curve.blocks, *spent, best, *_band(curve, place), curve.band)
        for curve in facts.budgets
        for place, (*spent, best) in enumerate(zip(curve.trials, curve.epochs, curve.seconds, curve.best, strict=True))
    ]
    return Data("budget", columns, rows)


def _band(of: BudgetCurve, place: int) -> tuple[float | None, float | None]:
    return (None if of.low is None else of.low[place], None if of.high is None else of.high[place])


def budget_alt(drawn: BudgetFacts, facts: Facts) -> str:
    """The ends of the lines."""
    ends = [f"{line.arm} {facts.unit.value(line.middle[-1], 2)} after {line.trials[-1]} trials" for line in drawn.lines]
    return f"Best validation {facts.metric.words}: {', '.join(ends)}."
