"""Figures of what confirm found: every seed's score, the differences, and the importance of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Comparison, Interval
from ralr_tune.analysis.facts import Confirmed, Facts, Twin
from ralr_tune.analysis.importance import Importance
from ralr_tune.report.style import FAINT, Look, figure, safe, score_axis

SPREAD = 0.3  # of a column's width, over which its seeds stand side by side
MOST_LINES = 12  # seeds that are joined across arms; more would be a thicket
MOST_DOTS = 200  # a configuration's dots


class ScoreColumn(NamedTuple):
    """One configuration's dots."""

    label: str
    """As markup that is safe to show, as all labels here."""
    arm: str
    twin: bool
    by_seed: Mapping[int, float]
    mean: float


class ScoresFacts(NamedTuple):
    """Every confirmed configuration, arms in order, each arm's twin beside it."""

    columns: tuple[ScoreColumn, ...]
    joined: tuple[tuple[tuple[float, float], ...], ...]
    """For each seed that two or more columns have: (place, value) along its line; a place is the
    column's index plus the seed's own offset."""


class DifferenceRow(NamedTuple):
    """One comparison."""

    label: str
    arm: str
    difference: float
    interval: Interval | None
    n: int
    verdict: str


class ImportanceMark(NamedTuple):
    """One parameter in one arm."""

    parameter: str
    arm: str
    found: Importance


class ImportanceFacts(NamedTuple):
    """Parameters from the most to the least important in any arm, and a mark for each arm that searched them."""

    parameters: tuple[str, ...]
    arms: tuple[str, ...]
    marks: tuple[ImportanceMark, ...]


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
        tuple(columns), tuple(line for line in lines if len(line) > 1) if len(offsets) <= MOST_LINES else ()
    )


def _offsets(columns: Sequence[ScoreColumn]) -> dict[int, float]:
    """Each seed's own place beside the middle of every column, so that equal scores do not hide one another."""
    seeds = list(dict.fromkeys(seed for column in columns for seed in column.by_seed))
    return {seed: SPREAD * ((index + 0.5) / len(seeds) - 0.5) for index, seed in enumerate(seeds)}


def _column(arm: str, confirmed: Confirmed | None, *, twin: bool) -> ScoreColumn | None:
    if confirmed is None or confirmed.mean is None:
        return None
    by_seed = dict(list(zip(confirmed.seeds, confirmed.values, strict=True))[:MOST_DOTS])
    return ScoreColumn(f"{safe(arm)}<br>twin" if twin else safe(arm), arm, twin, by_seed, confirmed.mean)


def draw_scores(drawn: ScoresFacts, facts: Facts, looks: Mapping[str, Look]) -> go.Figure:
    """Dots by configuration, hollow for a twin, with the mean as bar and figure; thin lines join equal seeds."""
    unit, places = facts.unit, list(range(len(drawn.columns)))
    x = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [f"{column.label}<br>{unit.value(column.mean, 2)}" for column in drawn.columns],
        "tickangle": 0,
        "range": [-0.5, len(places) - 0.5],
        "showgrid": False,
    }
    offsets = _offsets(drawn.columns)
    plot = figure("Confirmed scores, seed by seed", x=x, y=score_axis(facts.metric, unit, where=facts.split))
    for line in drawn.joined:
        ys = [value * unit.factor for _, value in line]
        plot.add_scatter(
            x=[place for place, _ in line], y=ys, mode="lines", line={"color": FAINT, "width": 1}, hoverinfo="skip"
        )
    for place, column in enumerate(drawn.columns):
        look = looks[column.arm]
        texts = [f"{column.label}<br>seed {seed}: {unit.value(value, 2)}" for seed, value in column.by_seed.items()]
        marker = {"color": look.colour, "size": 10, "symbol": look.symbol + ("-open" if column.twin else "")}
        xs = [place + offsets[seed] for seed in column.by_seed]
        ys = [value * unit.factor for value in column.by_seed.values()]
        plot.add_scatter(x=xs, y=ys, mode="markers", marker=marker, hovertext=texts, hoverinfo="text")
        mean = column.mean * unit.factor
        bar = {"color": look.colour, "width": 3}
        plot.add_scatter(x=[place - 0.2, place + 0.2], y=[mean, mean], mode="lines", line=bar, hoverinfo="skip")
    return plot.update_layout(showlegend=False, margin_t=40)


