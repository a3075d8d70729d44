"""The figure of robustness: every search trial at its base learning rate, their local quartiles, and the good rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import thinned
from ralr_tune.analysis.robustness import LocalScores, RateRange, RateTrial
from ralr_tune.metric import Metric
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import (
    GREY,
    ArmStyle,
    figure,
    hover_score,
    number_axis,
    safe,
    score_axis,
    templated,
)

MAX_TICKS = 8  # of the scores
MAX_DOTS = 200  # of an arm; more cannot be distinguished
BELOW = 3  # of an unbounded metric: the worst score drawn, in distances from the best to the median
ROW = 0.06  # of the axis: room for the range of one arm
_ROUNDING = 1e-9  # of a rate


class RateLine(NamedTuple):
    """One arm."""

    arm: str
    trials: tuple[RateTrial, ...]
    found: RateRange | None
    """None if there are too few trials for a range."""

    @property
    def local(self) -> tuple[LocalScores, ...]:
        return self.found.local if self.found else ()

    def holds(self, rate: float) -> bool:
        """Whether a rate lies in the range."""
        found = self.found
        return found is not None and found.low * (1 - _ROUNDING) <= rate <= found.high * (1 + _ROUNDING)


def robustness_facts(facts: Facts) -> tuple[RateLine, ...]:
    """One line for each arm that searched the rate and has a score."""
    lines = (RateLine(each.arm, each.trials, each.rates) for each in facts.robustness)
    return tuple(line for line in lines if any(trial.value is not None for trial in line.trials))


def draw_robustness(lines: Sequence[RateLine], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Trials as dots under the local median, which is dotted where few trials are near; at the top the good rates."""
    rates = [trial.rate for line in lines for trial in line.trials]
    ranged = [line for line in lines if line.found]
    worst, top, end = _axis(lines, facts.metric, rows=len(ranged))
    x = number_axis("Base learning rate", (min(rates), max(rates)), log=True)
    bounds = sorted(facts.unit.factor * each for each in (worst - 0.04 * (top - worst), end))
    y = score_axis(facts.metric, where="validation") | {"range": bounds} | _ticks(facts.metric, *bounds)
    question = "How robust is each arm against a badly chosen base rate?"
    plot = figure(_finding(lines, facts), question, x=x, y=y, height=480)
    for line in lines:
        _draw_band(plot, line, facts, arm_styles[line.arm], worst)
    for line in lines:
        _draw_trials(plot, line, facts, arm_styles[line.arm], worst)
        _draw_median(plot, line, facts, arm_styles[line.arm], worst)
    for place, line in enumerate(ranged):
        _draw_range(plot, line, facts.unit.factor * (top + (place + 0.7) * ROW * (top - worst)), arm_styles[line.arm])
    return _explain(plot, lines, facts)


def _axis(lines: Sequence[RateLine], metric: Metric, *, rows: int) -> tuple[float, float, float]:
    """The worst and the best value drawn to scale, and the end of the axis behind the best one."""
    gains = [metric.as_gain(trial.value) for line in lines for trial in line.trials if trial.value is not None]
    best, worst = max(gains), min(gains)
    if metric.unit != "share":
        worst = max(worst, best - BELOW * (best - median(gains)))
    height = best - worst or abs(best) or 1.0
    return metric.as_gain(best - height), metric.as_gain(best), metric.as_gain(best + height * (ROW * rows + 0.05))


def _ticks(metric: Metric, low: float, high: float) -> dict[str, Any]:
    """A share has no ticks beyond 100%, although the ranges are drawn there."""
    if metric.unit != "share":
        return {}
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if (high - low) / step <= MAX_TICKS or step == 20)
    first, last = math.ceil(max(low, 0.0) / step), math.floor(min(high, 100.0) / step + 1e-9)
    ticks = [round(place * step, 1) for place in range(first, last + 1)]
    labels = [f"{tick:g}{metric.format.value_suffix}" for tick in ticks]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": labels}


