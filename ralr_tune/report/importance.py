"""The figure of importance: how much each parameter explains, compared with chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import Importance
from ralr_tune.report.data import Data
from ralr_tune.report.style import FAINT, ArmStyle, figure, safe

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 1.0)  # labelled on the axis
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
    """Parameters in rows, arms side by side; grey is what chance gives, a filled mark lies beyond it.

    A square-root axis: next to a dominant parameter, the others would collapse at zero.
    """
    ends = [end for mark in drawn.marks if _known(mark) for end in (mark.found.interval[1], mark.found.null[1])]
    x = {
        "title": {"text": "Share explained"},
        "tickmode": "array",
        "tickvals": [share**0.5 for share in SHARES],
        "ticktext": [f"{share:.0%}" for share in SHARES],
        "tickangle": 0,
        "range": [-0.02, 1.03 * max(0.5, *(end**0.5 for end in ends))],
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
        _draw_arm(plot, drawn, arm, arm_styles[arm])
    return plot


def _draw_arm(plot: go.Figure, drawn: ImportanceFacts, arm: str, style: ArmStyle) -> None:
    offset = (drawn.arms.index(arm) - (len(drawn.arms) - 1) / 2) * 0.7 / len(drawn.arms)
    known = []
    for mark in drawn.marks:
        place = drawn.parameters.index(mark.parameter) + offset
        if mark.arm == arm and not _known(mark):
            text = f"{safe(arm)}: too little evidence"
            plot.add_annotation(x=0, y=place, text=text, showarrow=False, xanchor="left", font={"color": style.colour})
        elif mark.arm == arm:
            known.append((place, mark))
    for place, mark in known:
        ends = [bound**0.5 for bound in mark.found.null]
        band = {"color": FAINT, "width": 12}
        plot.add_scatter(x=ends, y=[place] * 2, mode="lines", line=band, hoverinfo="skip", showlegend=False)
    _draw_marks(plot, arm, known, style)


def _draw_marks(plot: go.Figure, arm: str, known: list[tuple[float, ImportanceMark]], style: ArmStyle) -> None:
    marker = {"color": style.colour, "size": 10}
    # A separate legend entry: plotly would show the first mark.
    plot.add_scatter(x=[None], y=[None], name=safe(arm), mode="markers", marker=marker | {"symbol": style.symbol})
    found = [mark.found for _, mark in known]
    symbols = [style.symbol if one.verdict == "matters" else style.symbol + "-open" for one in found]
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
            "color": style.colour,
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
