"""Rows of dots with intervals, for differences, rates and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Interval
from ralr_tune.report.style import FAINT, GREY, ArmStyle, figure


class IntervalRow(NamedTuple):
    """One dot; numbers in display units."""

    label: str
    """As markup that is safe to show, as `text`."""
    arm: str
    middle: float
    interval: Interval | None
    text: str
    span: Interval | None = None
    """A dotted line next to the dot."""
    deciding: Interval | None = None
    """A thick line on top of the interval: what gives the verdict, if the interval does not."""


def draw_intervals(
    rows: Sequence[IntervalRow],
    arm_styles: Mapping[str, ArmStyle],
    title: str,
    x: dict[str, Any],
    *,
    zero: float | None = None,
    band: Interval | None = None,
) -> go.Figure:
    """The rows from top to bottom, above a grey band; `zero` is the reference line."""
    places = list(range(len(rows)))
    y = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [row.label for row in rows],
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    plot = figure(title, x=x, y=y, height=130 + 60 * len(rows))
    if band:
        plot.add_vrect(x0=band[0], x1=band[1], fillcolor=FAINT, opacity=0.4, line_width=0, layer="below")
    if zero is not None:
        plot.add_vline(x=zero, line={"color": GREY, "width": 1}, layer="below")
    for place, row in zip(places, rows, strict=True):
        _draw_row(plot, place, row, arm_styles[row.arm])
    return plot.update_layout(showlegend=False, margin_t=40)


def _draw_row(plot: go.Figure, place: int, row: IntervalRow, style: ArmStyle) -> None:
    low, high = row.interval or (row.middle, row.middle)
    bar = {"type": "data", "array": [high - row.middle], "arrayminus": [row.middle - low], "width": 6, "thickness": 2}
    plot.add_scatter(
        x=[row.middle],
        y=[place],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 11},
        error_x=bar,
        hovertext=[row.text],
        hoverinfo="text",
    )
    if row.deciding:
        line = {"color": style.colour, "width": 6}
        plot.add_scatter(x=list(row.deciding), y=[place] * 2, mode="lines", line=line, hoverinfo="skip")
    if row.span:
        plot.add_scatter(
            x=list(row.span),
            y=[place + 0.24] * 2,
            mode="lines+markers",
            line={"color": GREY, "width": 1.5, "dash": "dot"},
            marker={"color": GREY, "symbol": "line-ns-open", "size": 7},
            hoverinfo="skip",
        )