def _finding(lines: Sequence[RateLine], facts: Facts) -> str:
    ranges = [f"{_range(line.found)} in {line.arm}" for line in lines if line.found]
    if ranges:
        close = facts.unit.size(max(line.found.tolerance for line in lines if line.found), 0)
        return f"On average within {close} of the best rate: {', '.join(ranges)}"
    best = [f"{_best(line, facts.metric):.2g} in {line.arm}" for line in lines]
    return f"Best base rate: {', '.join(best)}"


def _range(found: RateRange) -> str:
    return (
        f"{'below ' if found.low_open else ''}{found.low:.2g} to {'beyond ' if found.high_open else ''}{found.high:.2g}"
    )


def _best(line: RateLine, metric: Metric) -> float:
    known = [(metric.as_gain(trial.value), trial.rate) for trial in line.trials if trial.value is not None]
    return max(known)[1]


# ---------------------------------------------------------------- marks and lines


def _draw_trials(plot: go.Figure, line: RateLine, facts: Facts, style: ArmStyle, worst: float) -> None:
    # A separate legend entry: plotly would show the first mark.
    marker = {"color": style.colour, "size": 6}
    plot.add_scatter(
        x=[None], y=[None], name=safe(line.arm), legendgroup=f"arm {line.arm}", mode="lines+markers", hoverinfo="skip",
        line={"color": style.colour, "width": 2.5}, marker=marker | {"symbol": style.symbol, "size": 8},
    )  # fmt: skip
    shown = thinned(line.trials, MAX_DOTS)
    for kind, symbol in _symbols(style).items():
        own = [trial for trial in shown if _kind(trial, facts.metric, worst) == kind]
        if own:
            heights = [worst if trial.value is None else facts.metric.best([trial.value, worst]) for trial in own]
            plot.add_scatter(
                x=[trial.rate for trial in own],
                y=[height * facts.unit.factor for height in heights],
                mode="markers",
                marker=marker | {"symbol": symbol},
                legendgroup=f"arm {line.arm}",
                showlegend=False,
                hovertemplate=f"{templated(line.arm)}, rate %{{x:.3g}}: {_hover(kind, facts)}<extra></extra>",
            )


def _kind(trial: RateTrial, metric: Metric, worst: float) -> str:
    if trial.value is None:
        return "diverged"
    return "off the scale" if metric.better(worst, trial.value) else trial.outcome


def _symbols(style: ArmStyle) -> dict[str, str]:
    return {
        "diverged": "x-thin-open",
        "off the scale": "triangle-down-open",
        "pruned": style.symbol + "-open",
        "complete": style.symbol,
    }


def _hover(kind: str, facts: Facts) -> str:
    if kind in ("diverged", "off the scale"):
        return kind
    return hover_score(facts.unit) + (" expected, pruned" if kind == "pruned" else "")


def _draw_band(plot: go.Figure, line: RateLine, facts: Facts, style: ArmStyle, worst: float) -> None:
    """Where half of the trials near a rate lie."""
    known = [each for each in line.local if each.supported]
    if not known:
        return
    for values, fill in (([each.lower for each in known], "none"), ([each.upper for each in known], "tonexty")):
        plot.add_scatter(
            x=[each.rate for each in known],
            y=[facts.metric.best([value, worst]) * facts.unit.factor for value in values],
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=style.tint,
            legendgroup=f"arm {line.arm}",
            hoverinfo="skip",
            showlegend=False,
        )


def _draw_median(plot: go.Figure, line: RateLine, facts: Facts, style: ArmStyle, worst: float) -> None:
    """Solid where trials support it, otherwise dotted; both parts share their ends."""
    for solid in (True, False):
        ys = [
            facts.metric.best([each.middle, worst]) * facts.unit.factor if shown else None
            for each, shown in zip(line.local, _shown(line.local, solid=solid), strict=True)
        ]
        if any(y is not None for y in ys):
            plot.add_scatter(
                x=[each.rate for each in line.local],
                y=ys,
                mode="lines",
                line={"color": style.colour, "width": 2.5 if solid else 1.5, "dash": style.dash if solid else "dot"},
                legendgroup=f"arm {line.arm}",
                showlegend=False,
                hovertemplate=f"{templated(line.arm)}, rate %{{x:.3g}}: {hover_score(facts.unit)}<extra></extra>",
            )


