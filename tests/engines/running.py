"""`run` of one study with a launcher, as a process that a test may kill, and the state of its rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ralr_tune.records import Row
from ralr_tune.search.stages import pending_stage
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.studies import simulated_text

FAULTS = int(os.environ.get("RALR_TUNE_ENGINE_FAULTS", "8"))
LEASE_S = 6.0
WORKERS = 3


def study_text(name: str, trials: int = 8) -> str:
    return simulated_text(
        study={"name": name},
        task={"data": {"seconds_per_epoch": 0.4}},
        training={"epochs": 10},
        search={"trials": trials},
        confirm={"top": 1, "seeds": 3},
        storage={"lease_s": LEASE_S},
    )


class Running:
    """`run` of one study."""

    def __init__(self, text: str, url: str, out: Path, *launcher: str, workers: int = WORKERS) -> None:
        """`launcher`: options of `run` that choose it."""
        self.spec, self.out, self._url, self._launcher = parse_study(text), out, url, launcher
        self._workers = workers
        self.storage = open_storage(url, create=True)
        self._file = out.parent / f"{self.spec.name}.toml"
        self._file.write_text(text)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ralr_tune", "run", str(self._file), *self._launcher]
        command += ["--workers", str(self._workers), "--out", str(self.out)]
        with (self.out.parent / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | {"RALR_TUNE_STORAGE": self._url},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    @property
    def rows(self) -> list[Row]:
        try:
            return Ledger(self.storage, self.spec.name).rows(curves=False)
        except Exception:  # before `run` has created the tables
            return []

    @property
    def finished_rows(self) -> list[Row]:
        """With their curves."""
        return Ledger(self.storage, self.spec.name).rows()

    @property
    def held(self) -> list[Row]:
        return [row for row in self.rows if row.state == "held"]

    @property
    def pending(self) -> object:
        """The stage that is left; None if the study is finished."""
        rows = self.rows
        return pending_stage(self.spec, rows) if rows else "nothing yet"

    def ended(self) -> bool:
        return self.process.poll() is not None

    def log(self) -> str:
        return (self.out.parent / "run.log").read_text()
