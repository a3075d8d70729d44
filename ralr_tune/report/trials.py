"""Figures of the trials themselves: score against each parameter, history, learning curves, learning-rate traces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import Facts
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report.style import Look, figure, number_axis, safe, score_axis, sentence

ON_FLOOR = 15  # percent of the complete scores that an axis may leave below its floor
CROWDED = 300  # curves of one kind in one figure; more cannot be told apart
_GREY = "#7a838c"


class Point(NamedTuple):
    """One finished search trial as a mark."""

    trial: int
    x: Any
    outcome: str
    value: float | None
    """Score at its last epoch; None where it diverged."""
    height: float
    """Where it is drawn: its score, or the floor of the axis if the score lies below that or is none."""


class ParameterFacts(NamedTuple):
    """Score against one parameter, in all arms that searched it."""

    parameter: str
    log: bool
    span: tuple[float, float]
    """Lowest and highest value that the search may take; (0, 0) for choices."""
    choices: tuple[str, ...]
    points: Mapping[str, tuple[Point, ...]]


class HistoryLine(NamedTuple):
    """One block of one arm's search in the order of its trials; x is the trial's number."""

    arm: str
    block: int
    points: tuple[Point, ...]
    best: tuple[tuple[int, float], ...]
    """(trial number, best complete value so far), as high as it is drawn."""


class Curve(NamedTuple):
    """One trial's metric by epoch."""

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


def parameter_facts(record: StudyRecord) -> tuple[ParameterFacts, ...]:
    """One for each searched parameter, in the order of the arms' dimensions."""
    floor = axis_floor(record)
    names = dict.fromkeys(name for arm in record.arms.values() for name in arm.dimensions)
    return tuple(_parameter(record, name, floor) for name in names)


def _parameter(record: StudyRecord, name: str, floor: float) -> ParameterFacts:
    arms = [arm for arm in record.arms.values() if name in arm.dimensions]
    domain = arms[0].dimensions[name]
    choices = tuple(safe(choice) for choice in domain.get("choices", ()))
    points = {
        arm.name: tuple(
            _point(row, safe(row.params[name]) if choices else row.params[name], floor, record)
            for row in _finished(arm)
            if name in row.params
        )
        for arm in arms
    }
    span = (0.0, 0.0) if choices else (float(domain["low"]), float(domain["high"]))
    return ParameterFacts(name, bool(domain.get("log")), span, choices, points)


def draw_parameter(drawn: ParameterFacts, facts: Facts, looks: Mapping[str, Look]) -> go.Figure:
    """One mark a trial."""
    if drawn.choices:
        x: dict[str, Any] = {"title": {"text": safe(drawn.parameter)}, "type": "category"}
        x |= {"categoryorder": "array", "categoryarray": list(drawn.choices)}
    else:
        x = number_axis(drawn.parameter, drawn.span, log=drawn.log)
    y = score_axis(facts.metric, facts.unit, where="validation")
    plot = figure(f"{sentence(facts.metric)} against {drawn.parameter}", x=x, y=y, height=340)
    for arm, points in drawn.points.items():
        _draw_points(plot, arm, points, facts, looks[arm])
    return _explain_marks(plot, drawn.points.values())


def history_facts(record: StudyRecord) -> tuple[HistoryLine, ...]:
    """One line for each arm and block that has finished trials."""
    floor = axis_floor(record)
    lines = [
        _history_line(record, arm, block, floor)
        for arm in record.arms.values()
        for block in sorted({row.block for row in arm.search()})
    ]
    return tuple(line for line in lines if line.points)


def _history_line(record: StudyRecord, arm: ArmRecord, block: int, floor: float) -> HistoryLine:
    points = tuple(_point(row, _number(row), floor, record) for row in _finished(arm) if row.block == block)
    better = max if record.direction == "maximize" else min
    best: list[tuple[int, float]] = []
    for point in points:
        if point.outcome == "complete" and point.value is not None:
            best.append((point.trial, better(point.height, best[-1][1]) if best else point.height))
    if best:
        best.append((points[-1].trial, best[-1][1]))
    return HistoryLine(arm.name, block, points, tuple(best))


