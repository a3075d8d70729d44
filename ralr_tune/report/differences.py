"""The figure of differences: each configuration with and without amplification, then each arm against the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Comparison, Interval
from ralr_tune.analysis.facts import Facts, Twin
from ralr_tune.analysis.power import ENOUGH_PAIRS
from ralr_tune.analysis.twins import Amplified
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, Names, Reference, draw_intervals
from ralr_tune.report.style import ArmStyle, safe

AMPLIFICATION = ("amplification off", "amplification added")
MAX_NAMED = 3  # comparisons that a title names


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
    inner: Interval | None = None
    """It lies within the margin exactly if the verdict is "equivalent"."""

    @property
    def judged(self) -> bool:
        """Whether there are enough pairs for an interval that says something, or there is a verdict."""
        return self.n >= ENOUGH_PAIRS or self.verdict != "inconclusive"


def difference_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Amplification alone first: it is the question; the arms also differ by the luck of their tuning."""
    return (*twin_rows(facts), *comparison_rows(facts))


def comparison_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Every comparison of the study."""
    reach = {(each.what, each.arm): each.visible for each in facts.reach if each.judged}
    return tuple(_comparison_row(made, reach.get((made.what, made.arm))) for made in facts.comparisons)


def _comparison_row(made: Comparison, visible: float | None) -> DifferenceRow:
    arm, against = safe(made.arm), safe(made.against)
    if made.what == "arm":
        label = f"arm {arm} − arm {against}<br>{made.n} blocks"
    else:
        label = f"{arm} − {against}<br>{made.n} seeds"
    figures = (made.difference, made.interval, made.n, made.verdict, made.p_value, visible, made.equivalence_interval)
    return DifferenceRow(made.what, made.arm, made.against, label, *figures)


def twin_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Amplification removed from configurations that have it, then added to those that do not."""
    return (*map(_twin_row, facts.twins), *map(_amplified_row, facts.amplified))


def _twin_row(twin: Twin) -> DifferenceRow:
    arm = safe(twin.arm)
    label = f"{arm} − its twin<br>{twin.n} seeds"
    figures = (twin.difference, twin.interval, twin.n, twin.verdict, twin.p_value, None, twin.equivalence_interval)
    return DifferenceRow("amplification off", twin.arm, twin.arm, label, *figures)


def _amplified_row(added: Amplified) -> DifferenceRow:
    arm = safe(added.arm)
    label = f"{arm} amplified<br>as {safe(added.donor)}, {added.n} seeds"
    inner = added.equivalence_interval
    figures = (added.difference, added.interval, added.n, added.verdict, added.p_value, None, inner)
    return DifferenceRow("amplification added", added.arm, added.arm, label, *figures)


def draw_differences(rows: Sequence[DifferenceRow], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """A dot and its intervals for each comparison, on top of the equivalence band."""
    unit, margin = facts.unit, facts.margin * facts.unit.factor
    axis = {"title": {"text": safe(f"Difference, {unit.difference_suffix.strip() or facts.metric.name}")}}
    shown = [_interval_row(row, facts) for row in rows]
    band = (-margin, margin) if margin else None
    return draw_intervals(shown, arm_styles, _titles(rows, facts), axis, Reference(0.0, band, _names(facts)))


def _names(facts: Facts) -> Names:
    return Names(
        f"{100 * facts.confidence:g}% interval: without 0, better or worse",
        f"{100 * (2 * facts.confidence - 1):g}% interval: within the margin, equivalent",
        "smaller differences may be missed",
        "margin",
    )


def _titles(rows: Sequence[DifferenceRow], facts: Facts) -> tuple[str, str]:
    """The finding, about amplification alone if that was tested, and the question."""
    alone = [row for row in rows if row.what in AMPLIFICATION]
    what = "Amplification alone" if alone else f"Against {facts.baseline}"
    question = "What does amplification change by itself, and how do the arms compare?"
    return f"{what}: {_found(alone or rows, facts)}", question if alone else "How do the arms compare?"


def _found(rows: Sequence[DifferenceRow], facts: Facts) -> str:
    if len(rows) <= MAX_NAMED:
        return "; ".join(f"{row.arm} {facts.unit.difference(row.difference, 2)}, {_verdict(row)}" for row in rows)
    counts = Counter(row.verdict for row in rows)
    return f"{', '.join(f'{verdict} in {count}' for verdict, count in counts.items())} of {len(rows)} comparisons"


def _verdict(row: DifferenceRow) -> str:
    return row.verdict if row.judged else "too few to judge"


def _interval_row(row: DifferenceRow, facts: Facts) -> IntervalRow:
    """Without an interval if it would only say that the pairs are too few, and squeeze all other rows."""
    factor = facts.unit.factor

    def shown(interval: Interval | None) -> Interval | None:
        return (interval[0] * factor, interval[1] * factor) if interval and row.judged else None

    seen = None if row.visible is None else (-row.visible, row.visible)
    label = f"{row.label}: {_verdict(row)}"
    text = f"{row.label}<br>{facts.unit.difference(row.difference, 2)}: {_verdict(row)}"
    return IntervalRow(
        label, row.arm, row.difference * factor, shown(row.interval), text, shown(seen), shown(row.inner)
    )


def differences_data(rows: Sequence[DifferenceRow], facts: Facts) -> Data:
    """One row for each comparison; the interval has the study's confidence level."""
    columns = (
        "what", "arm", "against", metric_column(facts, facts.split, "difference"), "interval_low", "interval_high",
        "confidence", "pairs", "p_value", "verdict", "visible_difference", "equivalence_low", "equivalence_high",
    )  # fmt: skip
    cells = [
        (
            row.what, row.arm, row.against, row.difference, *bounds(row.interval), facts.confidence, row.n, row.p_value,
            row.verdict, row.visible, *bounds(row.inner),
        )
        for row in rows
    ]  # fmt: skip
    return Data("differences", columns, cells)


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
