"""Learning curves of the search trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import thinned
from ralr_tune.records import ArmRecord, Row
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import GREY, ArmStyle, figure, hover_score, score_axis

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
    finding = f"{drawn.arm}: {_ends(drawn)}{_best_end(drawn, facts)}"
    plot = figure(finding, f"How did the search trials of {drawn.arm} learn?", x={"title": {"text": "Epoch"}}, y=y)
    others: list[Curve] = thinned(drawn.others, MAX_CURVES)
    for name, dash in (("pruned", "dot"), ("diverged", "dot"), ("running", "dash"), ("complete", "solid")):
        own = [curve for curve in others if curve.outcome == name]
        if own:
            _draw_curves(plot, own, facts, {"color": GREY, "width": 1, "dash": dash}, name)
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
        _draw_curves(plot, [drawn.best], facts, stroke, _best_name(drawn.best, drawn.others), legend=True)
    return plot


def _best_name(best: Curve, others: Sequence[Curve]) -> str:
    """With its block, if there are several: each numbers its own trials."""
    several = any(other.block != best.block for other in others)
    return f"best, trial {best.trial}{f' (block {best.block})' if several else ''}"


def _ends(drawn: CurvesFacts) -> str:
    curves = [*drawn.others, *([drawn.best] if drawn.best else [])]
    complete = sum(curve.outcome == "complete" for curve in curves)
    return f"{complete} of {len(curves)} search trials ran to their end"


def _best_end(drawn: CurvesFacts, facts: Facts) -> str:
    return f", the best at {facts.unit.value(drawn.best.values[-1], 2)}" if drawn.best else ""


def _curve(row: Row) -> Curve:
    epochs, values = tuple(epoch.epoch for epoch in row.curve), tuple(epoch.value for epoch in row.curve)
    return Curve(row.block, row.ordinal if row.trial is None else row.trial, row.outcome or "running", epochs, values)


def _draw_curves(
    plot: go.Figure,
    curves: Sequence[Curve],
    facts: Facts,
    line: Mapping[str, Any],
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
    return f"{len(drawn.others) + bool(drawn.best)} learning curves of {drawn.arm}{_best_end(drawn, facts)}."