def _shown(local: Sequence[LocalScores], *, solid: bool) -> Iterator[bool]:
    for place, each in enumerate(local):
        near = local[max(0, place - 1) : place + 2]
        yield each.supported if solid else any(not other.supported for other in near)


def _draw_range(plot: go.Figure, line: RateLine, height: float, style: ArmStyle) -> None:
    """A bar; an arrow where the range may continue beyond the tried rates."""
    if line.found is None:
        return
    symbols = [
        "triangle-left" if line.found.low_open else "line-ns-open",
        "triangle-right" if line.found.high_open else "line-ns-open",
    ]
    plot.add_scatter(
        x=[line.found.low, line.found.high],
        y=[height] * 2,
        mode="lines+markers",
        line={"color": style.colour, "width": 5},
        marker={"symbol": symbols, "size": 12, "color": style.colour, "line": {"color": style.colour, "width": 2}},
        legendgroup=f"arm {line.arm}",
        showlegend=False,
        hovertext=f"{safe(line.arm)}: good rates {_range(line.found)}",
        hoverinfo="text",
    )


def _explain(plot: go.Figure, lines: Sequence[RateLine], facts: Facts) -> go.Figure:
    """Legend entries for what occurs."""
    symbols = _symbols(ArmStyle(GREY, "circle", "solid"))
    worst, _, _ = _axis(lines, facts.metric, rows=0)
    present = {_kind(trial, facts.metric, worst) for line in lines for trial in line.trials}
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        *(
            (kind in present, name, {"mode": "markers", "marker": {"symbol": symbols[kind], "color": GREY, "size": 8}})
            for kind, name in (("pruned", "pruned"), ("off the scale", "off the scale"), ("diverged", "diverged"))
        ),
        (
            any(not each.supported for line in lines for each in line.local),
            "few trials near",
            {"mode": "lines", "line": {"color": GREY, "width": 1.5, "dash": "dot"}},
        ),
        (
            any(line.found for line in lines),
            "good rates",
            {"mode": "lines", "line": {"color": GREY, "width": 5}},
        ),
    ]
    for shown, name, style in entries:
        if shown:
            plot.add_scatter(x=[None], y=[None], name=name, hoverinfo="skip", showlegend=True, **style)
    return plot


# ---------------------------------------------------------------- text and data


def robustness_note(lines: Sequence[RateLine], facts: Facts) -> str:
    """How to read the figure."""
    crowded = [f"{MAX_DOTS} of {len(line.trials)} of {line.arm}" for line in lines if len(line.trials) > MAX_DOTS]
    parts = [
        "Every search trial; a pruned one stands where it was expected to end, a diverged one at the bottom.",
        *([f"Drawn are {' and '.join(crowded)}, evenly spaced; the data contain all."] if crowded else []),
    ]
    ranges = [line.found for line in lines if line.found]
    if ranges:
        close = facts.unit.size(max(found.tolerance for found in ranges), 0)
        parts.append(
            "The line is the median of the trials near a rate, the area holds half of them, whatever their other "
            f"parameters are. The bar at the top spans the rates whose mean is within {close} of the best mean, with "
            "bad scores cut (local linear regression); an arrow: it may continue beyond the rates that were tried."
        )
    return " ".join(parts)


def robustness_data(lines: Sequence[RateLine], facts: Facts) -> Data:
    """One row for each trial, and one for each rate of a line."""
    columns = (
        "what", "arm", "base_lr", metric_column(facts, "validation"), "outcome", "lower_quartile", "upper_quartile",
        "supported", "within_tolerance",
    )  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        rows += [
            ("trial", line.arm, each.rate, each.value, each.outcome, None, None, None, None) for each in line.trials
        ]
        rows += [
            (
                "median",
                line.arm,
                each.rate,
                each.middle,
                None,
                each.lower,
                each.upper,
                each.supported,
                line.holds(each.rate),
            )
            for each in line.local
        ]
    return Data("robustness", columns, rows)


def robustness_alt(lines: Sequence[RateLine], facts: Facts) -> str:
    """The ranges, or the best rates."""
    trials = ", ".join(f"{len(line.trials)} trials of {line.arm}" for line in lines)
    return f"{trials} over the base learning rate. {_finding(lines, facts)}."
