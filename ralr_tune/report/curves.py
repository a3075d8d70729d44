"""Figures by epoch: learning curves, and the learning rates of the winners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import thinned
from ralr_tune.records import ArmRecord, Row
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import GREY, ArmStyle, figure, hover_score, number_axis, score_axis

MAX_CURVES = 150  # curves besides the best one in one figure; more cannot be distinguished


class Curve(NamedTuple):
    """One trial's metric by epoch."""

    block: int
    trial: int
    outcome: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


class CurvesFacts(NamedTuple):
    """One arm's learning curves; `best` is not among the others."""

    arm: str
    best: Curve | None
    others: tuple[Curve, ...]


class RatesFacts(NamedTuple):
    """The learning rate of one run as it was trained, at the first step of each epoch."""

    arm: str
    trial: int | None
    seed: int
    rates: tuple[float, ...]
    base: tuple[float, ...]
    """The scheduled rate, before amplification."""


def curves_facts(arm: ArmRecord, facts: Facts) -> CurvesFacts | None:
    """None before a trial of the arm has an epoch."""
    found = study_rows.ranked(arm.search(), facts.metric)
    best = found[0][0] if found else None
    curves = {row.id: _curve(row) for row in arm.search() if row.curve}
    if not curves:
        return None
    highlighted = curves.pop(best.id, None) if best else None
    return CurvesFacts(arm.name, highlighted, tuple(curves.values()))


def draw_curves(drawn: CurvesFacts, facts: Facts, style: ArmStyle) -> go.Figure:
    """Faint lines, fainter where pruned; a mark where a trial was pruned or diverged; the best one heavy."""
    y = score_axis(facts.metric, where="validation")
    plot = figure(f"Learning curves of {drawn.arm}", x={"title": {"text": "Epoch"}}, y=y)
    others: list[Curve] = thinned(drawn.others, MAX_CURVES)
    for name, opacity in (("pruned", 0.25), ("diverged", 0.35), ("running", 0.5), ("complete", 0.4)):
        own = [curve for curve in others if curve.outcome == name]
        if own:
            _draw_curves(plot, own, facts, {"color": style.colour, "width": 1}, opacity, name)
    for name, symbol in (("pruned", "line-ns-open"), ("diverged", "x-thin-open")):
        own = [curve for curve in others if curve.outcome == name]
        plot.add_scatter(
            x=[curve.epochs[-1] for curve in own],
            y=[curve.values[-1] * facts.unit.factor for curve in own],
            mode="markers",
            name=name,
            showlegend=bool(own),
            marker={"symbol": symbol, "size": 9, "color": GREY},
            hoverinfo="skip",
        )
    if drawn.best:
        stroke = {"color": style.colour, "width": 4}
        _draw_curves(plot, [drawn.best], facts, stroke, 1.0, f"best, trial {drawn.best.trial}", legend=True)
    return plot


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


def draw_rates(drawn: RatesFacts, style: ArmStyle) -> go.Figure:
    """Stepped lines on a logarithmic axis: the scheduled rate in grey beneath the one that was used."""
    title = f"Learning rate of {drawn.arm}'s winner" + ("" if drawn.trial is None else f", trial {drawn.trial}")
    seen = (*drawn.rates, *drawn.base)
    y = number_axis("Learning rate", (min(seen), max(seen)), log=True)
    plot = figure(title, x={"title": {"text": "Epoch"}, "rangemode": "tozero"}, y=y, height=320)
    epochs = list(range(len(drawn.rates) + 1))
    for name, rates, stroke in (
        ("as trained", drawn.rates, {"color": style.colour, "width": 2.5}),
        ("base schedule", drawn.base, {"color": GREY, "width": 1.5, "dash": "dot"}),
    ):
        plot.add_scatter(
            x=epochs,
            y=[*rates, rates[-1]],
            mode="lines",
            name=name,
            line=stroke | {"shape": "hv"},
            hovertemplate="after epoch %{x}: %{y:.4g}<extra></extra>",
        )
    return plot


def _curve(row: Row) -> Curve:
    epochs, values = tuple(epoch.epoch for epoch in row.curve), tuple(epoch.value for epoch in row.curve)
    return Curve(row.block, row.ordinal if row.trial is None else row.trial, row.outcome or "running", epochs, values)


def _draw_curves(
    plot: go.Figure,
    curves: Sequence[Curve],
    facts: Facts,
    line: Mapping[str, Any],
    opacity: float,
    name: str,
    *,
    legend: bool = False,
) -> None:
    """All curves of one kind as one trace with gaps: hundreds of traces would make the page slow."""
    plot.add_scatter(
        x=[x for curve in curves for x in (*curve.epochs, None)],
        y=[y for curve in curves for y in (*(value * facts.unit.factor for value in curve.values), None)],
        customdata=[curve.trial for curve in curves for _ in (*curve.epochs, None)],
        mode="lines",
        name=name,
        showlegend=legend,
        opacity=opacity,
        line=dict(line),
        hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: {hover_score(facts.unit)}<extra></extra>",
    )


def crowding(arms: Sequence[CurvesFacts]) -> str:
    """A sentence on curves that the figures leave out, if any."""
    crowded = [drawn for drawn in arms if len(drawn.others) > MAX_CURVES]
    counts = " and ".join(f"{len(drawn.others)} of {drawn.arm}" for drawn in crowded)
    return f" Of {counts}, {MAX_CURVES} each are drawn, evenly spaced; the data contain all." if counts else ""


def curves_data(drawn: CurvesFacts, facts: Facts) -> Data:
    """Every epoch of every trial, including trials that are not drawn."""
    columns = ("arm", "block", "trial", "outcome", "epoch", metric_column(facts, "validation"))
    rows = [
        (drawn.arm, curve.block, curve.trial, curve.outcome, epoch, value)
        for curve in (*([drawn.best] if drawn.best else []), *drawn.others)
        for epoch, value in zip(curve.epochs, curve.values, strict=True)
    ]
    return Data(f"curves-{drawn.arm}", columns, rows)


def curves_alt(drawn: CurvesFacts, facts: Facts) -> str:
    """How many, and the best."""
    best = f", the best ending at {facts.unit.value(drawn.best.values[-1], 2)}" if drawn.best else ""
    return f"{len(drawn.others) + bool(drawn.best)} learning curves of {drawn.arm}{best}."


def rates_data(drawn: RatesFacts) -> Data:
    """One row for each epoch."""
    rows = [
        (drawn.arm, drawn.trial, drawn.seed, epoch, rate, base)
        for epoch, (rate, base) in enumerate(zip(drawn.rates, drawn.base, strict=True), start=1)
    ]
    return Data(f"rates-{drawn.arm}", ("arm", "trial", "seed", "epoch", "lr", "scheduled_lr"), rows)


def rates_alt(drawn: RatesFacts) -> str:
    """From where to where, and how often amplified."""
    hit = sum(rate != base for rate, base in zip(drawn.rates, drawn.base, strict=True))
    return (
        f"The learning rate of {drawn.arm}'s winner over {len(drawn.rates)} epochs, from {drawn.base[0]:.3g} to "
        f"{drawn.base[-1]:.3g} as scheduled; amplified in {hit} of them."
    )
