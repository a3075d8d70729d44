"""Workers as threads of this process, for tests and notebooks."""

from __future__ import annotations

import traceback
from dataclasses import replace
from threading import Thread
from typing import ClassVar

from ralr_tune.errors import RalrTuneError
from ralr_tune.launch.devices import Place, places
from ralr_tune.launch.launcher import Job, Launcher, LauncherOptions
from ralr_tune.launch.worker import work
from ralr_tune.search.stopping import Stop


class InProcess(Launcher):
    """One thread per place. The threads share the interpreter lock, so more threads are not faster."""

    in_process: ClassVar[bool] = True

    def __init__(self, options: LauncherOptions | None = None) -> None:
        super().__init__(options)
        self._threads: dict[int, Thread] = {}
        self._codes: dict[int, int] = {}
        self._logs: dict[int, str] = {}
        self._stops: dict[int, Stop] = {}

    def places(self, devices: str, workers: int | None) -> list[Place]:
        return places(devices, workers)

    def start(self, job: Job, place: Place) -> None:
        self._codes.pop(place.index, None)
        self._stops[place.index] = stop = Stop()  # one for each worker: one that starts after a stop must run
        thread = Thread(target=self._run, args=(job, place, stop), name=f"worker-{place.index}", daemon=True)
        self._threads[place.index] = thread
        thread.start()

    def _run(self, job: Job, place: Place, stop: Stop) -> None:
        code, text = 0, ""
        try:
            work(job, replace(place, sharing=1), stop=stop)  # one process: its threads share one memory
        except RalrTuneError as error:
            code, text = error.exit_code, f"error: {error}"
        except Exception:
            code, text = 1, traceback.format_exc()
        self._logs[place.index] = text
        self._codes[place.index] = code

    def poll(self) -> dict[int, int | None]:
        return {index: self._codes.get(index) for index in self._threads}

    def stop(self, timeout_s: float) -> None:
        for stop in self._stops.values():
            stop.requested = True  # not request(): that raises in the calling thread
        for thread in self._threads.values():
            thread.join(timeout_s)

    def tail(self, index: int, lines: int = 20) -> str:
        return "\n".join(self._logs.get(index, "").splitlines()[-lines:])
