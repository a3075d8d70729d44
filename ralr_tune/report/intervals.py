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
    """Drawn thin, with caps."""
    text: str
    span: Interval | None = None
    """A dotted line next to the dot."""
    thick: Interval | None = None
    """Another interval, drawn thick."""


class Names(NamedTuple):
    """What the legend calls the kinds of lines."""

    interval: str
    thick: str
    span: str
    band: str


class Reference(NamedTuple):
    """What the rows are compared with."""

    zero: float | None = None
    """A line."""
    band: Interval | None = None
    """A grey area."""
    names: Names | None = None
    """Adds a legend."""


LEGEND_PX = 60  # beyond one line: its entries are long
NOTHING = Reference()


def draw_intervals(
    rows: Sequence[IntervalRow],
    arm_styles: Mapping[str, ArmStyle],
    titles: tuple[str, str],
    x: dict[str, Any],
    reference: Reference = NOTHING,
) -> go.Figure:
    """The rows from top to bottom, above a grey band; `titles` are the finding and the question."""
    places = list(range(len(rows)))
    y = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [row.label for row in rows],
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    plot = figure(
        *titles,
        x=x,
        y=y,
        height=(LEGEND_PX + 190 if reference.names else 170) + 62 * len(rows),
        legend=reference.names is not None,
    )
    if reference.band:
        low, high = reference.band
        edge = {"color": GREY, "width": 1, "dash": "dot"}
        plot.add_vrect(x0=low, x1=high, fillcolor=FAINT, line=edge, layer="below")
    if reference.zero is not None:
        plot.add_vline(x=reference.zero, line={"color": GREY, "width": 1.5}, layer="below")
    for place, row in zip(places, rows, strict=True):
        _draw_row(plot, place, row, arm_styles[row.arm])
    if reference.names:
        plot.update_layout(margin_t=plot.layout.margin.t + LEGEND_PX)
        _explain(plot, rows, reference.names, banded=reference.band is not None)
    return plot


def _draw_row(plot: go.Figure, place: int, row: IntervalRow, style: ArmStyle) -> None:
    """A dot without any interval is hollow."""
    if row.thick:
        stroke = {"color": style.colour, "width": 6}
        plot.add_scatter(
            x=list(row.thick), y=[place] * 2, mode="lines", line=stroke, hoverinfo="skip", showlegend=False
        )
    bar, drawn = None, row.interval or row.thick
    if row.interval:
        ends = {"array": [row.interval[1] - row.middle], "arrayminus": [row.middle - row.interval[0]]}
        bar = {"type": "data", "width": 6, "thickness": 2} | ends
    plot.add_scatter(
        x=[row.middle],
        y=[place],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol + ("" if drawn else "-open"), "size": 11},
        error_x=bar,
        hovertext=[row.text],
        hoverinfo="text",
        showlegend=False,
    )
    if row.span:
        plot.add_scatter(
            x=list(row.span), y=[place + 0.26] * 2, mode="lines+markers", hoverinfo="skip", showlegend=False, **_SPAN
        )


_SPAN: dict[str, Any] = {
    "line": {"color": GREY, "width": 1.5, "dash": "dot"},
    "marker": {"color": GREY, "symbol": "line-ns-open", "size": 7},
}


def _explain(plot: go.Figure, rows: Sequence[IntervalRow], names: Names, *, banded: bool) -> None:
    """Legend entries for the kinds of lines that occur."""
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        (any(row.thick for row in rows), names.thick, {"mode": "lines", "line": {"color": GREY, "width": 6}}),
        (any(row.interval for row in rows), names.interval, {"mode": "lines", "line": {"color": GREY, "width": 2}}),
        (any(row.span for row in rows), names.span, {"mode": "lines+markers"} | _SPAN),
        (banded, names.band, {"mode": "markers", "marker": _square()}),
    ]
    for present, name, style in entries:
        if present:
            plot.add_scatter(x=[None], y=[None], name=name, hoverinfo="skip", showlegend=True, **style)


def _square() -> dict[str, Any]:
    return {"symbol": "square", "size": 12, "color": FAINT, "line": {"color": GREY, "width": 1}}
