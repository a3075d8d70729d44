"""The figure of the confirmation: every seed's score of every confirmed configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Confirmed, Facts
from ralr_tune.report.data import Data, metric_column
from ralr_tune.report.style import GREY, ArmStyle, figure, safe, score_axis

SPREAD = 0.3  # of a column's width, over which its seeds are spread
MAX_NARROW = 4  # columns whose labels and means fit into half the width of a page
MAX_LINES = 12  # seeds joined by lines across arms; more would be unreadable
MAX_DOTS = 200  # a configuration's dots


class ScoreColumn(NamedTuple):
    """One configuration's dots."""

    label: str
    """As markup that is safe to show, as all labels here."""
    arm: str
    twin: bool
    by_seed: Mapping[int, float]
    mean: float


class ScoresFacts(NamedTuple):
    """Every confirmed configuration, arms in order, each arm's twin next to it."""

    columns: tuple[ScoreColumn, ...]
    joined: tuple[tuple[tuple[float, float], ...], ...]
    """For each seed that two or more columns have: (place, value) along its line; a place is the
    column's index plus the seed's own offset."""


def scores_facts(facts: Facts) -> ScoresFacts | None:
    """None before confirm has a score."""
    columns = [
        column
        for arm in facts.arms.values()
        for column in (_column(arm.name, arm.confirm, twin=False), _column(arm.name, arm.twin, twin=True))
        if column
    ]
    if not columns:
        return None
    offsets = _offsets(columns)
    lines = [
        tuple((index + offset, column.by_seed[seed]) for index, column in enumerate(columns) if seed in column.by_seed)
        for seed, offset in offsets.items()
    ]
    return ScoresFacts(
        tuple(columns), tuple(line for line in lines if len(line) > 1) if len(offsets) <= MAX_LINES else ()
    )


def _offsets(columns: Sequence[ScoreColumn]) -> dict[int, float]:
    """Each seed's offset from the middle of every column, so that equal scores do not hide each other."""
    seeds = list(dict.fromkeys(seed for column in columns for seed in column.by_seed))
    return {seed: SPREAD * ((index + 0.5) / len(seeds) - 0.5) for index, seed in enumerate(seeds)}


def _column(arm: str, confirmed: Confirmed | None, *, twin: bool) -> ScoreColumn | None:
    if confirmed is None or confirmed.mean is None:
        return None
    by_seed = dict(list(zip(confirmed.seeds, confirmed.values, strict=True))[:MAX_DOTS])
    return ScoreColumn(f"{safe(arm)}<br>twin" if twin else safe(arm), arm, twin, by_seed, confirmed.mean)


def draw_scores(drawn: ScoresFacts, facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Dots by configuration, hollow for a twin, with the mean as bar and number; thin lines join equal seeds."""
    unit, places = facts.unit, list(range(len(drawn.columns)))
    x: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [column.label.replace("<br>", " ") for column in drawn.columns],
        "range": [-0.5, len(places) - 0.5],
        "showgrid": False,
    }
    if len(places) <= MAX_NARROW:  # otherwise plotly rotates labels that would overlap
        labels = [f"{column.label}<br>{unit.value(column.mean, 2)}" for column in drawn.columns]
        x |= {"ticktext": labels, "tickangle": 0}
    offsets = _offsets(drawn.columns)
    y = score_axis(facts.metric, where=facts.split)
    plot = figure(_finding(drawn, facts), "What did each confirmed configuration score?", x=x, y=y, legend=False)
    for line in drawn.joined:
        ys = [value * unit.factor for _, value in line]
        joint = {"color": GREY, "width": 0.75}
        plot.add_scatter(x=[place for place, _ in line], y=ys, mode="lines", line=joint, hoverinfo="skip")
    for place, column in enumerate(drawn.columns):
        style = arm_styles[column.arm]
        texts = [f"{column.label}<br>seed {seed}: {unit.value(value, 2)}" for seed, value in column.by_seed.items()]
        marker = {"color": style.colour, "size": 10, "symbol": style.symbol + ("-open" if column.twin else "")}
        xs = [place + offsets[seed] for seed in column.by_seed]
        ys = [value * unit.factor for value in column.by_seed.values()]
        plot.add_scatter(x=xs, y=ys, mode="markers", marker=marker, hovertext=texts, hoverinfo="text")
        mean = column.mean * unit.factor
        bar = {"color": style.colour, "width": 3}
        plot.add_scatter(x=[place - 0.2, place + 0.2], y=[mean, mean], mode="lines", line=bar, hoverinfo="skip")
    return plot


def _finding(drawn: ScoresFacts, facts: Facts) -> str:
    """The range of the means: to name the best one alone would read like a verdict."""
    ordered = sorted(drawn.columns, key=lambda column: facts.metric.as_gain(column.mean))
    ends = ordered[:1] if len(ordered) == 1 else [ordered[0], ordered[-1]]
    means = " to ".join(f"{facts.unit.value(each.mean, 2)} ({each.arm}{' twin' * each.twin})" for each in ends)
    return f"Means on the {facts.split} split: {means}"


def scores_data(drawn: ScoresFacts, facts: Facts) -> Data:
    """One row for each dot."""
    rows = [
        (column.arm, "off" if column.twin else "as found", seed, value)
        for column in drawn.columns
        for seed, value in column.by_seed.items()
    ]
    return Data("scores", ("arm", "amplification", "seed", metric_column(facts, facts.split)), rows)


def scores_alt(drawn: ScoresFacts, facts: Facts) -> str:
    """The means."""
    means = [
        f"{column.arm}{' without its amplification' if column.twin else ''} {facts.unit.value(column.mean, 2)} "
        f"({len(column.by_seed)} seeds)"
        for column in drawn.columns
    ]
    return f"Mean {facts.split} {facts.metric.words}: {', '.join(means)}."
