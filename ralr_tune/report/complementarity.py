"""The figure of complementarity: the effect of amplification in each row of a 2 x 2 of arms, and their difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.complementarity import Complementarity, Gain
from ralr_tune.analysis.facts import Facts
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, Reference, draw_intervals
from ralr_tune.report.style import ArmStyle, safe


class ChangeRow(NamedTuple):
    """One difference of a 2 x 2, in the metric's own unit."""

    what: str
    """"gain", or "interaction": the other row's gain minus the plain row's."""
    arm: str
    against: str
    label: str
    """As markup that is safe to show."""
    difference: float
    interval: Interval | None
    n: int
    verdict: str


def change_rows(facts: Facts) -> tuple[ChangeRow, ...]:
    """Three for each 2 x 2: both gains, and their difference."""
    return tuple(row for found in facts.complementarity for row in _rows(found))


def _rows(found: Complementarity) -> tuple[ChangeRow, ...]:
    label = f"second minus first<br>{safe(', '.join(found.differs))}"
    interaction = (found.interaction, found.interval, found.n, found.verdict)
    return (
        _gain(found.plain, found.n),
        _gain(found.other, found.n),
        ChangeRow("interaction", found.other.arm, found.plain.arm, label, *interaction),
    )


def _gain(gain: Gain, n: int) -> ChangeRow:
    label = f"{safe(gain.arm)} − {safe(gain.against)}<br>{n} seeds"
    return ChangeRow("gain", gain.arm, gain.against, label, gain.difference, gain.interval, n, "")


def draw_complementarity(rows: tuple[ChangeRow, ...], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """Rows of three, above a band where a difference counts as none."""
    unit, margin = facts.unit, facts.margin * facts.unit.factor
    x = {"title": {"text": safe(f"Change by amplification, {unit.difference_suffix.strip() or facts.metric.words}")}}
    verdicts = [f"with {', '.join(found.differs)}, {found.verdict}" for found in facts.complementarity]
    titles = f"Amplification {'; '.join(verdicts)}", "Does amplification add to the other changes?"
    shown = [_interval_row(row, facts) for row in rows]
    return draw_intervals(shown, arm_styles, titles, x, Reference(0.0, (-margin, margin)))


def _interval_row(row: ChangeRow, facts: Facts) -> IntervalRow:
    factor = facts.unit.factor
    interval = (row.interval[0] * factor, row.interval[1] * factor) if row.interval else None
    verdict = f": {row.verdict}" if row.verdict else ""
    text = f"{row.label}<br>{facts.unit.difference(row.difference, 2)}{verdict}"
    return IntervalRow(row.label, row.arm, row.difference * factor, interval, text)


def complementarity_data(rows: tuple[ChangeRow, ...], facts: Facts) -> Data:
    """One row for each difference."""
    columns = (
        "what", "arm", "against", metric_column(facts, facts.split, "difference"), "interval_low", "interval_high",
        "pairs", "verdict",
    )  # fmt: skip
    cells = [
        (row.what, row.arm, row.against, row.difference, *bounds(row.interval), row.n, row.verdict) for row in rows
    ]
    return Data("complementarity", columns, cells)


def complementarity_alt(rows: tuple[ChangeRow, ...], facts: Facts) -> str:
    """Every difference."""
    parts = [
        f"{row.arm} minus {row.against} {facts.unit.difference(row.difference, 2)}"
        if row.what == "gain"
        else f"the second minus the first {facts.unit.difference(row.difference, 2)}, {row.verdict}"
        for row in rows
    ]
    return f"{'; '.join(parts)}."
