"""The learning-rate range test: smoothed loss against rate, with the spread over seeds and the proposed range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ralr_tune.analysis.range_test import RangeProposal, smoothed
from ralr_tune.records import RateSweep
from ralr_tune.report.style import ArmStyle, arm_styles, figure, log_ticks, safe

PANEL_HEIGHT = 300
GREEN = "rgba(0, 158, 115, 0.14)"


class Panel(NamedTuple):
    """The sweeps of arms that train the same way, and what they propose."""

    arms: str
    sweeps: Sequence[RateSweep]
    window: int
    proposal: RangeProposal


class Spread(NamedTuple):
    """Lowest, median and highest smoothed loss over the seeds that reached a rate."""

    rates: list[float]
    low: list[float]
    middle: list[float]
    high: list[float]


def draw_range_test(study: str, panels: Sequence[Panel]) -> go.Figure:
    """One panel below the other, all with the same rates."""
    titles = [_title(panel) for panel in panels]
    plot = make_subplots(rows=len(panels), shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.12)
    style = arm_styles(["range"])["range"]
    for row, panel in enumerate(panels, start=1):
        _draw(plot, row, panel, style)
    seen = [rate for panel in panels for sweep in panel.sweeps for rate in sweep.rates]
    ticks = log_ticks(min(seen), max(seen))
    plot.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    seeds = max(len(panel.sweeps) for panel in panels)
    plot.update_xaxes(title_text=f"Learning rate{_legend(seeds)}", row=len(panels), col=1)
    return plot.update_layout(
        figure(f"{study}: training loss while the learning rate grows", x={}, y={}).layout,
        height=PANEL_HEIGHT * len(panels) + 120,
        showlegend=False,
        margin_t=90,
    )


def _legend(seeds: int) -> str:
    return "" if seeds == 1 else f" (line: median of {seeds} seeds, band: lowest to highest)"


def spread(sweeps: Sequence[RateSweep], window: int) -> Spread:
    """Over the finite smoothed losses at each rate; a sweep that ended early has none at higher rates."""
    rates = max((sweep.rates for sweep in sweeps), key=len)
    columns = zip_longest(*(smoothed(sweep.losses, window).tolist() for sweep in sweeps), fillvalue=math.inf)
    found = Spread([], [], [], [])
    for rate, column in zip(rates, columns, strict=True):
        losses = sorted(loss for loss in column if math.isfinite(loss))
        if losses:
            middle = (losses[(len(losses) - 1) // 2] + losses[len(losses) // 2]) / 2
            for values, value in zip(found, (rate, losses[0], middle, losses[-1]), strict=True):
                values.append(value)
    return found


def loss_axis(drawn: Spread) -> tuple[float, float]:
    """From below the lowest loss to as far above the first as that is below: a diverged loss would flatten the rest."""
    if not drawn.rates:
        return 0.0, 1.0
    start, lowest, highest = drawn.middle[0], min(drawn.low), max(drawn.high)
    height = (start - lowest) or abs(start) or 1.0
    return lowest - 0.1 * height, min(highest + 0.1 * height, start + height)


def _draw(plot: go.Figure, row: int, panel: Panel, style: ArmStyle) -> None:
    drawn = spread(panel.sweeps, panel.window)
    _line(plot, row, drawn.rates, drawn.low, {"width": 0})
    _line(plot, row, drawn.rates, drawn.high, {"width": 0}, fill="tonexty", fillcolor=style.tint)
    hover = {"hovertemplate": "rate %{x:.3g}: loss %{y:.4g}<extra></extra>", "hoverinfo": None}
    _line(plot, row, drawn.rates, drawn.middle, {"color": style.colour, "width": 2}, **hover)
    plot.update_yaxes(title_text="Training loss", range=loss_axis(drawn), row=row, col=1)
    proposal = panel.proposal
    if proposal.low is not None:  # after the lines: plotly adds no area to a panel without any
        plot.add_vrect(x0=proposal.low, x1=proposal.high, fillcolor=GREEN, line_width=0, layer="below", row=row, col=1)


def _title(panel: Panel) -> str:
    """The annotation of an area would be misplaced on a logarithmic axis, so the title has its ends."""
    proposal = panel.proposal
    shaded = "no proposal" if proposal.low is None else f"proposed {proposal.low:g} to {proposal.high:g} (shaded)"
    return safe(f"{panel.arms}: {shaded}")


def _line(
    plot: go.Figure, row: int, x: Sequence[float], y: Sequence[float], line: dict[str, object], **more: object
) -> None:
    plot.add_scatter(x=list(x), y=list(y), mode="lines", line=line, **{"hoverinfo": "skip"} | more, row=row, col=1)