def draw_history(lines: Sequence[HistoryLine], facts: Facts, looks: Mapping[str, Look]) -> go.Figure:
    """Trials as marks, the best so far as a stepped line, dashed for further blocks."""
    y = score_axis(facts.metric, facts.unit, where="validation")
    plot = figure("Best so far, trial by trial", x={"title": {"text": "Trial of the arm"}}, y=y)
    for line in lines:
        look, first = looks[line.arm], line.block == min(other.block for other in lines if other.arm == line.arm)
        _draw_points(plot, line.arm, line.points, facts, look, opacity=0.45, legend=False)
        plot.add_scatter(
            x=[trial for trial, _ in line.best],
            y=[value * facts.unit.factor for _, value in line.best],
            mode="lines",
            name=safe(line.arm),
            legendgroup=f"arm {line.arm}",
            showlegend=first,
            line={"color": look.colour, "width": 3, "shape": "hv", "dash": "solid" if first else "dot"},
            hoverinfo="skip",
        )
    return _explain_marks(plot, [line.points for line in lines])


def curves_facts(arm: ArmRecord, facts: Facts) -> CurvesFacts | None:
    """None before a trial of the arm has an epoch."""
    found = study_rows.ranked(arm.search(), facts.direction)
    best = found[0][0] if found else None
    curves = {row.id: _curve(row) for row in arm.search() if row.curve}
    if not curves:
        return None
    highlighted = curves.pop(best.id, None) if best else None
    return CurvesFacts(arm.name, highlighted, tuple(curves.values()))


def draw_curves(drawn: CurvesFacts, facts: Facts, look: Look) -> go.Figure:
    """Faint lines, fainter where pruned; a mark where a trial was pruned or diverged; the best one heavy."""
    y = score_axis(facts.metric, facts.unit, where="validation")
    plot = figure(f"Learning curves of {drawn.arm}", x={"title": {"text": "Epoch"}}, y=y)
    for name, opacity in (("pruned", 0.25), ("diverged", 0.35), ("running", 0.5), ("complete", 0.4)):
        own = [curve for curve in drawn.others if curve.outcome == name][:CROWDED]
        if own:
            _draw_curves(plot, own, facts, {"color": look.colour, "width": 1}, opacity, name)
    ends = [curve for curve in drawn.others if curve.outcome in ("pruned", "diverged")][:CROWDED]
    for name, symbol in (("pruned", "line-ns-open"), ("diverged", "x-thin-open")):
        own = [curve for curve in ends if curve.outcome == name]
        plot.add_scatter(
            x=[curve.epochs[-1] for curve in own],
            y=[curve.values[-1] * facts.unit.factor for curve in own],
            mode="markers",
            name=name,
            showlegend=bool(own),
            marker={"symbol": symbol, "size": 9, "color": _GREY},
            hoverinfo="skip",
        )
    if drawn.best:
        style = {"color": look.colour, "width": 4}
        _draw_curves(plot, [drawn.best], facts, style, 1.0, f"best, trial {drawn.best.trial}", legend=True)
    return plot


def rates_facts(arm: ArmRecord, facts: Facts) -> RatesFacts | None:
    """The arm's confirmed configuration on its first seed, else its best search trial; None where neither has run.

    As trained, from the stored epochs: a trace drawn anew would need the number of steps of an epoch.
    """
    candidate = study_rows.chosen(arm, facts.direction)
    judged = [row for row, _ in study_rows.scored(arm.stage("judge")) if (row.block, row.source) == candidate]
    searched = [row for row, _ in study_rows.ranked(arm.search(), facts.direction)]
    for row in [*judged, *searched]:
        curve = [epoch for epoch in row.curve if epoch.lr > 0 and epoch.factor > 0]
        if curve:
            rates = tuple(epoch.lr for epoch in curve)
            base = tuple(epoch.lr / epoch.factor for epoch in curve)
            return RatesFacts(arm.name, row.source if row.trial is None else row.trial, row.seed, rates, base)
    return None


def draw_rates(drawn: RatesFacts, look: Look) -> go.Figure:
    """Stepped lines on a logarithmic axis: the scheduled rate in grey beneath the one that was used."""
    title = f"Learning rate of {drawn.arm}'s winner" + ("" if drawn.trial is None else f", trial {drawn.trial}")
    seen = (*drawn.rates, *drawn.base)
    y = number_axis("Learning rate", (min(seen), max(seen)), log=True)
    plot = figure(title, x={"title": {"text": "Epoch"}, "rangemode": "tozero"}, y=y, height=320)
    epochs = list(range(len(drawn.rates) + 1))
    for name, rates, style in (
        ("as trained", drawn.rates, {"color": look.colour, "width": 2.5}),
        ("base schedule", drawn.base, {"color": _GREY, "width": 1.5, "dash": "dot"}),
    ):
        plot.add_scatter(
            x=epochs,
            y=[*rates, rates[-1]],
            mode="lines",
            name=name,
            line=style | {"shape": "hv"},
            hovertemplate="after epoch %{x}: %{y:.4g}<extra></extra>",
        )
    return plot


