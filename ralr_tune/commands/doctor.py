"""`doctor`: check what is installed and usable on this machine, with numbers, and say how to fix each problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ralr_tune.commands.gc import counted
from ralr_tune.commands.health.artifacts import artifact_checks
from ralr_tune.commands.health.browser import browser_check
from ralr_tune.commands.health.check import Check
from ralr_tune.commands.health.devices import Probe, data_check, device_checks, nvidia_driver
from ralr_tune.commands.health.folder import folder_checks, needed_bytes
from ralr_tune.commands.health.machine import machine_checks
from ralr_tune.commands.health.packages import package_checks
from ralr_tune.commands.health.storage import storage_checks
from ralr_tune.commands.locate import StudyLocation, locate, opened
from ralr_tune.errors import RalrTuneError
from ralr_tune.invocation import command
from ralr_tune.machine.cores import available_cores
from ralr_tune.records import Inventory
from ralr_tune.report.inventory import inventory_text
from ralr_tune.store import studies
from ralr_tune.store.location import given_url
from ralr_tune.studyfile import StudySpec, parse_study


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in this order: packages, machine, browser, database, artifacts, devices, data, folder."""

    checks: list[Check]
    data: Inventory | None = None
    """The contents of the study's data; None without a study, or if its kind of task has no such table."""

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self._counts["problem"]

    def as_text(self) -> str:
        totals = [counted(self._counts[kind], kind) for kind in ("problem", "warning") if self._counts[kind]]
        data = [inventory_text(self.data)] if self.data else []
        return "\n".join([*map(str, self.checks), *data, ", ".join(totals) or "no problems"])

    def as_json(self) -> dict[str, Any]:
        data = {"data": asdict(self.data)} if self.data else {}
        return {"healthy": self.healthy, "checks": [check.as_json() for check in self.checks], **data}

    @property
    def _counts(self) -> Counter[str]:
        return Counter(check.verdict for check in self.checks)


def diagnose(
    study: str | None = None, *, storage: str | None = None, out: Path | None = None, workers: int | None = None
) -> Diagnosis:
    """Check everything that a run needs: packages, machine, database, folder, browser, the study's data.

    `workers`: how many are planned, on all machines; None: one for each core of this one.

    Leaves no files behind, not even if it is killed, except the inventory of the verified data in an out folder that
    exists. Raises UsageError and StudyFileError for STUDY itself.
    """
    studies.quiet_optuna()
    location = None if study is None else locate(study, storage=storage, out=out)
    spec = None if location is None else _spec(location)
    folder = location.out if location else out or Path("runs")
    probe = Probe(spec.text if isinstance(spec, StudySpec) else None, folder)  # runs alongside the next lines
    url = location.storage_url if location else given_url(storage)
    planned = workers or available_cores()
    stored = storage_checks(url, location.command if location else None, planned) if url else ()
    checks = [*package_checks(), *machine_checks(), browser_check(), *stored]
    checks += artifact_checks(location) if location else ()
    found = probe.facts()
    checks += device_checks(found, nvidia_driver())
    checks += _study_checks(location, out, spec, found)
    data = (found["data"] or {}).get("inventory") if isinstance(found, dict) else None
    return Diagnosis(checks, TypeAdapter(Inventory).validate_python(data) if data else None)


def _spec(location: StudyLocation) -> StudySpec | str:
    """The study file, or the one in its storage, or the reason why there is none."""
    if location.spec is not None:
        return location.spec
    try:
        with opened(location) as database:
            return parse_study(studies.stored(database, location.name).text, source=f"{location.name} (as stored)")
    except RalrTuneError as error:
        return str(error)


def _study_checks(
    location: StudyLocation | None, out: Path | None, spec: StudySpec | str | None, found: dict[str, Any] | str
) -> Iterator[Check]:
    """Checks of the folder and, if a study is given, of its file and its data."""
    data = found["data"] if isinstance(found, dict) else None
    needed = None
    if isinstance(spec, str):
        yield Check("study", "problem", spec)
    if isinstance(spec, StudySpec) and data is not None:
        yield data_check(data)
        needed = needed_bytes(spec, data["weights"], available_cores()) if data.get("weights") else None
    clean = location.command("gc") if location else command("gc", *(("--out", out) if out else ()))
    yield from folder_checks(location.out if location else out or Path("runs"), needed, clean)
