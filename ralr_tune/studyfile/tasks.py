"""The tasks of a study, if values of [task] are searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ralr_tune.studyfile.configuration import TASK
from ralr_tune.studyfile.contradictions import corners
from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.studyfile.study import StudySpec


def first_task(spec: StudySpec) -> TaskSection:
    """[task] with the first or lowest of what is searched in it."""
    return spec.resolved_task(first_values(spec))


def first_values(spec: StudySpec) -> Mapping[str, Any]:
    """The first or lowest of what is searched in [task] (`Configuration.task`)."""
    arm = next(iter(spec.arms))
    return spec.configuration(arm, next(corners(spec.space(arm), ()))).task


def typical_tasks(spec: StudySpec, key: str) -> Iterator[TaskSection]:
    """[task] with every choice of `key` and, for each, the ends and choices of every other value; each task once."""
    arm = next(iter(spec.arms))
    space = spec.space(arm)
    others = [name for name in space if name.startswith(TASK) and name != f"{TASK}{key}"]
    seen = set()
    for other in others or [""]:
        for corner in corners(space, (f"{TASK}{key}", other)):
            task = spec.resolved_task(spec.configuration(arm, corner).task)
            if (identity := repr(task)) not in seen:
                seen.add(identity)
                yield task
