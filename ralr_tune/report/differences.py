"""Figures of differences: each arm against the baseline, and each configuration with and without amplification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Comparison, Interval
from ralr_tune.analysis.facts import Facts, Twin
from ralr_tune.analysis.twins import Amplified
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, draw_intervals
from ralr_tune.report.style import ArmStyle, safe


class DifferenceRow(NamedTuple):
    """One comparison."""

    what: str
    """"configuration" or "arm"; of the same configuration: "amplification off" or "amplification added"."""
    arm: str
    """The reference of the difference."""
    against: str
    label: str
    """As markup that is safe to show."""
    difference: float
    interval: Interval | None
    n: int
    verdict: str
    p_value: float | None
    visible: float | None = None
    """Smallest true difference that these pairs detect in four of five studies (80% power); None if unknown."""
    deciding: Interval | None = None
    """The interval that gives the verdict, if it is not `interval`: drawn thick on top of it."""


def comparison_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Every comparison of the study."""
    reach = {(each.what, each.arm): each.visible for each in facts.reach}
    return tuple(_comparison_row(made, reach.get((made.what, made.arm))) for made in facts.comparisons)


def _comparison_row(made: Comparison, visible: float | None) -> DifferenceRow:
    arm, against = safe(made.arm), safe(made.against)
    if made.what == "arm":
        label = f"arm {arm} − arm {against}<br>{made.n} blocks of search"
    else:
        label = f"{arm} − {against}<br>{made.n} seeds"
    figures = (made.difference, made.interval, made.n, made.verdict, made.p_value, visible, _other(made))
    return DifferenceRow(made.what, made.arm, made.against, label, *figures)


def twin_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Amplification removed from configurations that have it, then added to those that do not."""
    return (*map(_twin_row, facts.twins), *map(_amplified_row, facts.amplified))


def _twin_row(twin: Twin) -> DifferenceRow:
    arm = safe(twin.arm)
    label = f"{arm} − its twin<br>{twin.n} seeds"
    figures = (twin.difference, twin.interval, twin.n, twin.verdict, twin.p_value, None, _other(twin))
    return DifferenceRow("amplification off", twin.arm, twin.arm, label, *figures)


def _amplified_row(added: Amplified) -> DifferenceRow:
    arm = safe(added.arm)
    label = f"{arm} amplified<br>as {safe(added.donor)}, {added.n} seeds"
    figures = (added.difference, added.interval, added.n, added.verdict, added.p_value, None, _other(added))
    return DifferenceRow("amplification added", added.arm, added.arm, label, *figures)


def _other(made: Comparison | Twin | Amplified) -> Interval | None:
    return made.deciding if made.deciding != made.interval else None


def draw_differences(
    rows: Sequence[DifferenceRow], facts: Facts, arm_styles: Mapping[str, ArmStyle], title: str
) -> go.Figure:
    """A dot and an interval for each comparison, on top of the equivalence band."""
    unit, margin = facts.unit, facts.margin * facts.unit.factor
    axis = {"title": {"text": safe(f"Difference, {unit.difference_suffix.strip() or facts.metric.name}")}}
    shown = [_interval_row(row, facts) for row in rows]
    return draw_intervals(shown, arm_styles, title, axis, zero=0.0, band=(-margin, margin))


def _interval_row(row: DifferenceRow, facts: Facts) -> IntervalRow:
    factor = facts.unit.factor
    seen = None if row.visible is None else (-row.visible * factor, row.visible * factor)
    interval = (row.interval[0] * factor, row.interval[1] * factor) if row.interval else None
    deciding = (row.deciding[0] * factor, row.deciding[1] * factor) if row.deciding else None
    text = f"{row.label}<br>{facts.unit.difference(row.difference, 2)}: {row.verdict}"
    return IntervalRow(row.label, row.arm, row.difference * factor, interval, text, seen, deciding)


def differences_data(name: str, rows: Sequence[DifferenceRow], facts: Facts) -> Data:
    """One row for each comparison; the interval has the study's confidence level."""
    columns = (
        "what", "arm", "against", metric_column(facts, facts.split, "difference"), "interval_low", "interval_high",
        "confidence", "pairs", "p_value", "verdict", "visible_difference",
    )  # fmt: skip
    cells = [
        (
            row.what, row.arm, row.against, row.difference, *bounds(row.interval), facts.confidence, row.n, row.p_value,
            row.verdict, row.visible,
        )
        for row in rows
    ]  # fmt: skip
    return Data(name, columns, cells)


def differences_alt(rows: Sequence[DifferenceRow], facts: Facts) -> str:
    """Every comparison."""
    found = [f"{_named(row)} {facts.unit.difference(row.difference, 2)}, {row.verdict}" for row in rows]
    return f"{'; '.join(found)}."


def _named(row: DifferenceRow) -> str:
    if row.what == "amplification off":
        return f"{row.arm} minus itself without amplification:"
    if row.what == "amplification added":
        return f"{row.arm} with amplification added minus itself:"
    arms = "arm against arm, " if row.what == "arm" else ""
    return f"{arms}{row.arm} minus {row.against}:"
