"""What `run` refuses before anything is created: options, custom code, storage, a study that cannot be trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from ralr_tune.commands.budget import with_split, with_stored_split
from ralr_tune.commands.connections import refuse_shortage
from ralr_tune.commands.locate import existing
from ralr_tune.commands.problems import problems, refuse
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.commands.starting import start_problems
from ralr_tune.commands.timing import measured_apart
from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Launcher
from ralr_tune.search.budget import budget_sentence
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.imports import imports_of, refuse_imports
from ralr_tune.studyfile.reading import Reading

log = logging.getLogger(__package__)


def check_options(spec: StudySpec, options: RunOptions) -> None:
    """Refuse impossible numbers and unwanted imports; log what the study file imports before that code runs."""
    _check_arguments(options.trials, options.hours)
    _check_imports(spec, options.imports)


def _check_arguments(trials: int | None, hours: float | None) -> None:
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials}: allowed: at least 1")
    if hours is not None and not hours > 0:
        raise UsageError(f"--hours {hours}: allowed: more than 0")


def _check_imports(spec: StudySpec, allowed: bool) -> None:
    """Log what the study file imports before that code runs, or refuse it."""
    if not allowed:
        refuse_imports(imports_of(spec))
    for named in imports_of(spec):
        log.info("%s", named)


def refuse_unshared(url: str, name: str, launcher: Launcher | None, workers: int) -> None:
    """Refuse a file that workers on other machines cannot share, and a server with fewer connections than workers."""
    address = parse_address(url)
    if launcher and launcher.remote and address.file:
        raise UsageError(
            f"--launcher {name}: its workers run on other machines, which cannot share the SQLite file "
            f"{address.file}; give --storage postgresql://... or mysql://..."
        )
    refuse_shortage(url, workers)


def trainable(spec: StudySpec, url: str, options: RunOptions, here: Sequence[Place]) -> StudySpec:
    """The study with the split of its budget. `here`: the places of workers on this machine.

    Raises what `_check_trainable` and `with_split` raise.
    """
    spec = with_stored_split(spec, url, force=options.force)
    _check_trainable(spec, url, options, here=bool(here))
    spec = with_split(spec, partial(measured_apart, spec, here[0]) if here else None)
    if sentence := budget_sentence(spec):
        log.info("%s", sentence)
    return spec


def _check_trainable(spec: StudySpec, url: str, options: RunOptions, *, here: bool) -> None:
    """Refuse, before anything is created, a study that cannot be trained.

    Unless workers run `here`, data and code that are not on this machine may be on theirs.
    """
    if _has_started(spec, url, options.force):
        return  # it could be trained, and what is left to do may not need its data
    found = [*problems(spec), *start_problems(spec, url)]
    refuse([each for each in found if here or not each.absent], Reading(f"study {spec.name}", (), spec))
    for each in found:
        log.info("left to the workers to check: %s", each.line)


def _has_started(spec: StudySpec, url: str, force: bool) -> bool:
    """Whether trials of this very study file have started."""
    with existing(url, force=force) as storage:
        if storage is None or spec.name not in studies.names(storage):
            return False
        same = studies.stored(storage, spec.name).text == spec.text
        return same and any(row.attempt for row in Ledger(storage, spec.name).rows(curves=False))
