"""`check --rehearse`: a few epochs of the study's code, and what they show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ralr_tune.commands.check import checked
from ralr_tune.commands.locate import locate
from ralr_tune.errors import RalrTuneError
from ralr_tune.launch.devices import places
from ralr_tune.launch.worker import set_threads
from ralr_tune.search.rehearsal import FILE, Finding, Rehearsal, store

_MARKS = {"good": "ok", "note": "note", "wrong": "WRONG"}


class RehearsalFailed(RalrTuneError):
    """The study's code does not do what its answer needs."""


def rehearse(
    study: str, *, imports: bool = True, device: str = "auto", storage: str | None = None, out: Path | None = None
) -> Iterator[str]:
    """One line for each item, as soon as it is measured; the findings are kept for the report.

    Raises what `check` raises, and RehearsalFailed after the last line if something is wrong.
    """
    spec = checked(study, imports=imports, storage=storage, out=out)
    place = places(device, 1)[0]
    set_threads(place, spec.kind)
    folder = locate(study, storage=storage, out=out, imports=imports).out
    yield f"Rehearsing {spec.name} with a few epochs in the middle of its space, on {place.device}:"
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="ralr_tune-rehearsal-") as scratch:
        for finding in Rehearsal(spec, device=place.device, folder=Path(scratch)).findings():
            found.append(finding)
            yield line(finding)
    store(folder / FILE, spec, found, datetime.now(UTC).strftime("%Y-%m-%d"))
    wrong = [finding.item for finding in found if finding.level == "wrong"]
    if wrong:
        raise RehearsalFailed(f"{study}: the rehearsal found {len(wrong)} to fix: {', '.join(wrong)}")
    yield "Nothing to fix; the report will say what was measured"


def line(finding: Finding) -> str:
    """A finding for the terminal."""
    return f"  {_MARKS[finding.level]:<6}{finding.item}: {finding.text}"
