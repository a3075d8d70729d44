"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.training.files import writing

STORAGE_VARIABLE = "RALR_TUNE_STORAGE"
"""What `worker` reads its storage URL from; the same as for users."""
LAUNCHER_VARIABLE = "RALR_TUNE_LAUNCHER"
"""The launcher's process id: a worker leaves when its launcher is gone."""

_TAIL_BYTES = 64_000
"""Read from the end of a log, however long it has grown."""


class LocalProcesses:
    """`python -m ralr_tune worker` once for each place, its log in OUT/logs/worker-INDEX.log."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: dict[int, Path] = {}

    def start(self, job: Job, place: Place) -> None:
        log = job.out / "logs" / f"worker-{place.index}.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        self._logs[place.index] = log
        with output:
            self._processes[place.index] = subprocess.Popen(
                _command(job, place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(job, place),
                # Ctrl-C in the terminal reaches the launcher alone, which then stops its workers in order
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
    """The last lines of a log; none where there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _command(job: Job, place: Place) -> list[str]:
    options = {
        "--out": job.out,
        "--device": place.device,
        "--threads": place.threads,
        "--index": place.index,
        "--sharing": place.sharing,
        "--until": job.until,
        "--slots": job.slots,
    }
    return [
        sys.executable,
        "-m",
        "ralr_tune",
        "worker",
        job.study,
        *(str(part) for pair in options.items() for part in pair),
        *([] if job.imports else ["--no-imports"]),
        *(["--force"] if job.force else []),
    ]


def _environment(job: Job, place: Place) -> dict[str, str]:
    """The storage URL travels here and not in the command, where `ps` would show its password."""
    threads = str(place.threads)
    return os.environ | {
        STORAGE_VARIABLE: job.storage_url,
        LAUNCHER_VARIABLE: str(os.getpid()),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