def axis_floor(record: StudyRecord) -> float:
    """The worst score that is drawn to scale: a few ruined trials must not squeeze all others into one line."""
    values = [value for arm in record.arms.values() for _, value in study_rows.scored(arm.search())]
    if not values:
        return 0.0
    sign = 1 if record.direction == "maximize" else -1
    gains = sign * np.array(values)
    low, best = float(np.percentile(gains, ON_FLOOR)), float(gains.max())
    return sign * max(float(gains.min()), low - 0.3 * (best - low))


def _finished(arm: ArmRecord) -> list[Row]:
    """Finished search trials in the order of their blocks and numbers; a value that is not finite counts as none."""
    rows = [row for row in arm.search() if row.outcome in ("complete", "pruned", "diverged")]
    return sorted((row for row in rows if _sound(row)), key=lambda row: (row.block, _number(row)))


def _sound(row: Row) -> bool:
    return row.outcome == "diverged" or (row.value is not None and math.isfinite(row.value))


def _number(row: Row) -> int:
    return row.ordinal if row.trial is None else row.trial


def _point(row: Row, x: Any, floor: float, record: StudyRecord) -> Point:
    value = None if row.outcome == "diverged" else row.value
    better = max if record.direction == "maximize" else min
    return Point(_number(row), x, str(row.outcome), value, floor if value is None else better(value, floor))


def _draw_points(
    plot: go.Figure,
    arm: str,
    points: Sequence[Point],
    facts: Facts,
    look: Look,
    *,
    opacity: float = 0.85,
    legend: bool = True,
) -> None:
    """Complete trials filled, pruned ones hollow, those on the floor as triangles, diverged ones as crosses."""
    marker = {"color": look.colour, "size": 8}
    if legend:  # an entry of its own: plotly would show whatever mark comes first
        own = marker | {"symbol": look.symbol}
        plot.add_scatter(
            x=[None], y=[None], mode="markers", name=safe(arm), legendgroup=f"arm {arm}", marker=own, hoverinfo="skip"
        )
    plot.add_scatter(
        x=[point.x for point in points],
        y=[point.height * facts.unit.factor for point in points],
        mode="markers",
        legendgroup=f"arm {arm}",
        showlegend=False,
        opacity=opacity,
        marker=marker | {"symbol": [_symbol(point, facts, look) for point in points]},
        hovertext=[_point_text(arm, point, facts) for point in points],
        hoverinfo="text",
    )


def _symbol(point: Point, facts: Facts, look: Look) -> str:
    if point.value is None:
        return "x-thin-open"
    if point.height != point.value:
        return "triangle-down-open" if facts.direction == "maximize" else "triangle-up-open"
    return look.symbol if point.outcome == "complete" else look.symbol + "-open"


def _point_text(arm: str, point: Point, facts: Facts) -> str:
    score = "no score" if point.value is None else facts.unit.value(point.value, 2)
    return f"{safe(arm)}, trial {point.trial}: {score}<br>{point.outcome}"


def _explain_marks(plot: go.Figure, groups: Iterable[Sequence[Point]]) -> go.Figure:
    """Legend entries for those kinds of marks that are there."""
    points = [point for group in groups for point in group]
    kinds = {
        "pruned": ("circle-open", any(point.outcome == "pruned" for point in points)),
        "off the scale": ("triangle-down-open", any(point.value not in (None, point.height) for point in points)),
        "diverged": ("x-thin-open", any(point.value is None for point in points)),
    }
    for name, (symbol, present) in kinds.items():
        if present:
            marker = {"symbol": symbol, "color": _GREY, "size": 8}
            plot.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, hoverinfo="skip")
    return plot


def _curve(row: Row) -> Curve:
    epochs, values = tuple(epoch.epoch for epoch in row.curve), tuple(epoch.value for epoch in row.curve)
    return Curve(_number(row), row.outcome or "running", epochs, values)


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
        hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: %{{y:.4g}}{facts.unit.value_suffix}<extra></extra>",
    )
