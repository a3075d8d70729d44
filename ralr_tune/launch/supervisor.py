"""Waiting for workers until a study is done: those that a launcher starts, or those that the user starts elsewhere."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ralr_tune.errors import Interrupted, TrialError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job, Launcher
from ralr_tune.launch.signals import Requests, handling
from ralr_tune.search.stages import advance
from ralr_tune.store import incidents
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec

log = logging.getLogger(__name__)

ELSEWHERE_S = 2.0
"""Seconds between two checks of a study whose workers run elsewhere."""
STOP_S = 60.0
"""Seconds that workers get to write down what they have."""
MAX_RESTARTS = 10
"""Restarts for each worker while no epoch is finished in between."""

Tick = Callable[[], None]
"""Called a few times a second, and once at the end."""


@dataclass
class Supervisor:
    """Starts workers, restarts those that were ended from outside, stops all when one gives up or time is up."""

    launcher: Launcher
    job: Job
    places: list[Place]
    ledger: Ledger
    _restarts: int = 0
    _moved: tuple[int, int] = (0, 0)

    def wait(self, hours: float | None, tick: Tick) -> None:
        """Until all workers are done, or for so many hours.

        Raises TrialError when a worker gives up or none of them gets anywhere, Interrupted when asked to stop.
        """
        deadline = _deadline(hours)
        with signals_as_interrupt():
            try:
                for place in self.places:
                    self.launcher.start(self.job, place)
                while self._working() and time.monotonic() < deadline:
                    tick()
                    time.sleep(self.launcher.poll_s)
                tick()
            except KeyboardInterrupt:
                raise Interrupted("interrupted; everything is kept, and the same command goes on from here") from None
            finally:
                self.launcher.stop(STOP_S)

    def _working(self) -> bool:
        codes = self.launcher.poll()
        at_work = [self._works(place, codes[place.index]) for place in self.places]
        return any(at_work)

    def _works(self, place: Place, code: int | None) -> bool:
        """Whether the worker of a place is at work; one that was ended from outside is started again, and is."""
        if code is None:
            return True
        ending = self.launcher.ending(code)
        if ending is Ending.done:
            return False
        if ending is Ending.gave_up or self._restarted() > MAX_RESTARTS * len(self.places):
            raise self._reason(place, code)
        log.warning("worker %d %s (code %s); another takes its place", place.index, ending, code)
        self.launcher.start(self.job, place)
        return True

    def _restarted(self) -> int:
        """How many restarts there have been, with this one, since the study was last brought forward."""
        moved = self.ledger.work_done()
        self._restarts = 1 if moved != self._moved else self._restarts + 1
        self._moved = moved
        return self._restarts

    def _reason(self, place: Place, code: int) -> TrialError:
        tail = self.launcher.tail(place.index)
        errors = [line.removeprefix("error: ") for line in tail.splitlines() if line.startswith("error: ")]
        said = errors[-1] if errors else f"its log ends:\n{tail}"
        logs = self.job.out / "logs"
        incident = incidents.latest(self.ledger.storage, self.job.study)
        known = incident is not None and incident.message in said
        return TrialError(
            incident.kind if incident and known else "lost",
            f"worker {place.index} ended with code {code}: {said} (log: {logs})",
            incident.detail if incident and known else "",
        )


@dataclass
class Observer:
    """Starts no worker: waits for those that the user starts elsewhere."""

    job: Job
    spec: StudySpec
    ledger: Ledger

    def wait(self, hours: float | None, tick: Tick) -> None:
        """Until everything is done, or for so many hours.

        Raises TrialError when a failed trial ended the study, Interrupted when asked to stop.
        """
        deadline = _deadline(hours)
        with signals_as_interrupt():
            try:
                while time.monotonic() < deadline and self._unfinished():
                    tick()
                    time.sleep(ELSEWHERE_S)
                tick()
            except KeyboardInterrupt:
                raise Interrupted("interrupted; workers elsewhere go on, and the same command watches again") from None

    def _unfinished(self) -> bool:
        return advance(self.ledger, self.ledger.storage, self.spec, self.job.until) is not None


def _deadline(hours: float | None) -> float:
    return float("inf") if hours is None else time.monotonic() + 3600 * hours


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal stop a run as Ctrl-C does; repeats do not disturb it while it stops its workers.

    Outside of the main thread Python allows no handlers, and none are set.
    """
    requests = Requests()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not requests.is_repeat():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield
