"""The contract of a tracker: where the runs of a study are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ralr_tune.mirror.runs import Point, TrackedRun, TrackedStudy


@dataclass
class Sent:
    """What a tracker has of one run."""

    steps: dict[str, int] = field(default_factory=dict)
    """The last step of each metric; all earlier ones are there, too."""
    outcome: str | None = None

    def lacks(self, run: TrackedRun) -> list[Point]:
        """The points that the tracker does not have."""
        return [point for point in run.points if point.step > self.steps.get(point.metric, -1)]

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Note that these points of a run, and its outcome, are there now."""
        for point in points:
            self.steps[point.metric] = max(point.step, self.steps.get(point.metric, -1))
        self.outcome = run.outcome


class Tracker(ABC):
    """Any method may raise any exception if the tracker is away or full: the caller tries again later."""

    kind: ClassVar[str]
    """The name in `--to`."""

    def __init__(self, study: TrackedStudy) -> None:
        self.study = study
        self.is_new = False
        """Whether it surely has nothing of the study: what a mirror remembers of an earlier one is then wrong."""
        self._sent: dict[str, Sent] = {}

    def update(self, run: TrackedRun) -> None:
        """Bring the run up to date; when this returns, the tracker has all of it. May be called again at any time."""
        sent = self._sent.pop(run.name, None)  # if anything fails, the tracker is asked again what it has
        sent = self.sent(run) if sent is None else sent
        points = sent.lacks(run)
        if points or sent.outcome != run.outcome:
            self.send(run, points)
        if run.outcome is None:
            sent.add(run, points)
            self._sent[run.name] = sent

    def open(self) -> None:  # noqa: B027  # most trackers need none
        """Connect. Raises UsageError if the place cannot be used."""

    @abstractmethod
    def sent(self, run: TrackedRun) -> Sent:
        """What the tracker itself says it has of a run; nothing if it does not know it."""

    @abstractmethod
    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Send new points, and end the run if it has an outcome; returns when the tracker has them."""

    @abstractmethod
    def conclude(self, verdict: str, facts: Mapping[str, str]) -> None:
        """Show the verdict, in sentences, unless the tracker has this very text; `facts`: further short texts."""

    def close(self) -> None:  # noqa: B027  # most trackers keep nothing open
        """Close what is open; runs that are not done go on when a mirror starts again."""
