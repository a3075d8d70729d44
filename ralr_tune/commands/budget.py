"""How `check`, `plan` and `run` come to the split of `search.budget`: a study that was started keeps its own."""

from __future__ import annotations

from collections.abc import Callable

from ralr_tune.commands.locate import existing
from ralr_tune.commands.problems import refuse
from ralr_tune.errors import UsageError
from ralr_tune.search.budget import problems_of_budget, split_of
from ralr_tune.store import studies
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.problems import shown
from ralr_tune.studyfile.reading import Reading


def with_stored_split(spec: StudySpec, url: str, *, force: bool = False) -> StudySpec:
    """The study with the split that the storage holds; the same study if it holds none.

    If the file has changed since, the split is chosen again, but hours are converted as before.
    """
    if not spec.needs_split:
        return spec
    before = _stored(spec.name, url, force)
    if before is None or before.file.split is None:
        return spec
    same = spec.with_split(before.file.split)
    if same.text == before.text:
        return same
    epochs = _converted_as(before, before.file.split.epochs, spec)
    return spec if epochs is None else _split(spec, epochs)


def _converted_as(before: StudySpec, epochs: int, spec: StudySpec) -> int | None:
    """The budget in epochs, if that of the stored study was these; None if it needs a timing."""
    old, new = before.budget, spec.budget
    if old == new or old is None or new is None:
        return epochs
    return new.epochs(None if old.seconds is None else old.seconds / epochs)


def _stored(study: str, url: str, force: bool) -> StudySpec | None:
    with existing(url, force=force) as storage:
        if storage is None or study not in studies.names(storage):
            return None
        return parse_study(studies.stored(storage, study).text, source=f"{study} (as stored)")


def with_split(spec: StudySpec, timed: Callable[[], float | None] | None) -> StudySpec:
    """The study with a split of its budget; hours are converted with the seconds of an epoch that `timed` measures.

    None: the workers run elsewhere. Raises StudyFileError if the budget is below the least that a verdict needs,
    UsageError if it is one of time and the duration of an epoch is not known, DataError if the data cannot be read.
    """
    budget = spec.budget
    if budget is None or not spec.needs_split:
        return spec
    seconds = None if budget.seconds is None or timed is None else timed()
    epochs = budget.epochs(seconds)
    if epochs is None:
        reason = (
            "the workers run on other machines, whose speed is not known here"
            if timed is None
            else "how long an epoch takes is not known before the first trial"
        )
        raise UsageError(
            f'search.budget = {shown(spec.file.search.budget)}: {reason}; give epochs, such as "600 epochs"'
        )
    return _split(spec, epochs, seconds)


def _split(spec: StudySpec, epochs: int, seconds: float | None = None) -> StudySpec:
    refuse(list(problems_of_budget(spec, seconds)), Reading(f"study {spec.name}", (), spec))
    return spec.with_split(split_of(spec, epochs))
