"""Everything that would stop a study before it trains: `check`, `plan` and `run` report all of it in the same words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from ralr_tune.errors import DataError, UsageError
from ralr_tune.search.budget import problems_of_budget
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.space import distribution
from ralr_tune.store.studies import quiet_optuna
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Problem
from ralr_tune.studyfile.imports import imports_of
from ralr_tune.studyfile.problems import KeyPath
from ralr_tune.studyfile.reading import Reading, refusal

SAMPLE = 100
"""Images (or other items) of each split that are read (our choice: a second or two); `plan` and `run` read all."""


def problems(
    spec: StudySpec, *, imports: bool = True, fast: bool = False, left_out: Collection[KeyPath] = ()
) -> list[Problem]:
    """All problems that the study file alone does not show, without those that depend on `left_out`.

    `imports`: whether code that the study names may be imported. `fast`: without network and data.
    """
    found = [
        *problems_of_budget(spec),
        *_optuna_problems(spec),
        *([] if fast else spec.kind.problems(spec, imports=imports, sample=SAMPLE)),
    ]
    if not imports:
        tried = "; --no-imports forbids that, so it was not tried"
        found += [Problem(f"{each}{tried}") for each in imports_of(spec)]
    kept = [each for each in found if not each.depends_on(left_out)]
    return list({each.line: each for each in kept}.values())


def refuse(found: Collection[Problem], reading: Reading) -> None:
    """Raises all problems as one error, one line each, after those of the study file.

    A DataError if nothing but the data is wrong, otherwise a StudyFileError.
    """
    lines = [*reading.lines, *(each.line for each in found)]
    if not lines:
        return
    error = refusal(reading.source, lines)
    raise error if reading.lines or not all(each.of_data for each in found) else DataError(str(error))


def _optuna_problems(spec: StudySpec) -> Iterator[Problem]:
    """Options that Optuna does not accept when a sampler or pruner is made, or at its first use."""
    quiet_optuna()
    search = spec.search
    tries: Mapping[str, tuple[str, dict[str, Any], Callable[[], None]]] = {
        "sampler": (search.sampler, search.sampler_options, lambda: _ask(spec)),
        "pruner": (search.pruner, search.pruner_options, lambda: _prune(spec)),
    }
    for what, (name, options, attempt) in tries.items():
        try:
            attempt()
        except UsageError as error:
            yield Problem(str(error), (("search", what), ("search", f"{what}_options")))
        except (TypeError, ValueError) as error:
            line = f"search.{what}_options = {options}: {name} does not accept them: {error}"
            yield Problem(line, (("search", what), ("search", f"{what}_options"), ("arms",)))


def _ask(spec: StudySpec) -> None:
    """One suggestion for each arm."""
    for arm in spec.arms:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(sampler=make_sampler(spec, arm, 1, 0))
            study.ask({name: distribution(domain) for name, domain in spec.space(arm).items()})


def _prune(spec: StudySpec) -> None:
    """One decision about a trial, after one that is complete."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=make_pruner(spec))
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        trial = study.ask()
        trial.report(0.5, 1)
        trial.should_prune()
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
