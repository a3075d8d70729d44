"""Whether the data and code that a process read are those of the study's earlier trials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from ralr_tune.analysis.identity import differences, merged
from ralr_tune.errors import UsageError
from ralr_tune.records import Identity, Inventory
from ralr_tune.store import generations, studies
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.code import source_files

log = logging.getLogger(__name__)


def identity_of(spec: StudySpec, data: Inventory | None, versions: Mapping[str, str] | None = None) -> Identity:
    """What this process read: `data`, the code of the study file, and the `versions` that its trials will run with."""
    return Identity(data, source_files(spec), (versions,) if versions else ())


def agree(ledger: Ledger, read: Identity) -> None:
    """Compares `read` with what the generation's earlier trials read, and records what was not known yet.

    Raises UsageError, which says what differs, unless no trial has begun.
    """
    storage, study, number = ledger.storage, ledger.study, ledger.generation
    known = generations.identity(storage, study, number)
    if known is not None and not differences(known, read) and merged(known, read) == known:
        return
    with studies.study_lock(storage, study):
        known = generations.identity(storage, study, number)
        begun = sum(row.attempt > 0 for row in ledger.rows(curves=False))
        if known is None:
            known = _late(ledger, read, begun)
        elif found := differences(known, read):
            if begun:
                raise _refusal(ledger, known, read, found)
            known = read
        generations.record(storage, study, number, merged(known, read))


def begin_generation(storage: Storage, spec: StudySpec, read: Identity) -> list[str] | None:
    """Begins a new generation if data or code differ from the newest one's; returns what differs, None if nothing does.

    Also begins one if trials have begun and nothing is known of what they read. Raises UsageError while they run.
    """
    with studies.study_lock(storage, spec.name):
        ledger = Ledger(storage, spec.name)
        known = generations.identity(storage, spec.name, ledger.generation)
        rows = ledger.rows(curves=False)
        found = differences(known, read) if known else ["it is not recorded what the earlier trials read"]
        if not found or not any(row.attempt for row in rows):
            return None
        running = sum(row.state == "held" for row in rows) - len(ledger.abandoned())
        if running:
            raise UsageError(
                f"--new-generation: trials of study {spec.name} still running: {running}; stop their workers first"
            )
        generations.begin(storage, spec.name, ledger.generation + 1, read)
    return found


def needs_contents(storage: Storage, study: str, data: Inventory | None) -> bool:
    """Whether the contents of `data` must be hashed to compare them with those of earlier trials."""
    known = generations.identity(storage, study, generations.newest(storage, study))
    if known is None or known.data is None or data is None:
        return False
    stored = {split.name: split.digest for split in known.data.splits}
    return any(split.digest is None and stored.get(split.name) for split in data.splits)


def _late(ledger: Ledger, read: Identity, begun: int) -> Identity:
    """`read` as the identity of a generation of which `begun` trials began before one was recorded."""
    if begun:
        log.warning(
            "study %s: an earlier release did not record what its trials read; the data and code as they are now are "
            "recorded as theirs (%d trials had begun)",
            ledger.study,
            begun,
        )
    return replace(read, late=begun)


def _refusal(ledger: Ledger, known: Identity, read: Identity, found: list[str]) -> UsageError:
    return UsageError(
        f"study {ledger.study}: data or code differ from those of its earlier trials, so new trials would not be "
        f"comparable: {'; '.join(found)}{_sources(known, read)}. Restore them, or give `run` --new-generation: it "
        f"begins generation {ledger.generation + 1} with the whole budget, and pools nothing with the earlier trials"
    )


def _sources(known: Identity, read: Identity) -> str:
    if known.data is None or read.data is None or known.data.source == read.data.source:
        return ""
    return f" (they read {known.data.source}; this is {read.data.source})"
