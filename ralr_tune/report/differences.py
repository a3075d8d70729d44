"""The figure of differences: each configuration with and without amplification, then each arm against the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.comparison import Comparison, Interval, Verdict, deciding_level
from ralr_tune.analysis.facts import Facts, Twin
from ralr_tune.analysis.power import tells
from ralr_tune.analysis.twins import Amplified
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, Names, Reference, draw_intervals
from ralr_tune.report.style import ArmStyle, safe
from ralr_tune.report.words import intervals

AMPLIFICATION = ("amplification off", "amplification added")
MAX_NAMED = 3  # comparisons that a title names
MAX_TICKS = 6  # on a phone and on paper, labels leave little room


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
    verdict: Verdict
    p_value: float | None
    visible: float | None = None
    """Smallest true difference that these pairs detect in four of five studies (80% power); None if unknown."""
    equivalence: Interval | None = None
    """It lies within the margin exactly if the verdict is "equivalent"."""
    deciding: Interval | None = None
    """The interval that gives the verdict, as on the card."""

    @property
    def judged(self) -> bool:
        """Whether its intervals are drawn."""
        return tells(self.n, self.verdict)


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
    return DifferenceRow(made.what, made.arm, made.against, label, *_figures(made, visible))


def _figures(made: Comparison | Twin | Amplified, visible: float | None = None) -> tuple[Any, ...]:
    """The fields of a row from the difference on."""
    intervals = (made.equivalence_interval, made.deciding)
    return (made.difference, made.interval, made.n, made.verdict, made.p_value, visible, *intervals)


def twin_rows(facts: Facts) -> tuple[DifferenceRow, ...]:
    """Amplification removed from configurations that have it, then added to those that do not."""
    return (*map(_twin_row, facts.twins), *map(_amplified_row, facts.amplified))


def _twin_row(twin: Twin) -> DifferenceRow:
    arm = safe(twin.arm)
    label = f"{arm} − its twin<br>{twin.n} seeds"
    return DifferenceRow("amplification off", twin.arm, twin.arm, label, *_figures(twin))


def _amplified_row(added: Amplified) -> DifferenceRow:
    arm = safe(added.arm)
    label = f"{arm} amplified<br>as {safe(added.donor)}, {added.n} seeds"
    return DifferenceRow("amplification added", added.arm, added.arm, label, *_figures(added))


def draw_differences(rows: Sequence[DifferenceRow], facts: Facts, arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """A dot and its intervals for each comparison, on top of the equivalence band."""
    unit, margin = facts.unit, facts.margin * facts.unit.factor
    title = safe(f"Difference, {unit.difference_suffix.strip() or facts.metric.words}")
    axis = {"title": {"text": title}, "tickangle": 0, "nticks": MAX_TICKS}
    shown = [_interval_row(row, facts) for row in rows]
    band = (-margin, margin) if margin else None
    return draw_intervals(shown, arm_styles, _titles(rows, facts), axis, Reference(0.0, band, _names(rows, facts)))


def _names(rows: Sequence[DifferenceRow], facts: Facts) -> Names:
    """As on the card."""
    deciding = [deciding_level(row.verdict, facts.confidence) for row in rows if row.judged]
    thick, thin = intervals(deciding, facts.confidence)
    return Names(
        thin,
        thick,
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
    label = f"{row.label}<br>{_verdict(row)}"
    text = f"{row.label}<br>{facts.unit.difference(row.difference, 2)}: {_verdict(row)}"
    other = None if row.interval == row.deciding else row.interval
    return IntervalRow(label, row.arm, row.difference * factor, shown(other), text, shown(seen), shown(row.deciding))


def differences_data(rows: Sequence[DifferenceRow], facts: Facts) -> Data:
    """One row for each comparison; the interval has the study's confidence level."""
    columns = (
        "what", "arm", "against", metric_column(facts, facts.split, "difference"), "interval_low", "interval_high",
        "confidence", "pairs", "p_value", "verdict", "visible_difference", "equivalence_low", "equivalence_high",
        "deciding_low", "deciding_high",
    )  # fmt: skip
    cells = [
        (
            row.what, row.arm, row.against, row.difference, *bounds(row.interval), facts.confidence, row.n, row.p_value,
            row.verdict, row.visible, *bounds(row.equivalence), *bounds(row.deciding),
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
