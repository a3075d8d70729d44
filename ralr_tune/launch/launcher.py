"""The launcher's seam: starts identical workers on places, polls, stops, and hands over the tail of a log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ralr_tune.launch.devices import Place
from ralr_tune.records import Stage
from ralr_tune.tasks.slots import Slots


@dataclass(frozen=True)
class Job:
    """What every worker of a study is told; its place aside."""

    study: str
    storage_url: str
    out: Path
    until: Stage
    slots: Slots = 1
    """Trials that a worker trains at once."""
    imports: bool = True
    """Whether a study may name code to import."""
    force: bool = False
    """Whether a SQLite file on a network file system is taken."""


class Launcher(Protocol):
    """Contract (tests/launch/test_launcher_contract.py holds every implementation to it)."""

    def start(self, job: Job, place: Place) -> None:
        """Start one worker; a place whose worker has ended may be started again."""

    def poll(self) -> dict[int, int | None]:
        """Exit code by place index; None while it works."""

    def stop(self, timeout_s: float) -> None:
        """Ask all workers to stop (they keep everything), wait, then make sure. Safe to call twice."""

    def tail(self, index: int, lines: int = 20) -> str:
        """The last lines of a worker's log."""