def difference_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Every comparison of the study, then every twin."""
    return (*map(_comparison_row, facts.comparisons), *map(_twin_row, facts.twins))


def _comparison_row(made: Comparison) -> DifferenceRow:
    arm, against = safe(made.arm), safe(made.against)
    if made.what == "arm":
        label = f"arm {arm} − arm {against}<br>{made.n} blocks of search"
    else:
        label = f"{arm} − {against}<br>{made.n} seeds"
    return DifferenceRow(label, made.arm, made.difference, made.interval, made.n, made.verdict)


def _twin_row(twin: Twin) -> DifferenceRow:
    label = f"{safe(twin.arm)} − its twin<br>{twin.n} seeds"
    return DifferenceRow(label, twin.arm, twin.difference, twin.interval, twin.n, twin.verdict)


def draw_differences(rows: tuple[DifferenceRow, ...], facts: Facts, looks: Mapping[str, Look]) -> go.Figure:
    """A dot and an interval a comparison, above a band where differences count as equivalent."""
    unit = facts.unit
    title = f"Difference, {unit.difference_suffix.strip() or facts.metric}"
    ticks = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": [row.label for row in rows]}
    y = ticks | {"range": [len(rows) - 0.5, -0.5], "showgrid": False}
    plot = figure(
        f"Differences in {facts.metric} with {100 * facts.confidence:g}% intervals",
        x={"title": {"text": safe(title)}, "zeroline": True, "zerolinecolor": FAINT, "zerolinewidth": 2},
        y=y,
        height=130 + 60 * len(rows),
    )
    margin = facts.margin * unit.factor
    plot.add_vrect(x0=-margin, x1=margin, fillcolor=FAINT, opacity=0.4, line_width=0, layer="below")
    for place, row in enumerate(rows):
        look, middle = looks[row.arm], row.difference * unit.factor
        low, high = (bound * unit.factor for bound in row.interval or (row.difference, row.difference))
        text = f"{row.label}<br>{unit.difference(row.difference, 2)}: {row.verdict}"
        plot.add_scatter(
            x=[middle],
            y=[place],
            mode="markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 11},
            error_x={
                "type": "data",
                "array": [high - middle],
                "arrayminus": [middle - low],
                "width": 6,
                "thickness": 2,
            },
            hovertext=[text],
            hoverinfo="text",
        )
    return plot.update_layout(showlegend=False, margin_t=40)


def importance_facts(facts: Facts) -> ImportanceFacts | None:
    """None where nothing was searched."""
    marks = tuple(
        ImportanceMark(parameter, arm, found)
        for arm, parameters in facts.importance.items()
        for parameter, found in parameters.items()
    )
    if not marks:
        return None
    top: dict[str, float] = {}
    for mark in marks:
        top[mark.parameter] = max(top.get(mark.parameter, 0.0), mark.found.value)
    parameters = tuple(sorted(top, key=lambda parameter: -top[parameter]))
    return ImportanceFacts(parameters, tuple(dict.fromkeys(mark.arm for mark in marks)), marks)


def draw_importance(drawn: ImportanceFacts, looks: Mapping[str, Look]) -> go.Figure:
    """Parameters in rows, arms beside each other; grey is what chance gives, a filled mark lies beyond it.

    The axis is that of square roots: beside a dominant parameter the others would be a smear at zero.
    """
    shares = (0.0, 0.05, 0.25, 1.0)
    x = {
        "title": {"text": "Share explained"},
        "tickmode": "array",
        "tickvals": [share**0.5 for share in shares],
        "ticktext": [f"{share:.0%}" for share in shares],
        "range": [-0.02, 1.02],
    }
    rows = list(range(len(drawn.parameters)))
    y = {
        "tickmode": "array",
        "tickvals": rows,
        "ticktext": [safe(parameter) for parameter in drawn.parameters],
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    height = 150 + len(rows) * (24 + 20 * len(drawn.arms))
    plot = figure("Importance of each parameter", x=x, y=y, height=height)
    for arm in drawn.arms:
        _draw_arm(plot, drawn, arm, looks[arm])
    return plot


def _draw_arm(plot: go.Figure, drawn: ImportanceFacts, arm: str, look: Look) -> None:
    offset = (drawn.arms.index(arm) - (len(drawn.arms) - 1) / 2) * 0.7 / len(drawn.arms)
    known = []
    for mark in drawn.marks:
        place = drawn.parameters.index(mark.parameter) + offset
        if mark.arm == arm and mark.found.verdict == "too little evidence":
            text = f"{safe(arm)}: too little evidence"
            plot.add_annotation(x=0, y=place, text=text, showarrow=False, xanchor="left", font={"color": look.colour})
        elif mark.arm == arm:
            known.append((place, mark))
    for place, mark in known:
        ends = [bound**0.5 for bound in mark.found.null]
        band = {"color": FAINT, "width": 12}
        plot.add_scatter(x=ends, y=[place] * 2, mode="lines", line=band, hoverinfo="skip", showlegend=False)
    _draw_marks(plot, arm, known, look)


def _draw_marks(plot: go.Figure, arm: str, known: list[tuple[float, ImportanceMark]], look: Look) -> None:
    marker = {"color": look.colour, "size": 10}
    # The legend's own entry: plotly would show whatever mark comes first.
    plot.add_scatter(x=[None], y=[None], name=safe(arm), mode="markers", marker=marker | {"symbol": look.symbol})
    found = [mark.found for _, mark in known]
    symbols = [look.symbol if one.verdict == "matters" else look.symbol + "-open" for one in found]
    plot.add_scatter(
        x=[one.value**0.5 for one in found],
        y=[place for place, _ in known],
        showlegend=False,
        mode="markers",
        marker=marker | {"symbol": symbols},
        error_x={
            "type": "data",
            "array": [one.interval[1] ** 0.5 - one.value**0.5 for one in found],
            "arrayminus": [one.value**0.5 - one.interval[0] ** 0.5 for one in found],
            "width": 4,
            "thickness": 2,
            "color": look.colour,
        },
        hovertext=[_importance_text(mark) for _, mark in known],
        hoverinfo="text",
    )


def _importance_text(mark: ImportanceMark) -> str:
    found = mark.found
    return (
        f"{safe(mark.parameter)} in {safe(mark.arm)}: {found.value:.1%}<br>"
        f"95% interval {found.interval[0]:.1%} to {found.interval[1]:.1%}<br>"
        f"by chance up to {found.null[1]:.1%}<br>{found.verdict}, {found.trials} trials"
    )
