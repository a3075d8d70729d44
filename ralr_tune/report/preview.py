"""Learning rates before training: of a study (one panel per arm, one stepped line per configuration) or a scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ralr_tune.report.style import FONT, GREY, TEMPLATE, arm_styles, figure, log_ticks, safe, templated

if TYPE_CHECKING:
    from ralr_tune.schedules.perturbation import Floats
    from ralr_tune.schedules.wrapper.preview import RatePreview

PANEL_HEIGHT = 260
_FADES = (1.0, 0.6, 0.35)
"""Opacity of the first lines; more lines share the last one."""


class Trace(NamedTuple):
    """One configuration's learning rate: positions in epochs, the rates, and the base curve's rates."""

    label: str
    epochs: Sequence[float]
    rates: Sequence[float]
    base: Sequence[float]


def draw_preview(study: str, traces: Mapping[str, Sequence[Trace]]) -> go.Figure:
    """One panel below the other, so that arms share the epoch axis; rates have logarithmic axes."""
    titles = [safe(arm) for arm in traces]
    spacing = 0.3 / len(traces) ** 1.5
    plot = make_subplots(rows=len(traces), shared_xaxes=True, subplot_titles=titles, vertical_spacing=spacing)
    for row, (arm, style) in enumerate(arm_styles(traces).items(), start=1):
        for place, trace in enumerate(traces[arm]):
            _draw(plot, row, trace, style.colour, _FADES[min(place, len(_FADES) - 1)])
        seen = [rate for trace in traces[arm] for rate in (*trace.rates, *trace.base)]
        plot.update_yaxes(_rate_axis(seen), row=row, col=1)
    plot.update_xaxes(title_text="Epoch", row=len(traces), col=1)
    return plot.update_layout(
        template=TEMPLATE,
        title=safe(f"Learning rates that {study} would draw (dotted: the base schedule)"),
        height=PANEL_HEIGHT * len(traces) + 90,
        showlegend=False,
        font={"family": FONT},
        margin={"t": 90},
    )


def plot_preview(preview: RatePreview) -> go.Figure:
    """The result of `RandomAmplifyLR.preview`: rates by step and the base schedule, one colour for each param group.

    The rate axis is logarithmic; rates of 0 are left out.
    """
    groups = preview.rates.shape[1]
    names = ["Learning rate"] if groups == 1 else [f"Param group {index}" for index in range(groups)]
    seen = [*preview.rates.ravel().tolist(), *preview.base.ravel().tolist()]
    plot = figure("Learning rate with random amplification", x={"title": {"text": "Step"}}, y=_rate_axis(seen))
    for column, (name, style) in enumerate(arm_styles(names).items()):
        dotted = {"color": GREY if groups == 1 else style.colour, "width": 1.5, "dash": "dot"}
        _draw_steps(plot, preview, preview.rates[:, column], name, {"color": style.colour, "width": 2})
        _draw_steps(plot, preview, preview.base[:, column], f"{name}, base schedule", dotted)
    return plot


def _draw_steps(plot: go.Figure, preview: RatePreview, rates: Floats, name: str, line: dict[str, object]) -> None:
    """Draws the last rate for one step, too."""
    plot.add_scatter(
        x=[*preview.steps.tolist(), int(preview.steps[-1]) + 1],
        y=[rate if rate > 0 else None for rate in (*rates.tolist(), float(rates[-1]))],
        mode="lines",
        name=name,
        line=line | {"shape": "hv"},
        hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
    )


def _rate_axis(rates: Sequence[float]) -> dict[str, object]:
    """A logarithmic axis; it has no 0, so that a line that ends at rate 0 stops before."""
    seen = [rate for rate in rates if rate > 0] or [1.0]
    ticks = log_ticks(min(seen), max(seen))
    axis: dict[str, object] = {"type": "log", "title": {"text": "Learning rate"}}
    return axis | ({"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if ticks else {})


def _draw(plot: go.Figure, row: int, trace: Trace, colour: str, opacity: float) -> None:
    dotted, solid = {"color": colour, "width": 1, "dash": "dot"}, {"color": colour, "width": 2}
    for rates, style in ((trace.base, dotted), (trace.rates, solid)):
        plot.add_scatter(
            x=list(trace.epochs),
            y=[rate if rate > 0 else None for rate in rates],
            mode="lines",
            line=style | {"shape": "hv"},
            opacity=opacity,
            hovertemplate=f"{templated(trace.label)}<br>epoch %{{x:.2f}}: %{{y:.4g}}<extra></extra>",
            row=row,
            col=1,
        )
