"""Figures of the search trials as marks: score against each parameter."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.robustness import RATE
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import (
    GREY,
    ArmStyle,
    figure,
    hover_score,
    number_axis,
    safe,
    score_axis,
    sentence,
    templated,
)

FLOOR_PERCENT = 15  # of the complete scores may lie below the floor of an axis


class Point(NamedTuple):
    """One finished search trial as a mark."""

    trial: int
    x: Any
    outcome: str
    value: float | None
    """Score at its last epoch; None if it diverged."""
    height: float
    """Where it is drawn: its score, or the floor of the axis if the score is below the floor or missing."""


class ParameterFacts(NamedTuple):
    """Score against one parameter, in all arms that searched it."""

    parameter: str
    log: bool
    span: tuple[float, float]
    """Lowest and highest value that the search may take; (0, 0) for choices."""
    choices: tuple[str, ...]
    points: Mapping[str, tuple[Point, ...]]


def parameter_facts(record: StudyRecord) -> tuple[ParameterFacts, ...]:
    """One for each searched parameter, in the order of the arms' dimensions.

    Except a base rate that is a number: the figure of robustness has its trials.
    """
    floor = axis_floor(record)
    names = dict.fromkeys(name for arm in record.arms.values() for name in arm.dimensions)
    found = tuple(_parameter(record, name, floor) for name in names)
    return tuple(each for each in found if each.parameter != RATE or each.choices)


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


def draw_parameter(drawn: ParameterFacts, facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """One mark for each trial."""
    if drawn.choices:
        x: dict[str, Any] = {"title": {"text": safe(drawn.parameter)}, "type": "category"}
        x |= {"categoryorder": "array", "categoryarray": list(drawn.choices)}
    else:
        x = number_axis(drawn.parameter, drawn.span, log=drawn.log)
    y = score_axis(facts.metric, where="validation")
    question = f"How does the {facts.metric.words} depend on {drawn.parameter}?"
    plot = figure(_finding(drawn, facts), question, x=x, y=y, height=340)
    for arm, points in drawn.points.items():
        _draw_points(plot, arm, points, facts, arm_styles[arm])
    return _explain_marks(plot, drawn.points.values(), facts)


def _finding(drawn: ParameterFacts, facts: Facts) -> str:
    """Where the best trial of each arm lies."""
    best = {arm: _best_at(points, facts) for arm, points in drawn.points.items()}
    known = ", ".join(f"{at} in {arm}" for arm, at in best.items() if at)
    return f"Best {drawn.parameter}: {known or 'unknown'}"


def axis_floor(record: StudyRecord) -> float:
    """The worst score that is drawn to scale: a few ruined trials must not squeeze all others into one line."""
    values = [value for arm in record.arms.values() for _, value in study_rows.scored(arm.search())]
    if not values:
        return 0.0
    gains = record.metric.as_gain(np.array(values))
    low, best = float(np.percentile(gains, FLOOR_PERCENT)), float(gains.max())
    return record.metric.as_gain(max(float(gains.min()), low - 0.3 * (best - low)))


def _finished(arm: ArmRecord) -> list[Row]:
    """Finished search trials in the order of their blocks and numbers; a value that is not finite counts as none."""
    rows = [row for row in arm.search() if row.outcome in ("complete", "pruned", "diverged")]
    return sorted((row for row in rows if _has_value(row)), key=lambda row: (row.block, _number(row)))


def _has_value(row: Row) -> bool:
    return row.outcome == "diverged" or (row.value is not None and math.isfinite(row.value))


def _number(row: Row) -> int:
    return row.ordinal if row.trial is None else row.trial


def _point(row: Row, x: Any, floor: float, record: StudyRecord) -> Point:
    value = None if row.outcome == "diverged" else row.value
    height = floor if value is None else record.metric.best([value, floor])
    return Point(_number(row), x, str(row.outcome), value, height)


def _draw_points(
    plot: go.Figure,
    arm: str,
    points: Sequence[Point],
    facts: Facts,
    style: ArmStyle,
) -> None:
    """Complete trials filled, pruned ones hollow, those on the floor as triangles, diverged ones as crosses."""
    marker = {"color": style.colour, "size": 8}
    # A separate legend entry: plotly would show the first mark.
    own = marker | {"symbol": style.symbol}
    plot.add_scatter(
        x=[None], y=[None], mode="markers", name=safe(arm), legendgroup=f"arm {arm}", marker=own, hoverinfo="skip"
    )
    # A trace for each kind of mark: a text and a symbol for each of thousands of marks would double the page size.
    for kind, symbol in _symbols(facts, style).items():
        own_points = [point for point in points if _kind(point) == kind]
        if own_points:
            plot.add_scatter(
                x=[point.x for point in own_points],
                y=[point.height * facts.unit.factor for point in own_points],
                customdata=[_custom(point, facts) for point in own_points],
                mode="markers",
                legendgroup=f"arm {arm}",
                showlegend=False,
                marker=marker | {"symbol": symbol},
                hovertemplate=_hover(arm, kind, facts),
            )


def _kind(point: Point) -> str:
    if point.value is None:
        return "diverged"
    return "off the scale" if point.height != point.value else point.outcome


def _symbols(facts: Facts, style: ArmStyle) -> dict[str, str]:
    """Kinds of marks, those on top last."""
    beyond = "triangle-down-open" if facts.metric.better(1.0, 0.0) else "triangle-up-open"  # towards worse values
    hollow = style.symbol + "-open"
    return {"diverged": "x-thin-open", "off the scale": beyond, "pruned": hollow, "complete": style.symbol}


def _custom(point: Point, facts: Facts) -> Any:
    """What the hover text shows besides the position of the mark."""
    if _kind(point) == "off the scale" and point.value is not None:
        return [point.trial, facts.unit.value(point.value, 2), point.outcome]
    return point.trial


def _hover(arm: str, kind: str, facts: Facts) -> str:
    name = templated(arm)
    texts = {
        "diverged": "%{customdata}: no score<br>diverged",
        "off the scale": "%{customdata[0]}: %{customdata[1]}<br>%{customdata[2]}",
    }
    shown = texts.get(kind, f"%{{customdata}}: {hover_score(facts.unit)}<br>{kind}")
    return f"{name}, trial {shown}<extra></extra>"


def _explain_marks(plot: go.Figure, groups: Iterable[Sequence[Point]], facts: Facts) -> go.Figure:
    """Legend entries for the kinds of marks that occur."""
    present = {_kind(point) for group in groups for point in group}
    symbols = _symbols(facts, ArmStyle(GREY, "circle", "solid"))
    for kind in ("pruned", "off the scale", "diverged"):
        if kind in present:
            marker = {"symbol": symbols[kind], "color": GREY, "size": 8}
            plot.add_scatter(x=[None], y=[None], mode="markers", name=kind, marker=marker, hoverinfo="skip")
    return plot


def trials_data(record: StudyRecord, facts: Facts) -> Data:
    """Every finished search trial with all its numbers."""
    names = list(dict.fromkeys(name for arm in record.arms.values() for name in arm.dimensions))
    columns = (
        "arm", "block", "trial", "seed", "outcome", "epochs", metric_column(facts, "validation"),
        metric_column(facts, "training"), "training_time_s", *names,
    )  # fmt: skip
    rows = [
        (
            row.arm, row.block, _number(row), row.seed, row.outcome, row.epoch,
            None if row.outcome == "diverged" else row.value, row.train_value, row.seconds,
            *(row.params.get(name) for name in names),
        )
        for arm in record.arms.values()
        for row in _finished(arm)
    ]  # fmt: skip
    return Data("trials", columns, rows)


def parameter_alt(drawn: ParameterFacts, facts: Facts) -> str:
    """How many marks, and the position of the best one."""
    parts = [
        f"{len(points)} trials of {arm}" + (f", the best at {at}" if (at := _best_at(points, facts)) else "")
        for arm, points in drawn.points.items()
    ]
    return f"{sentence(facts.metric.words)} against {drawn.parameter}: {'; '.join(parts)}."


def _best_at(points: Sequence[Point], facts: Facts) -> str:
    complete = [
        (facts.metric.as_gain(point.value), point.x)
        for point in points
        if point.outcome == "complete" and point.value is not None
    ]
    if not complete:
        return ""
    at = max(complete, key=lambda pair: pair[0])[1]
    return f"{at:.3g}" if isinstance(at, float) else html.unescape(str(at))  # a choice is markup already
