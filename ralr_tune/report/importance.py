"""The figure of importance: how much each parameter explains, compared with chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import Importance
from ralr_tune.report.data import Data
from ralr_tune.report.style import FAINT, GREY, ArmStyle, figure, safe

BAR = 0.5  # thickness of a bar, of the room for one arm
UNKNOWN = "too little evidence"


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


def _known(mark: ImportanceMark) -> bool:
    return mark.found.verdict != UNKNOWN


def importance_facts(facts: Facts) -> ImportanceFacts | None:
    """None when nothing was searched, or no importance can be estimated."""
    marks = tuple(
        ImportanceMark(parameter, arm, found)
        for arm, parameters in facts.importance.items()
        for parameter, found in parameters.items()
    )
    if not any(map(_known, marks)):
        return None
    top: dict[str, float] = {}
    for mark in marks:
        top[mark.parameter] = max(top.get(mark.parameter, 0.0), mark.found.value)
    parameters = tuple(sorted(top, key=lambda parameter: -top[parameter]))
    return ImportanceFacts(parameters, tuple(dict.fromkeys(mark.arm for mark in marks)), marks)


def draw_importance(drawn: ImportanceFacts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Parameters in rows, arms side by side; a bar is what chance gives, a filled mark lies beyond it and matters.

    Only such a mark has its interval, as far as it lies beyond the bar: the rest would contradict the verdict, which
    compares the value, not the interval, with chance.
    """
    x = {
        "title": {"text": "Share explained"},
        "tickformat": ".0%",
        "tickangle": 0,
        "range": [-0.02, 1.03],
    }
    rows = list(range(len(drawn.parameters)))
    y = {
        "tickmode": "array",
        "tickvals": rows,
        "ticktext": [safe(parameter) for parameter in drawn.parameters],
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    height = 190 + len(rows) * (24 + 20 * len(drawn.arms))
    plot = figure(_finding(drawn), "Which parameters matter, compared with chance?", x=x, y=y, height=height)
    plot.update_layout(barmode="overlay")
    for arm in drawn.arms:
        _draw_arm(plot, drawn, arm, arm_styles[arm])
    return _explain(plot, drawn)


def _finding(drawn: ImportanceFacts) -> str:
    """What matters in each arm; once if it is the same in all."""
    matters = {
        arm: [
            parameter
            for parameter in drawn.parameters
            for mark in drawn.marks
            if (mark.parameter, mark.arm, mark.found.verdict) == (parameter, arm, "matters")
        ]
        for arm in drawn.arms
    }
    if not any(matters.values()):
        return "No parameter is shown to matter"
    first = matters[drawn.arms[0]]
    if all(names == first for names in matters.values()):
        where = " in every arm" if len(drawn.arms) > 1 else ""
        return f"{' and '.join(first)} {'matters' if len(first) == 1 else 'matter'}{where}"
    named = [f"{arm}: {', '.join(names) or 'nothing'}" for arm, names in matters.items()]
    return f"What matters: {'; '.join(named)}"


def _explain(plot: go.Figure, drawn: ImportanceFacts) -> go.Figure:
    """Legend entries for what the bars and the hollow marks mean."""
    hollow = {"symbol": "circle-open", "color": GREY, "size": 10}
    if any(_known(mark) and mark.found.verdict != "matters" for mark in drawn.marks):
        plot.add_scatter(x=[None], y=[None], name="within chance", mode="markers", marker=hollow)
    square = {"symbol": "square", "size": 12, "color": FAINT, "line": {"color": GREY, "width": 1}}
    return plot.add_scatter(x=[None], y=[None], name="range by chance", mode="markers", marker=square)


def _draw_arm(plot: go.Figure, drawn: ImportanceFacts, arm: str, style: ArmStyle) -> None:
    offset = (drawn.arms.index(arm) - (len(drawn.arms) - 1) / 2) * 0.7 / len(drawn.arms)
    known = []
    for mark in drawn.marks:
        place = drawn.parameters.index(mark.parameter) + offset
        if mark.arm == arm and not _known(mark):
            text = f"{safe(arm)}: too little evidence"
            plot.add_annotation(x=0, y=place, text=text, showarrow=False, xanchor="left")
        elif mark.arm == arm:
            known.append((place, mark))
    plot.add_bar(
        x=[mark.found.null[1] for _, mark in known],
        y=[place for place, _ in known],
        width=BAR / len(drawn.arms),
        orientation="h",
        marker={"color": FAINT, "line": {"color": GREY, "width": 1}},
        hoverinfo="skip",
        showlegend=False,
    )
    _draw_marks(plot, arm, known, style)


def _draw_marks(plot: go.Figure, arm: str, known: list[tuple[float, ImportanceMark]], style: ArmStyle) -> None:
    marker = {"color": style.colour, "size": 10}
    # A separate legend entry: plotly would show the first mark.
    plot.add_scatter(x=[None], y=[None], name=safe(arm), mode="markers", marker=marker | {"symbol": style.symbol})
    for matters, symbol in ((True, style.symbol), (False, style.symbol + "-open")):
        own = [(place, mark) for place, mark in known if (mark.found.verdict == "matters") == matters]
        found = [mark.found for _, mark in own]
        plot.add_scatter(
            x=[one.value for one in found],
            y=[place for place, _ in own],
            showlegend=False,
            mode="markers",
            marker=marker | {"symbol": symbol},
            error_x=_error_bars(found, style) if matters else None,
            hovertext=[_importance_text(mark) for _, mark in own],
            hoverinfo="text",
        )


def _error_bars(found: Sequence[Importance], style: ArmStyle) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [one.interval[1] - one.value for one in found],
        "arrayminus": [one.value - max(one.interval[0], one.null[1]) for one in found],
        "width": 4,
        "thickness": 2,
        "color": style.colour,
    }


def _importance_text(mark: ImportanceMark) -> str:
    found = mark.found
    return (
        f"{safe(mark.parameter)} in {safe(mark.arm)}: {found.value:.1%}<br>"
        f"95% interval {found.interval[0]:.1%} to {found.interval[1]:.1%}<br>"
        f"by chance up to {found.null[1]:.1%}<br>{found.verdict}, {found.trials} trials"
    )


def importance_data(drawn: ImportanceFacts) -> Data:
    """One row for each mark; a parameter without an estimate has no numbers."""
    columns = (
        "arm", "parameter", "share_explained", "interval_low", "interval_high", "chance_low", "chance_high", "verdict",
        "trials", "compared_at_epoch",
    )  # fmt: skip
    rows = []
    for arm, parameter, found in ((mark.arm, mark.parameter, mark.found) for mark in drawn.marks):
        known = (found.value, *found.interval, *found.null)
        shown = known if found.verdict != UNKNOWN else (None,) * len(known)
        rows.append((arm, parameter, *shown, found.verdict, found.trials, found.epoch))
    return Data("importance", columns, rows)


def importance_alt(drawn: ImportanceFacts) -> str:
    """The strongest first."""
    marks = sorted(drawn.marks, key=lambda mark: drawn.parameters.index(mark.parameter))
    return (
        f"Share explained: {'; '.join(f'{mark.parameter} in {mark.arm} {_described(mark.found)}' for mark in marks)}."
    )


def _described(found: Importance) -> str:
    known = "" if found.verdict == UNKNOWN else f"{found.value:.0%}, "
    return known + found.verdict
