"""What is wrong with the imported optimizers of a study, before anything is trained with them (`Kind.problems`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ralr_tune.errors import UsageError
from ralr_tune.logs import warnings_to_log
from ralr_tune.studyfile.contradictions import Problem, corners, training_paths
from ralr_tune.studyfile.imports import Import, forget_module
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.training.imported_optimizer import check
from ralr_tune.training.optimizer import make_optimizer

if TYPE_CHECKING:
    from ralr_tune.studyfile import StudySpec
    from ralr_tune.studyfile.configuration import TrainingConfig


def optimizer_problems(spec: StudySpec) -> Iterator[Problem]:
    """Tries each imported optimizer of each arm, at both ends of each of its searched options."""
    for arm in spec.arms:
        tried: list[TrainingConfig] = []
        failed: set[str] = set()
        for training in _trainings(spec, arm):
            name = training.optimizer
            if not is_imported(name) or name in failed or training in tried:
                continue
            tried.append(training)
            if reason := _wrong(training):
                failed.add(name)
                absent = Import("training.optimizer", name).folder() is None
                yield Problem(
                    reason, training_paths(arm, "optimizer", "optimizer_options", "optimizers"), absent=absent
                )


def _trainings(spec: StudySpec, arm: str) -> Iterator[TrainingConfig]:
    """The first point of the space with each optimizer, and those where one of its parameters is at its other end."""
    space = spec.space(arm)
    names = ["optimizer", *(name for name in space if name in spec.conditional(arm) or name in ("lr", "weight_decay"))]
    names += [name for name in space if name.startswith("optimizer_options.") and name not in names]
    for name in names:
        for corner in corners(space, ("optimizer", name)):
            yield spec.configuration(arm, corner).training


def _wrong(training: TrainingConfig) -> str | None:
    before = frozenset(sys.modules)
    try:
        with warnings_to_log():
            check(training.optimizer, partial(make_optimizer, training), training.lr)
    except UsageError as error:
        forget_module(training.optimizer, before)
        return str(error)
    return None
