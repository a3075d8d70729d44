"""The figure of audited prunings: the share of wrong ones in each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.pruning import PruningAudit
from ralr_tune.report.data import Data, bounds, metric_column
from ralr_tune.report.intervals import IntervalRow, draw_intervals
from ralr_tune.report.style import ArmStyle, safe


def rated(facts: Facts) -> tuple[PruningAudit, ...]:
    """The audits that are large enough to estimate a rate."""
    return tuple(audit for audit in facts.pruning if audit.rate is not None)


def draw_pruning(audits: Sequence[PruningAudit], arm_styles: Mapping[str, ArmStyle]) -> go.Figure:
    """A dot and an interval for each arm."""
    x = {"title": {"text": "Wrong, of the audited prunings"}, "range": [-2, 102], "ticksuffix": "%"}
    counts = ", ".join(f"{audit.wrong} of {audit.audited} in {audit.arm}" for audit in audits)
    titles = f"Wrong prunings: {counts}", "Did pruning stop good trials?"
    return draw_intervals([_row(audit) for audit in audits], arm_styles, titles, x)


def _row(audit: PruningAudit) -> IntervalRow:
    arm, rate = safe(audit.arm), 100 * (audit.rate or 0.0)
    interval = (100 * audit.interval[0], 100 * audit.interval[1]) if audit.interval else None
    text = f"{arm}: {audit.wrong} of {audit.audited} ({rate:.0f}%)"
    return IntervalRow(f"{arm}<br>{audit.audited} audited", audit.arm, rate, interval, text)


def pruning_data(facts: Facts) -> Data:
    """Every audit, including those without a rate."""
    columns = (
        "arm", "audited", "wrong", "wrong_share", "interval_low", "interval_high", "better_than_best_kept",
        metric_column(facts, "best_lost"), "median_epoch_of_pruning", "epochs_spared_each",
        "wrong_after_an_amplified_end",
    )  # fmt: skip
    rows = [
        (
            audit.arm, audit.audited, audit.wrong, audit.rate, *bounds(audit.interval), audit.lost_best, audit.cost,
            audit.epoch, audit.spared, audit.ended_amplified,
        )
        for audit in facts.pruning
    ]  # fmt: skip
    return Data("pruning", columns, rows)


def pruning_alt(audits: Sequence[PruningAudit]) -> str:
    """Every rate."""
    rates = [f"{audit.arm} {audit.wrong} of {audit.audited} ({audit.rate or 0:.0%})" for audit in audits]
    return f"Wrong prunings among the audited ones: {', '.join(rates)}."
