"""`search.start_from`: a study that begins with the best configurations of an earlier one.

Every arm gets the same configurations in the same order: the best search trial of each arm of the earlier study, then
the second best of each, and so on, so that no arm's findings come before those of another. An arm takes the values of
the parameters that it searches; the sampler proposes the rest. They are ordinary trials of the budget, trained and
pruned like all others.

No value is taken. One from another number of epochs, other data or another metric would rank among this study's own
trials, in its sampler and its pruner (our choice). The order is that of search values: confirmation seeds never decide
what a later search tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from optuna.study import Study

from ralr_tune.analysis.rows import ranked
from ralr_tune.errors import StorageError, UsageError
from ralr_tune.records import Row, StartTrial, StudyRecord, WarmStart
from ralr_tune.store import generations, starts
from ralr_tune.store.database import Storage
from ralr_tune.store.reading import stored_spec
from ralr_tune.store.studies import optuna_name
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.configuration import task_parameter
from ralr_tune.studyfile.parameters import OF_OPTIMIZERS
from ralr_tune.studyfile.problems import shown
from ralr_tune.studyfile.recipes import UPPER_ENDS, fitting, recipe_values
from ralr_tune.studyfile.values import Choice, Range

SHARE = 4
"""One trial in so many starts from the earlier study, at least one (our choice: the rest still searches)."""
MOST = 32
"""Configurations at most: beyond these, they are no longer good (our choice)."""
_NOTES = 6
"""Differences to name."""
_CONVERTED = ("optimizer", "amplify.lower")
"""Values that others need for their conversion (see `studyfile.recipes`), searched or not."""

Recipe = Mapping[str, Any]


def warm_start(spec: StudySpec, earlier: StudyRecord) -> WarmStart:
    """What `spec` takes from an earlier study. Raises UsageError if nothing fits, or if nothing is complete there."""
    before = stored_spec(earlier)
    found = [(row, _recipe(before, row)) for row in _in_turn(earlier)]
    if not found:
        raise UsageError(f"{_key(spec)}: none of its search trials is complete yet; run it first")
    fits = [(row, recipe) for row, recipe in found if all(fitting(spec, arm, recipe) for arm in spec.arms)]
    if not fits:
        raise UsageError(f"{_key(spec)}: nothing fits: {_why(spec, before, [recipe for _, recipe in found])}")
    chosen = islice(_distinct(spec, fits), limit(spec))
    trials = tuple(_start_trial(spec, row, recipe) for row, recipe in chosen)
    generation = earlier.generations[-1].number if earlier.generations else 1
    notes = (*_still_running(earlier), *_notes(spec, before, found))
    return starts.sealed(WarmStart(earlier.name, generation, trials, notes))


def limit(spec: StudySpec) -> int:
    """How many configurations a study takes at most."""
    return min(MOST, max(1, (spec.search.trials - len(spec.search.start)) // SHARE))


def begun_with(storage: Storage, spec: StudySpec) -> WarmStart | None:
    """What the stored study started from, in its newest generation that has anything; None if that is another study
    than the file names now."""
    newest = generations.newest(storage, spec.name)
    names = (
        optuna_name(spec.name, arm, generation=generation) for generation in range(newest, 0, -1) for arm in spec.arms
    )
    kept = starts.first(storage, names)
    return kept if kept is not None and kept.study == spec.search.start_from else None


def recipe_of(spec: StudySpec, arm: str, ordinal: int, start: WarmStart | None) -> dict[str, Any]:
    """Values that trial `ordinal` of an arm takes from the earlier study, by name; empty if it takes none."""
    place = ordinal - len(spec.search.start)
    if start is None or not 0 <= place < len(start.trials):
        return {}
    return fitting(spec, arm, start.trials[place].params)


def kept_start(study: Study, spec: StudySpec) -> WarmStart | None:
    """What is kept with an Optuna study. StorageError if the study file names a start and none is kept."""
    if spec.search.start_from is None:
        return None
    found = starts.of_study(study)
    if found is None:
        raise StorageError(f"Optuna study {study.study_name!r}: what it starts from is not there; `run` restores it")
    return found


# ---------------------------------------------------------------- which trials


def _key(spec: StudySpec) -> str:
    return f"search.start_from = {shown(str(spec.search.start_from))}"


def _in_turn(earlier: StudyRecord) -> Iterator[Row]:
    """Complete search trials: the best of each arm, then the second best of each."""
    by_arm = ([row for row, _ in ranked(arm.search(), earlier.metric)] for arm in earlier.arms.values())
    yield from (row for turn in zip_longest(*by_arm) for row in turn if row is not None)


def _recipe(before: StudySpec, row: Row) -> Recipe:
    """Everything that a trial of the earlier study trained with, fixed or searched, by name."""
    tables = before.configuration(row.arm, row.params).model_dump(mode="json", exclude={"task"}, exclude_none=True)
    own = {task_parameter(path) for path in before.task_space}
    return {each.name: each.value for each in recipe_values(tables)} | {
        name: value for name, value in row.params.items() if name in own
    }


def _distinct(spec: StudySpec, fits: Sequence[tuple[Row, Recipe]]) -> Iterator[tuple[Row, Recipe]]:
    """Without trials that would be copies in an arm: with a shared design, arms try the same shared values."""
    seen: dict[str, list[dict[str, Any]]] = {arm: [] for arm in spec.arms}
    for row, recipe in fits:
        own = {arm: fitting(spec, arm, recipe) for arm in spec.arms}
        if not any(own[arm] in seen[arm] for arm in own):
            for arm, values in own.items():
                seen[arm].append(values)
            yield row, recipe


def _start_trial(spec: StudySpec, row: Row, recipe: Recipe) -> StartTrial:
    assert row.trial is not None
    used = {name for name in recipe if name in _CONVERTED or _searched_as(spec, name, recipe)}
    return StartTrial(row.arm, row.block, row.trial, {name: recipe[name] for name in recipe if name in used})


def _searched_as(spec: StudySpec, name: str, recipe: Recipe) -> bool:
    """Whether some arm searches this value, under its name or a converted one."""
    needed = {key: recipe[key] for key in {name, *_CONVERTED} if key in recipe}
    rest = {key: value for key, value in needed.items() if key != name}
    return any(fitting(spec, arm, needed) != fitting(spec, arm, rest) for arm in spec.arms)


# ---------------------------------------------------------------- what differs


def _still_running(earlier: StudyRecord) -> Iterator[str]:
    left = sum(row.state != "done" for arm in earlier.arms.values() for row in arm.search())
    if left:
        yield f"{earlier.name} still searches: {left} of its trials were not done, and are not considered"


def _notes(spec: StudySpec, before: StudySpec, found: Sequence[tuple[Row, Recipe]]) -> Iterator[str]:
    """What differs between the studies, and which values were left out, one line each; the first few."""
    lines = [*_other_question(spec, before), *_left_out(spec, before, [recipe for _, recipe in found])]
    yield from lines[:_NOTES]
    if len(lines) > _NOTES:
        yield f"and {len(lines) - _NOTES} more differences"


def _other_question(spec: StudySpec, before: StudySpec) -> Iterator[str]:
    own, other = spec.metric, before.metric
    if (own.name, own.direction) != (other.name, other.direction):
        yield f"{before.name} ranks its trials by {other.name} ({other.direction}), not by {own.name} ({own.direction})"
    if spec.kind is not before.kind:
        yield f"{before.name} has a task of kind {before.task.kind}, not {spec.task.kind}"
        return
    for change in changes(before, spec):
        if change.key.startswith(("task.", "training.", "schedule.")) and not _is_domain(change.before, change.after):
            yield f"{change.difference} (in {before.name} -> here)"


def _is_domain(before: Any, after: Any) -> bool:
    return isinstance(before, Range | Choice) or isinstance(after, Range | Choice)


def _left_out(spec: StudySpec, before: StudySpec, recipes: Sequence[Recipe]) -> Iterator[str]:
    domains = {name: domain for arm in spec.arms for name, domain in spec.space(arm).items()}
    for name, domain in domains.items():
        having = [recipe for recipe in recipes if _meaning(name) in set(map(_meaning, recipe))]
        outside = sum(not any(name in fitting(spec, arm, recipe) for arm in spec.arms) for recipe in having)
        if not having:
            yield f"{name}: no trial of {before.name} had it; the sampler proposes it"
        elif outside:
            of_all = f"{outside} of {len(having)} trials of {before.name}"
            yield f"{name}: {of_all} lie outside of {domain}; these values are left out"
    searched = set(map(_meaning, domains))
    for name in dict.fromkeys(name for arm in before.arms for name in before.space(arm)):
        if _meaning(name) not in searched:
            yield f"{name}: not searched here; ignored"


def _meaning(name: str) -> str:
    """One name for all names of a value: of one optimizer alone, or the upper end of amplification."""
    own = name.rpartition(".")[2] if name.startswith(OF_OPTIMIZERS) else name
    return min(UPPER_ENDS) if own in UPPER_ENDS else own


def _why(spec: StudySpec, before: StudySpec, recipes: Sequence[Recipe]) -> str:
    """Why no trial fits, by the first arm that none fits."""
    unfit = (arm for arm in spec.arms if not any(fitting(spec, arm, recipe) for recipe in recipes))
    arm = next(unfit, next(iter(spec.arms)))
    own = ", ".join(f"{name} ({domain})" for name, domain in spec.space(arm).items()) or "nothing"
    other = ", ".join(dict.fromkeys(name for each in before.arms for name in before.space(each))) or "nothing"
    return f"arm {arm} searches {own}; {before.name} searched {other}, with no value in these ranges"
