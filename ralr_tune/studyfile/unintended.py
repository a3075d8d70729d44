"""Values that could be trained with, but that no user can mean.

They are refused when a study file is read, but not in the text of a stored study: earlier releases accepted them, and
its results can still be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ralr_tune.studyfile.configuration import ScheduleConfig
from ralr_tune.studyfile.contradictions import Contradiction, corners, training_paths
from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.sections import FROM_BUDGET
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import Choice

_AMPLIFYING_NAME = "ralr"
"""An arm of this name (in any case) must amplify."""


def unintended(spec: StudySpec) -> Iterator[Contradiction]:
    """All of them, in the order of the file."""
    for check in _CHECKS:
        yield from check(spec)


def _check_milestones(spec: StudySpec) -> Iterator[Contradiction]:
    for arm in spec.arms:
        path = ("arms", arm, "schedule") if spec.arms[arm].schedule else ("schedule",)
        for corner in corners(spec.space(arm), ("epochs", "schedule.name", "schedule.milestones")):
            configuration = spec.configuration(arm, corner)
            given = _milestones(configuration.schedule)
            reached = [each * configuration.training.epochs if each < 1 else each for each in given]
            if any(later < earlier for earlier, later in pairwise(reached)):
                where = f"{dotted((*path, 'milestones'))} = {shown(given)}"
                line = f"{where}: must be in the order in which they are reached"
                yield Contradiction(line, (path, *training_paths(arm, "epochs")))
                break


def _milestones(schedule: ScheduleConfig) -> tuple[float, ...]:
    return tuple(schedule.options.get("milestones") or ())


def _check_probability(spec: StudySpec) -> Iterator[Contradiction]:
    for arm, section in spec.arms.items():
        given = section.amplify.probability if section.amplify else None
        values = given.choices if isinstance(given, Choice) else (given,)
        if all(value == 0 for value in values):
            path = ("arms", arm, "amplify", "probability")
            line = (
                f"{dotted(path)} = {given}: it would never amplify; must be above 0 (an arm without amplify trains so)"
            )
            yield Contradiction(line, (path,))


def _check_arm_names(spec: StudySpec) -> Iterator[Contradiction]:
    for arm, section in spec.arms.items():
        if arm.lower() == _AMPLIFYING_NAME and section.amplify is None:
            path = ("arms", arm)
            line = f"{dotted(path)}: has no amplify, so it would train with the base curve alone"
            yield Contradiction(f"{line}; add amplify = {{ probability, lower, width }}, or rename the arm", (path,))


def _check_margin(spec: StudySpec) -> Iterator[Contradiction]:
    margin = spec.confirm.margin
    offered = ["", *spec.kind.metrics_of(spec.task)]
    if spec.study.metric not in offered or spec.metric.unit != "share" or margin is None or margin < 1:
        return
    line = f"confirm.margin = {margin:g}: must be below 1: it is a share, and {margin / 100:g} is {margin:g} points"
    yield Contradiction(line, (("confirm", "margin"), ("study", "metric"), ("task", "kind")))


def _check_top(spec: StudySpec) -> Iterator[Contradiction]:
    top, trials = spec.confirm.top, spec.search.trials
    if "top" in spec.confirm.model_fields_set and FROM_BUDGET < trials < top:
        paths: tuple[KeyPath, ...] = (("confirm", "top"), ("search", "trials"))
        yield Contradiction(f"confirm.top = {top}: must be at most search.trials, {trials}", paths)


_CHECKS = (_check_milestones, _check_arm_names, _check_probability, _check_margin, _check_top)
