"""Waits until a study is done: for workers that a launcher starts, or for those that the user starts elsewhere."""

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

OBSERVER_POLL_S = 2.0
"""Seconds between two checks of a study whose workers run elsewhere."""
STOP_S = 60.0
"""Seconds that workers get to save their state."""
MAX_RESTARTS = 10
"""Restarts per worker if no epoch is completed in between."""

Tick = Callable[[], None]
"""Called a few times a second, and once at the end."""


@dataclass
class Supervisor:
    """Starts workers, restarts those that were killed, and stops all if one gives up or the time is up."""

    launcher: Launcher
    job: Job
    places: list[Place]
    ledger: Ledger
    stopping: Tick = lambda: None
    """Called at once if asked to stop, before the workers have saved their state."""
    _restarts: int = 0
    _moved: tuple[int, int] = (0, 0)

    def wait(self, hours: float | None, tick: Tick) -> None:
        """Wait until all workers are done, or for at most `hours`.

        Raises TrialError if a worker gives up or restarts make no progress, Interrupted if asked to stop.
        """
        deadline = _deadline(hours)
        with signals_as_interrupt():
            try:
                for place in self.places:
                    self.launcher.start(self.job, place)
                while self._any_running() and time.monotonic() < deadline:
                    tick()
                    time.sleep(self.launcher.poll_s)
                tick()
            except KeyboardInterrupt:
                self.stopping()
                raise Interrupted("interrupted; everything is saved") from None
            finally:
                self.launcher.stop(STOP_S)

    def _any_running(self) -> bool:
        codes = self.launcher.poll()
        running = [self._keep_running(place, codes[place.index]) for place in self.places]
        return any(running)

    def _keep_running(self, place: Place, code: int | None) -> bool:
        """Restart the worker of a place if it was killed or interrupted; return whether it runs now."""
        if code is None:
            return True
        ending = self.launcher.ending(code)
        if ending in (Ending.done, Ending.cancelled):
            return False
        if ending is Ending.gave_up or self._count_restart() > MAX_RESTARTS * len(self.places):
            raise self._reason(place, code)
        log.warning("worker %d %s (exit code %s); restarting it", place.index, ending, code)
        self.launcher.start(self.job, place)
        return True

    def _count_restart(self) -> int:
        """The number of restarts, including this one, since the study last made progress."""
        moved = self.ledger.work_done()
        self._restarts = 1 if moved != self._moved else self._restarts + 1
        self._moved = moved
        return self._restarts

    def _reason(self, place: Place, code: int) -> TrialError:
        tail = self.launcher.tail(place.index)
        errors = [line.removeprefix("error: ") for line in tail.splitlines() if line.startswith("error: ")]
        message = errors[-1] if errors else f"the end of its log:\n{tail}"
        logs = self.job.out / "logs"
        incident = incidents.latest(self.ledger.storage, self.ledger.key)
        known = incident is not None and incident.message in message
        return TrialError(
            incident.kind if incident and known else "lost",
            f"worker {place.index} ended with exit code {code}: {message} (log: {logs})",
            incident.detail if incident and known else "",
        )


@dataclass
class Observer:
    """Starts no worker; waits for workers that the user starts elsewhere."""

    job: Job
    spec: StudySpec
    ledger: Ledger

    def wait(self, hours: float | None, tick: Tick) -> None:
        """Wait until everything is done, or for at most `hours`.

        Raises TrialError if a failed trial ended the study, Interrupted if asked to stop.
        """
        deadline = _deadline(hours)
        with signals_as_interrupt():
            try:
                while time.monotonic() < deadline and self._unfinished():
                    tick()
                    time.sleep(OBSERVER_POLL_S)
                tick()
            except KeyboardInterrupt:
                raise Interrupted("interrupted; workers elsewhere continue") from None

    def _unfinished(self) -> bool:
        return advance(self.ledger, self.ledger.storage, self.spec, self.job.until) is not None


def _deadline(hours: float | None) -> float:
    return float("inf") if hours is None else time.monotonic() + 3600 * hours


class StopRequest(KeyboardInterrupt):
    """A KeyboardInterrupt of its own type: Python remembers one of the built-in type that came within `exec`, where the
    import of a named tuple spends its time, and then ends by SIGINT, whatever exit code the program asked for."""


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal stop a run; repeats are ignored while it stops its workers.

    Python allows signal handlers only in the main thread; in another thread this does nothing.
    """
    requests = Requests()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not requests.is_repeat():
            raise StopRequest

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling(interrupt, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
