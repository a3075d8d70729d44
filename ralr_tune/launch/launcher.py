"""The launcher's seam: what a worker is given (`Job`), and what starts workers (`Launcher`).

A launcher starts identical workers and never sees a trial: workers meet in SQL alone. A new engine is one file with a
subclass of `Launcher` and one line in `launch/registry.py`, or an entry point of the group `ralr_tune.launchers`.
"""

from __future__ import annotations

import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from ralr_tune.errors import Interrupted, RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import TOKEN_VARIABLE
from ralr_tune.records import Stage
from ralr_tune.store.location import STORAGE_VARIABLE
from ralr_tune.studyfile.values import problem
from ralr_tune.tasks.slots import Slots
from ralr_tune.training.files import writing

LAUNCHER_VARIABLE = "RALR_TUNE_LAUNCHER"
"""The id of the process that started a worker: the worker leaves when its parent is no longer that process."""


@dataclass(frozen=True)
class Job:
    """What every worker of a study is given; its place apart."""

    study: str
    storage_url: str = field(repr=False)
    """May hold a password: it travels in `environment` and is neither shown nor part of `command`."""
    out: Path
    until: Stage = "test"
    slots: Slots = 1
    """Trials that a worker trains at once."""
    imports: bool = True
    """Whether a study may name code to import."""
    force: bool = False
    """Whether a SQLite file on a network file system is accepted."""
    folder_token: str | None = None
    """What a worker must find in `out` before it claims a row (see `launch/folder.py`); None: it does not look."""

    def command(self, place: Place) -> list[str]:
        """The command line of one worker. It holds no secret: `ps` and the logs of an engine may show it."""
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
        """The variables that one worker needs besides those of its machine, the storage URL with its password included.

        An engine that logs or shows the environment of its jobs must not get them as such: see `write_environment`.
        """
        threads = {"OMP_NUM_THREADS": str(place.threads), "MKL_NUM_THREADS": str(place.threads)}
        token = {TOKEN_VARIABLE: self.folder_token} if self.folder_token else {}
        return {STORAGE_VARIABLE: self.storage_url} | threads | token

    def write_environment(self, place: Place, file: Path) -> None:
        """Write `environment` as a shell script (`. FILE`) that only its owner can read; replaces an earlier one.

        Raises DiskError.
        """
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment(place).items()]
        with writing(file):
            file.unlink(missing_ok=True)  # an earlier file might be open to others
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as script:
                script.writelines(map(os.fsencode, lines))


class Ending(StrEnum):
    """What the exit code of a worker means. `run` starts the last two again, within bounds."""

    done = "is done"
    gave_up = "gave up"
    """It ends the study, with the reason that stands in its log."""
    interrupted = "was asked to stop"
    """Its row is free again."""
    killed = "was ended from outside"
    """Its row is free once the lease has run out."""


_ENDINGS: Mapping[int, Ending] = {
    0: Ending.done,
    RalrTuneError.exit_code: Ending.gave_up,
    UsageError.exit_code: Ending.gave_up,
    Interrupted.exit_code: Ending.interrupted,
}
"""By the exit code of the worker's own process."""


class LauncherOptions(BaseModel):
    """What `--launcher-option key=value` may say: a launcher declares its keys as the fields of a subclass.

    Texts from the command line become the type of the field; `true` and `false` are booleans. A field that is a tuple
    may be given more than once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _once_or_repeated(cls, value: Any, info: ValidationInfo) -> Any:
        is_repeated = get_origin(cls.model_fields[info.field_name or ""].annotation) is tuple
        if is_repeated and isinstance(value, str):
            return (value,)
        if isinstance(value, list) and not is_repeated:
            raise problem("may be given once")
        return value


class Launcher(ABC):
    """Contract (tests/launch/test_launcher_contract.py checks it on every implementation).

    A launcher is made for one `run`, in `launch.registry.make_launcher`.
    """

    Options: ClassVar[type[LauncherOptions]] = LauncherOptions
    remote: ClassVar[bool] = False
    """Whether workers run on other machines: then `run` refuses SQLite, and every worker checks that it sees OUT."""
    poll_s: ClassVar[float] = 0.25
    """Seconds between two calls of `poll`."""

    def __init__(self, options: LauncherOptions | None = None) -> None:
        self.options = options or self.Options()

    @abstractmethod
    def places(self, devices: str, workers: int | None) -> list[Place]:
        """Where workers will run, one place a worker, from `--devices`, `--workers` (None: as many as fit) and options.

        Called before anything is created. Raises UsageError if that is impossible here, also if the engine is missing.
        """

    @abstractmethod
    def start(self, job: Job, place: Place) -> None:
        """Start one worker; a place whose worker has ended may be started again."""

    @abstractmethod
    def poll(self) -> dict[int, int | None]:
        """Exit code by place index; None while the worker works, or waits in the queue of an engine."""

    def ending(self, code: int) -> Ending:
        """What an exit code that `poll` returned means; here: the code of the worker's own process."""
        return _ENDINGS.get(code, Ending.killed)

    @abstractmethod
    def stop(self, timeout_s: float) -> None:
        """Ask all workers to stop (they keep everything), wait, then kill. Safe to call twice, and before any start."""

    @abstractmethod
    def tail(self, index: int, lines: int = 20) -> str:
        """The last lines of a worker's log; "" if it has none."""
