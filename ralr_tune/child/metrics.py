"""Metrics that a trial reports besides the study's: shown, never judged.

At most MAX_POINTS of each are kept for a trial, evenly spaced (our choice): when there are more, every second one is
dropped, and from then on only every second new one is kept. The last one is always kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ralr_tune.records import MetricAxis, MetricSeries

MAX_POINTS = 50
MAX_SERIES = 40
"""Different metrics of one trial; further ones are ignored."""


METRICS_BYTES = MAX_SERIES * (MAX_POINTS * 60 + 400)
"""Maximum length of `as_json` as text."""

Point = tuple[int, float | None]
"""An epoch or a step, and the value there; None if it is not finite."""


class OtherMetrics:
    """The metrics of one trial."""

    def __init__(self, stored: Sequence[Any] = ()) -> None:
        """`stored`: what `as_json` returned. Raises TypeError or ValueError if it is something else."""
        self._series = {(entry["name"], entry["axis"]): _Series(**entry) for entry in stored}

    def add(self, axis: MetricAxis, position: int, metrics: Mapping[str, float]) -> None:
        """The values at an epoch or a step; those at a later position, from before a resume, are dropped."""
        for name, value in metrics.items():
            if (name, axis) in self._series or len(self._series) < MAX_SERIES:
                series = self._series.setdefault((name, axis), _Series(name, axis))
                series.add((position, value if math.isfinite(value) else None))

    def series(self) -> list[MetricSeries]:
        """All of them, by name."""
        return [one.kept() for _, one in sorted(self._series.items())]

    def as_json(self) -> list[dict[str, Any]]:
        """In the form in which they are stored with a checkpoint."""
        return [asdict(one) for one in self._series.values()]


@dataclass
class _Series:
    """One metric: every `every`-th value, and the last one."""

    name: str
    axis: MetricAxis
    every: int = 1
    seen: int = 0
    points: list[Point] = field(default_factory=list)
    last: Point | None = None
    """The last value, if it is none of the points."""

    def add(self, point: Point) -> None:
        newest = self.last or (self.points[-1] if self.points else None)
        if newest is not None and newest[0] >= point[0]:
            self.points = [each for each in self.points if each[0] < point[0]]
            self.seen = len(self.points) * self.every
        self.last = point
        if self.seen % self.every == 0:
            self.points.append(point)
            self.last = None
        self.seen += 1
        if len(self.points) == MAX_POINTS:
            self.points = self.points[::2]
            self.every *= 2
            self.last = point if self.points[-1] != point else None

    def kept(self) -> MetricSeries:
        points = [*self.points, *([self.last] if self.last else [])]
        return MetricSeries(self.name, self.axis, self.every, tuple((at, value) for at, value in points))
