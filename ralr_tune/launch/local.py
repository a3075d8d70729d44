"""Workers as processes on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ralr_tune.launch.devices import Place, places
from ralr_tune.launch.launcher import LAUNCHER_VARIABLE, Job, Launcher, LauncherOptions
from ralr_tune.machine.files import writing

_MAX_TAIL_BYTES = 64_000
"""The most that is read from the end of a log."""


class LocalProcesses(Launcher):
    """`python -m ralr_tune worker` once for each place, with its log in OUT/logs/worker-INDEX.log."""

    def __init__(self, options: LauncherOptions | None = None) -> None:
        super().__init__(options)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: dict[int, Path] = {}

    def places(self, devices: str, workers: int | None) -> list[Place]:
        return places(devices, workers)

    def start(self, job: Job, place: Place) -> None:
        log = job.out / "logs" / f"worker-{place.index}.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        self._logs[place.index] = log
        with output:
            self._processes[place.index] = subprocess.Popen(
                job.command(place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | job.environment(place) | {LAUNCHER_VARIABLE: str(os.getpid())},
                # Ctrl-C in the terminal reaches only the launcher, which then stops its workers cleanly
                start_new_session=True,
            )

    def poll(self) -> dict[int, int | None]:
        return {index: process.poll() for index, process in self._processes.items()}

    def stop(self, timeout_s: float) -> None:
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + timeout_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tail(self, index: int, lines: int = 20) -> str:
        path = self._logs.get(index)
        return "" if path is None else "\n".join(tail(path, lines))


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; none if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
