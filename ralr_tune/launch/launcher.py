"""The launcher interface: what a worker receives (`Job`), and what starts workers (`Launcher`).

A launcher starts identical workers and never sees a trial: workers coordinate through SQL only. A new engine is one
file with a subclass of `Launcher`, and one line in `launch/registry.py` or an entry point in `ralr_tune.launchers`.
"""

from __future__ import annotations

import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from ralr_tune.errors import Interrupted, RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import TOKEN_VARIABLE
from ralr_tune.machine.files import writing
from ralr_tune.records import Stage
from ralr_tune.store.location import STORAGE_VARIABLE
from ralr_tune.studyfile.values import problem
from ralr_tune.tasks.slots import Slots

LAUNCHER_VARIABLE = "RALR_TUNE_LAUNCHER"
"""Environment variable with the process id of a worker's launcher: the worker stops when its parent has another id."""


@dataclass(frozen=True)
class Job:
    """What every worker of a study receives, besides its place."""

    study: str
    storage_url: str = field(repr=False)
    """May contain a password: it is passed in `environment`, never shown, and not part of `command`."""
    out: Path
    until: Stage = "test"
    slots: Slots = 1
    """Trials that a worker trains at the same time."""
    imports: bool = True
    """Whether a study may import the user's code."""
    force: bool = False
    """Whether a SQLite file on a network file system is accepted."""
    folder_token: str | None = None
    """The token that a worker must find in `out` before it claims a row (see `launch/folder.py`); None: no check."""

    def command(self, place: Place) -> list[str]:
        """The command line of one worker. It contains no secret: `ps` and the logs of an engine may show it."""
        options = {
            "--out": self.out,
            "--device": place.device,
            "--threads": place.threads,
            "--index": place.index,
            "--sharing": place.sharing,
            "--until": self.until,
            "--slots": self.slots,
        }
        return [
            *(sys.executable, "-m", "ralr_tune", "worker", self.study),
            *(str(part) for pair in options.items() for part in pair),
            *([] if self.imports else ["--no-imports"]),
            *(["--force"] if self.force else []),
        ]

    def environment(self, place: Place) -> dict[str, str]:
        """The environment variables that one worker needs besides those of its machine; the URL includes the password.

        Do not pass them to an engine that logs or shows its jobs' environment: use `write_environment` there.
        """
        threads = {"OMP_NUM_THREADS": str(place.threads), "MKL_NUM_THREADS": str(place.threads)}
        token = {TOKEN_VARIABLE: self.folder_token} if self.folder_token else {}
        return {STORAGE_VARIABLE: self.storage_url} | threads | token

    def write_environment(self, place: Place, file: Path) -> None:
        """Write `environment` as a shell script (`. FILE`) that only its owner can read; replaces an existing one.

        Raises DiskError.
        """
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment(place).items()]
        with writing(file):
            file.unlink(missing_ok=True)  # other users might be able to read an existing file
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as script:
                script.writelines(map(os.fsencode, lines))


class Ending(StrEnum):
    """What the exit code of a worker means. `run` restarts workers that were interrupted or killed, a limited number of
    times."""

    done = "is done"
    gave_up = "gave up"
    """It ends the study; its log has the reason."""
    interrupted = "was asked to stop"
    """It released its row."""
    cancelled = "was cancelled in its engine"
    """By the user or an administrator, without `run`: it is not restarted."""
    killed = "was killed"
    """Its row is free when the lease has expired."""


_ENDINGS: Mapping[int, Ending] = {
    0: Ending.done,
    RalrTuneError.exit_code: Ending.gave_up,
    UsageError.exit_code: Ending.gave_up,
    Interrupted.exit_code: Ending.interrupted,
}
"""By the exit code of the worker process."""


class LauncherOptions(BaseModel):
    """The options of `--launcher-option key=value`: a launcher declares its keys as the fields of a subclass.

    Text from the command line is converted to the type of the field; `true` and `false` are booleans. A key whose field
    is a tuple may be repeated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _once_or_repeated(cls, value: Any, info: ValidationInfo) -> Any:
        is_repeated = get_origin(cls.model_fields[info.field_name or ""].annotation) is tuple
        if is_repeated and isinstance(value, str):
            return (value,)
        if isinstance(value, list) and not is_repeated:
            raise problem("may be given only once")
        return value


class Launcher(ABC):
    """Contract (tests/launch/test_launcher_contract.py checks it on every implementation).

    `launch.registry.make_launcher` creates one launcher for one `run`.
    """

    Options: ClassVar[type[LauncherOptions]] = LauncherOptions
    remote: ClassVar[bool] = False
    """Whether workers run on other machines. If so, `run` refuses SQLite, and workers check that OUT is shared, unless
    the study's artifacts have a store."""
    needs_out: ClassVar[bool] = False
    """Whether all machines must share OUT even then, for files of the launcher."""
    in_process: ClassVar[bool] = False
    """Whether workers are threads of this process."""
    poll_s: ClassVar[float] = 0.25
    """Seconds between two calls of `poll`."""

    def __init__(self, options: LauncherOptions | None = None) -> None:
        self.options = options or self.Options()
        self.dry_run = False
        """Whether `preview` is shown and nothing is started."""

    @abstractmethod
    def places(self, devices: str, workers: int | None) -> list[Place]:
        """One place per worker, from `--devices`, `--workers` (None: as many as fit) and options.

        Called before anything is created. Raises UsageError if it is impossible here or the engine is missing.
        """

    def preview(self, job: Job, places: Sequence[Place]) -> str:
        """What would be submitted to the engine, with no secret. Only for launchers that may set `dry_run`."""
        raise NotImplementedError

    def prepare(self, job: Job, places: Sequence[Place]) -> str:
        """Write what a user submits to the engine by hand, and return the command that does it.

        Raises UsageError if the launcher has no such form.
        """
        raise UsageError("--init with --launcher: only launchers that submit a script have one to prepare (slurm)")

    @abstractmethod
    def start(self, job: Job, place: Place) -> None:
        """Start one worker, at the latest in the next `poll`; that of a place may be restarted after it has ended."""

    @abstractmethod
    def poll(self) -> dict[int, int | None]:
        """Exit code by place index; None while the worker runs, or waits in the queue of an engine."""

    def ending(self, code: int) -> Ending:
        """The meaning of an exit code from `poll`; by default it is that of the worker process."""
        return _ENDINGS.get(code, Ending.killed)

    @abstractmethod
    def stop(self, timeout_s: float) -> None:
        """Ask all workers to stop (they save their state), wait, then kill. Safe to call twice or before any start."""

    @abstractmethod
    def tail(self, index: int, lines: int = 20) -> str:
        """The last lines of a worker's log; "" if it has none."""
