"""The learning rates with which the winners trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import Facts
from ralr_tune.records import ArmRecord
from ralr_tune.report.data import Data
from ralr_tune.report.style import GREY, LINE_PX, TEMPLATE, ArmStyle, number_axis, safe, templated, titled

PANEL_PX = 130
MAX_TICKS = 5  # of a panel


class RatesFacts(NamedTuple):
    """The learning rate of one run as it was trained, at the first step of each epoch."""

    arm: str
    trial: int | None
    seed: int
    rates: tuple[float, ...]
    base: tuple[float, ...]
    """The scheduled rate, before amplification."""


def rates_facts(arm: ArmRecord, facts: Facts) -> RatesFacts | None:
    """The arm's confirmed configuration on its first seed, otherwise its best search trial; None if neither has run.

    As trained, from the stored epochs: recomputing the trace would need the number of steps per epoch.
    """
    candidate = study_rows.chosen(arm, facts.metric)
    judged = [row for row, _ in study_rows.scored(arm.stage("judge")) if (row.block, row.source) == candidate]
    searched = [row for row, _ in study_rows.ranked(arm.search(), facts.metric)]
    for row in [*judged, *searched]:
        curve = [epoch for epoch in row.curve if epoch.lr > 0 and epoch.factor > 0]
        if curve:
            rates = tuple(epoch.lr for epoch in curve)
            base = tuple(epoch.lr / epoch.factor for epoch in curve)
            return RatesFacts(arm.name, row.source if row.trial is None else row.trial, row.seed, rates, base)
    return None


def draw_rates(drawn: Sequence[RatesFacts], arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """A panel for each arm with the same axes: the scheduled rate dotted, the one that was used on top."""
    rows = len(drawn)
    titles = [safe(each.arm) for each in drawn]
    spacing = 0.25 / rows if rows > 1 else 0.0
    plot = make_subplots(rows=rows, shared_xaxes=True, subplot_titles=titles, vertical_spacing=spacing)
    plot.update_annotations(x=0, xanchor="left", font_size=13)
    seen = [rate for each in drawn for rate in (*each.rates, *each.base)]
    for row, each in enumerate(drawn, start=1):
        _draw_panel(plot, row, each, arm_styles[each.arm])
        plot.update_yaxes(
            number_axis("Learning rate", (min(seen), max(seen)), log=True, most=MAX_TICKS), row=row, col=1
        )
    plot.update_xaxes(title_text="Epoch", rangemode="tozero", row=rows, col=1)
    question = "Which rates did the winners use? Dotted: the base schedule"
    title = titled(_finding(drawn), question, 150 + PANEL_PX * rows, legend=False)
    return plot.update_layout(template=TEMPLATE, **title).update_layout(margin_t=title["margin_t"] + LINE_PX)


def _draw_panel(plot: go.Figure, row: int, drawn: RatesFacts, style: ArmStyle) -> None:
    epochs = list(range(len(drawn.rates) + 1))
    for rates, stroke in (
        (drawn.rates, {"color": style.colour, "width": 2.5}),
        (drawn.base, {"color": GREY, "width": 1.5, "dash": "dot"}),
    ):
        plot.add_scatter(
            x=epochs,
            y=[*rates, rates[-1]],
            mode="lines",
            showlegend=False,
            line=stroke | {"shape": "hv"},
            hovertemplate=f"{templated(drawn.arm)}, after epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            row=row,
            col=1,
        )


def _finding(drawn: Sequence[RatesFacts]) -> str:
    hit = [f"{_amplified(each)} of {len(each.rates)} epochs of {each.arm}" for each in drawn if _amplified(each)]
    return f"Amplified: {', '.join(hit)}" if hit else "No epoch of a winner began with an amplified rate"


def _amplified(drawn: RatesFacts) -> int:
    return sum(rate != base for rate, base in zip(drawn.rates, drawn.base, strict=True))


def rates_data(drawn: Sequence[RatesFacts]) -> Data:
    """One row for each arm and epoch."""
    rows = [
        (each.arm, each.trial, each.seed, epoch, rate, base)
        for each in drawn
        for epoch, (rate, base) in enumerate(zip(each.rates, each.base, strict=True), start=1)
    ]
    return Data("rates", ("arm", "trial", "seed", "epoch", "lr", "scheduled_lr"), rows)


def rates_alt(drawn: Sequence[RatesFacts]) -> str:
    """From where to where, and how often amplified."""
    parts = [
        f"{each.arm}'s winner over {len(each.rates)} epochs, from {each.base[0]:.3g} to {each.base[-1]:.3g} as "
        f"scheduled, amplified in {_amplified(each)} of them"
        for each in drawn
    ]
    return f"Learning rates: {'; '.join(parts)}."
