"""A launcher whose workers inherit nothing from this process: other folder, empty environment, secrets from a file.

It represents an engine such as Slurm or Ray, and can mount another folder in place of OUT.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job, Launcher, LauncherOptions
from ralr_tune.launch.local import tail

CHECKOUT = Path(__file__).parents[2]


class ElsewhereOptions(LauncherOptions):
    """Options of every type."""

    folder: Path
    """The workers' logs and the files with their environment."""
    mount: Path | None = None
    """What workers see in place of OUT."""
    cpus: int = 1
    use_spot: bool = False
    lines: tuple[str, ...] = ()


class Elsewhere(Launcher):
    """One shell per worker, which reads the environment from a file."""

    Options = ElsewhereOptions
    options: ElsewhereOptions
    remote = True
    poll_s = 0.1

    def __init__(self, options: LauncherOptions | None = None) -> None:
        super().__init__(options)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def places(self, devices: str, workers: int | None) -> list[Place]:
        if workers is not None and workers < 1:
            raise UsageError(f"--workers {workers}: allowed: at least 1")
        return [Place(index, "auto", self.options.cpus) for index in range(workers or 1)]

    def start(self, job: Job, place: Place) -> None:
        script = self.options.folder / f"environment-{place.index}.sh"
        job.write_environment(place, script)
        seen = str(self.options.mount or job.out)
        command = [seen if part == str(job.out) else part for part in job.command(place)]
        with self._log(place.index).open("ab") as log:
            log.write(f"+ {shlex.join(command)}\n".encode())  # as many engines log it
            log.flush()
            self._processes[place.index] = subprocess.Popen(
                ["sh", "-c", '. "$0" && exec "$@"', str(script), *command],
                cwd=self.options.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": str(self.options.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def poll(self) -> dict[int, int | None]:
        return {index: process.poll() for index, process in self._processes.items()}

    def stop(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tail(self, index: int, lines: int = 20) -> str:
        return "\n".join(tail(self._log(index), lines))

    def _log(self, index: int) -> Path:
        return self.options.folder / f"worker-{index}.log"


def install(monkeypatch: pytest.MonkeyPatch, site: Path, **launchers: str) -> None:
    """Put a distribution with these launchers into `site` and onto the path, as pip installs one."""
    folder = site / "engines-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: engines\nVersion: 1.0\n")
    lines = [f"{name} = {path}" for name, path in launchers.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[ralr_tune.launchers]", *lines]))
    monkeypatch.syspath_prepend(site)
