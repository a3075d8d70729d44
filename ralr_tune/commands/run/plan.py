"""The study and its plan in the database: brought up to date with the study file, or as a new generation."""

from __future__ import annotations

import logging
from pathlib import Path

from ralr_tune.analysis.starting import start_sentences
from ralr_tune.commands.run.data import comparable
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.commands.starting import taken
from ralr_tune.errors import UsageError
from ralr_tune.search.identity import begin_generation, identity_of
from ralr_tune.search.stages import plan_search, withdraw_audits
from ralr_tune.store import starts, studies
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.changes import changes

log = logging.getLogger(__package__)


def store_plan(storage: Storage, spec: StudySpec, options: RunOptions, out: Path) -> Ledger:
    """The rows of the whole budget, in a new generation if that is asked for."""
    if options.new_generation:
        _begin_generation(storage, spec, out)
    return _prepare(storage, spec, options.trials or spec.search.trials)


def _begin_generation(storage: Storage, spec: StudySpec, out: Path) -> None:
    """Begin a new generation if data or code changed; the report of the one before is kept in OUT/generation-N."""
    if spec.name not in studies.names(storage):
        return
    before = Ledger(storage, spec.name).generation
    found = begin_generation(storage, spec, identity_of(spec, comparable(storage, spec, out)))
    if found is None:
        log.info("data and code are those of generation %d, which is resumed", before)
        return
    log.info("generation %d begins, with the whole budget: %s", before + 1, "; ".join(found))
    _set_aside(out, out / f"generation-{before}")


def _set_aside(out: Path, folder: Path) -> None:
    for name in ("report.html", "best", "figures"):
        if (out / name).exists() and not (folder / name).exists():
            folder.mkdir(exist_ok=True)
            (out / name).rename(folder / name)


def _prepare(storage: Storage, spec: StudySpec, trials: int) -> Ledger:
    """Bring the stored study up to date: registration, an Optuna study per arm and block, the budget as rows."""
    with studies.study_lock(storage, spec.name):
        start = taken(storage, spec)
        _register(storage, spec)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                study = studies.optuna_study(storage, ledger.optuna_name(arm, block), metric=spec.metric)
                if start is not None:
                    starts.save(study, start)
        for line in start_sentences(start, spec.search.blocks):
            log.info("%s", line)
        plan_search(ledger, spec, trials)
        ledger.reopen_failed()
        withdraw_audits(ledger, spec)
    return ledger


def _register(storage: Storage, spec: StudySpec) -> None:
    if spec.name not in studies.names(storage):
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        return
    stored = studies.stored(storage, spec.name)
    if stored.text == spec.text and stored.fingerprint == spec.fingerprint:
        return
    ledger = Ledger(storage, spec.name)
    before = parse_study(stored.text, source=f"{spec.name} (as stored)", fingerprint=stored.fingerprint)
    found = changes(before, spec, judged=any(row.attempt for row in ledger.rows("judge", curves=False)))
    refused = [str(change) for change in found if not change.applied]
    if refused and not _withdraw_unstarted(ledger):
        raise UsageError(
            f"study {spec.name} in {storage.masked} was started with another study file, and new trials would not "
            f"be comparable with its trials: {'; '.join(refused)}. Give the study another name, or change the file back"
        )
    for change in found:
        log.info("study file changed: %s", f"{change.key} (no trial has started)" if refused else change)
    studies.update_text(storage, spec.name, text=spec.text, fingerprint=spec.fingerprint)


def _withdraw_unstarted(ledger: Ledger) -> bool:
    """Withdraw the plan if none of its trials has started; any other study file may then replace the stored one."""
    rows = ledger.rows(curves=False)
    if any(row.attempt for row in rows):
        return False
    for arm, block in {(row.arm, row.block) for row in rows}:
        ledger.withdraw(arm, block, keep=0)
    return True
