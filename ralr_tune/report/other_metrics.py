"""Metrics that trials measured besides the study's: shown, never judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.importance import thinned
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, MetricAxis, MetricSeries, StudyRecord
from ralr_tune.report.data import Data
from ralr_tune.report.style import ArmStyle, figure, safe, writable

MAX_LINES = 40
"""Trials of one arm in a figure; more cannot be distinguished."""


class OtherMetric(NamedTuple):
    """One metric: by arm, its values in every search trial that reported it."""

    name: str
    axis: MetricAxis
    arms: Mapping[str, Sequence[tuple[int, MetricSeries]]]
    """Optuna's trial numbers with their values."""

    @property
    def every(self) -> int:
        """The coarsest of all series: every how many-th value is kept."""
        return max(series.every for found in self.arms.values() for _, series in found)


def other_metrics(record: StudyRecord) -> list[OtherMetric]:
    """All of them, by name."""
    names = sorted({(one.name, one.axis) for arm in record.arms.values() for row in arm.rows for one in row.metrics})
    found = (OtherMetric(name, axis, _by_arm(record.arms, name, axis)) for name, axis in names)
    return [each for each in found if any(each.arms.values())]


def _by_arm(arms: Mapping[str, ArmRecord], name: str, axis: MetricAxis) -> dict[str, list[tuple[int, MetricSeries]]]:
    return {
        arm: [
            (row.ordinal if row.trial is None else row.trial, one)
            for row in record.search()
            for one in row.metrics
            if (one.name, one.axis) == (name, axis)
        ]
        for arm, record in arms.items()
    }


def draw_other_metric(drawn: OtherMetric, styles: Mapping[str, ArmStyle]) -> go.Figure:
    """A line for each search trial, in the colour of its arm."""
    what = "epoch" if drawn.axis == "epoch" else "step"
    plot = figure(
        f"{safe(drawn.name)} in {sum(map(len, drawn.arms.values()))} search trials",
        f"What else was reported, by {what}?",
        x={"title": {"text": what.capitalize()}},
        y={"title": {"text": safe(drawn.name)}},
    )
    for arm, found in drawn.arms.items():
        shown = thinned(tuple(found), MAX_LINES)
        plot.add_scatter(
            x=[x for _, one in shown for x in (*(at for at, _ in one.points), None)],
            y=[y for _, one in shown for y in (*(value for _, value in one.points), None)],
            customdata=[trial for trial, one in shown for _ in (*one.points, None)],
            mode="lines+markers" if all(len(one.points) == 1 for _, one in shown) else "lines",
            name=writable(arm),
            line={"color": styles[arm].colour, "width": 1.5},
            hovertemplate=f"trial %{{customdata}}, {what} %{{x}}: %{{y:.4g}}<extra>{safe(arm)}</extra>",
        )
    return plot


def other_metric_alt(drawn: OtherMetric) -> str:
    """How many trials of each arm, and their range at the end."""
    ends = {arm: [one.points[-1][1] for _, one in found if one.points] for arm, found in drawn.arms.items()}
    known = {arm: [value for value in values if value is not None] for arm, values in ends.items()}
    parts = [
        f"{arm} ends between {min(values):.4g} and {max(values):.4g} in {len(values)} trials"
        for arm, values in known.items()
        if values
    ]
    return f"{drawn.name} by {drawn.axis}: {'; '.join(parts) or 'no finite value'}."


def other_metric_data(drawn: OtherMetric) -> Data:
    """Every value that is kept."""
    rows = [
        (arm, trial, at, value) for arm, found in drawn.arms.items() for trial, one in found for at, value in one.points
    ]
    return Data(f"metric-{drawn.name}-{drawn.axis}", ("arm", "trial", drawn.axis, drawn.name), rows)


def other_metrics_note(found: Sequence[OtherMetric], seen: Metric | None = None) -> str:
    """That they are not judged, and which values are kept; `seen`: the one that the pruner saw."""
    coarse = [f"{each.name}: every {each.every}th" for each in found if each.every > 1]
    kept = f" At most 50 values of a trial are kept ({', '.join(coarse)}, and the last one)." if coarse else ""
    depends = "no verdict and no pruning depends" if seen is None else "no verdict depends"
    pruned = "" if seen is None else f", and the pruner sees {seen.name} alone"
    return f"Measured besides the study's metric, for information: {depends} on them{pruned}.{kept}"
