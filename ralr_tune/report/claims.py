"""Figures of the paper's other claims: the cost of an epoch (ratios) and overfitting (differences)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.claims import Cost, GapDifference
from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.facts import Facts
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, Reference, draw_intervals
from ralr_tune.report.style import ArmStyle, log_ticks, safe


class Gap(NamedTuple):
    """One difference between two gaps."""

    arm: str
    found: GapDifference


def gaps(facts: Facts) -> tuple[Gap, ...]:
    """Those with an interval; the others appear in the text only."""
    return tuple(
        Gap(each.arm, found) for each in facts.overfitting for found in each.differences if found.interval is not None
    )


def timed(facts: Facts) -> tuple[Cost, ...]:
    """Costs with an interval."""
    return tuple(cost for cost in facts.costs if cost.interval is not None)


def draw_costs(costs: Sequence[Cost], arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Ratios on a logarithmic axis; the line marks no extra cost."""
    rows = [_cost_row(cost) for cost in costs]
    ratios = [f"{cost.ratio:.2f}" for cost in costs]
    finding = (
        f"An epoch takes {min(ratios)} to {max(ratios)} times as long"
        if len(costs) > 1
        else (f"An epoch takes {ratios[0]} times as long")
    )
    if all(cost.interval is None or cost.interval[0] <= 1 <= cost.interval[1] for cost in costs):
        finding += ": no extra cost shown"
    titles = finding, "Does amplification cost time?"
    return draw_intervals(rows, arm_styles, titles, _ratio_axis(costs), Reference(zero=1.0))


def _cost_row(cost: Cost) -> IntervalRow:
    text = f"{_own(cost)} / {_other(cost)}: {cost.ratio:.3g}"
    label = f"{safe(_own(cost))} / {safe(_other(cost))}<br>{cost.n} pairs"
    return IntervalRow(label, cost.arm, cost.ratio, cost.interval, safe(text))


def _own(cost: Cost) -> str:
    return cost.arm


def _other(cost: Cost) -> str:
    return "its twin" if cost.paired_by == "twin" else cost.against


def _ratio_axis(costs: Sequence[Cost]) -> dict[str, Any]:
    ends = [1.0, *(end for cost in costs for end in cost.interval or ())]
    low, high = min(min(ends) / 1.05, 0.8), max(max(ends) * 1.05, 1.25)
    ticks = log_ticks(low, high) if high / low > 4 else _even_ticks(low, high)
    return {
        "title": {"text": "Times as long"},
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
        "tickangle": 0,
    }


def _even_ticks(low: float, high: float) -> list[float]:
    """At most six multiples of a round step."""
    for step in (0.05, 0.1, 0.2, 0.5):
        ticks = [round(step * count, 2) for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) <= 6:
            break
    return ticks


def draw_gaps(found: Sequence[Gap], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Left of the line: overfits less."""
    unit = facts.unit
    title = f"Difference of the gaps, {unit.difference_suffix.strip() or facts.metric.words}"
    x = {"title": {"text": safe(title)}}
    rows = [_gap_row(gap, facts) for gap in found]
    shown = [f"{gap.arm} {gap.found.verdict}" for gap in found if gap.found.verdict != "no difference shown"]
    finding = f"Overfitting: {', '.join(shown) or 'no difference shown'}"
    titles = finding, "Does amplification reduce the gap between training and validation?"
    return draw_intervals(rows, arm_styles, titles, x, Reference(zero=0.0))


def _gap_row(gap: Gap, facts: Facts) -> IntervalRow:
    factor, made = facts.unit.factor, gap.found
    interval: Interval | None = (made.interval[0] * factor, made.interval[1] * factor) if made.interval else None
    label = f"{safe(gap.arm)} − {safe(_whose(gap))}<br>{made.n} seeds"
    text = f"{safe(gap.arm)} − {safe(_whose(gap))}: {facts.unit.difference(made.difference, 2)}"
    return IntervalRow(label, gap.arm, made.difference * factor, interval, text)


def _whose(gap: Gap) -> str:
    return "its twin" if gap.found.twin else gap.found.against


def costs_data(facts: Facts) -> Data:
    """Every pairing, including those without an interval."""
    columns = (
        "arm", "against", "paired_by", "ratio", "interval_low", "interval_high", "pairs", "median_epoch_s",
        "against_median_epoch_s",
    )  # fmt: skip
    rows = [
        (
            cost.arm, cost.against, cost.paired_by, cost.ratio, *bounds(cost.interval), cost.n, cost.seconds,
            cost.against_seconds,
        )
        for cost in facts.costs
    ]  # fmt: skip
    return Data("costs", columns, rows)


def gaps_data(facts: Facts) -> Data:
    """Every gap and every difference of gaps."""
    columns = (
        "arm", "against", "against_is_twin", metric_column(facts, "gap"), metric_column(facts, "gap_difference"),
        "interval_low", "interval_high", "pairs", "verdict",
    )  # fmt: skip
    rows = [
        (each.arm, made.against, made.twin, each.gap, made.difference, *bounds(made.interval), made.n, made.verdict)
        for each in facts.overfitting
        for made in each.differences
    ]
    return Data("gaps", columns, rows)


def costs_alt(costs: Sequence[Cost]) -> str:
    """Every ratio."""
    ratios = [f"{_own(cost)} {cost.ratio:.3g} times {_other(cost)}" for cost in costs]
    return f"Time of an epoch: {', '.join(ratios)}."


def gaps_alt(found: Sequence[Gap], facts: Facts) -> str:
    """Every difference."""
    parts = [
        f"{gap.arm} against {_whose(gap)} {facts.unit.difference(gap.found.difference, 2)}, {gap.found.verdict}"
        for gap in found
    ]
    return f"Training minus validation {facts.metric.words}: {'; '.join(parts)}."
