"""Which parameters of augmentations have an effect, and what of a study's regularisers cannot work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ralr_tune.kinds.classification.section import COLOUR_OPERATIONS, MIXINGS, augmentation_of
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.studyfile.contradictions import Contradiction, Problem, path_of_key, training_paths
from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.sections import TrainingKeys
from ralr_tune.studyfile.values import Choice


def in_effect(training: Mapping[str, Any]) -> dict[str, Any]:
    """[training] without the parameters of augmentations that it never uses."""
    used = _used(training.get("augment", ()))
    return {key: value for key, value in training.items() if augmentation_of(key) in (None, *used)}


def without_effect(spec: StudySpec) -> Iterator[Contradiction]:
    """The given parameters of augmentations that no arm uses to which they apply."""
    tables: dict[KeyPath, TrainingKeys] = {("training",): spec.file.training}
    tables |= {("arms", arm, "training"): own.training for arm, own in spec.arms.items() if own.training is not None}
    for path, table in tables.items():
        for key in sorted(key for key in table.model_fields_set if augmentation_of(key)):
            applies = [arm for arm in spec.arms if path_of_key(spec, arm, key) == (*path, key)]
            used = [_used(spec.training(arm).get("augment", ())) for arm in applies]
            if used and augmentation_of(key) not in frozenset().union(*used):
                where = f"{dotted((*path, key))} = {_value(getattr(table, key))}"
                line = f"{where}: has no effect; needs {shown(augmentation_of(key))} in augment"
                yield Contradiction(line, tuple(each for arm in spec.arms for each in training_paths(arm, "augment")))


def complaints(training: TrainingConfig) -> Iterator[str]:
    """The same for one configuration."""
    used = _used(getattr(training, "augment", ()))
    for key in sorted(training.model_fields_set):
        if (name := augmentation_of(key)) and name not in used:
            yield f"training.{key} = {shown(getattr(training, key))}: has no effect; needs {shown(name)} in augment"


def misfits(spec: StudySpec, *, channels: int | None, classes: int | None) -> Iterator[Problem]:
    """Augmentations that the images do not allow. `classes`: those with training images; None: not known."""
    for arm in spec.arms:
        used = _used(spec.training(arm).get("augment", ()))
        where, paths = dotted(path_of_key(spec, arm, "augment")), (("task", "data"), *training_paths(arm, "augment"))
        if classes == 1 and (mixing := [name for name in MIXINGS if name in used]):
            line = (
                f"{where}: {mixing[0]} mixes classes, and the training images have one; needs two or more (arm {arm})"
            )
            yield Problem(line, paths)
        if channels not in (None, 1, 3) and (colour := [name for name in COLOUR_OPERATIONS if name in used]):
            line = f"{where}: {colour[0]} needs images of 1 or 3 channels; these have {channels} (arm {arm})"
            yield Problem(line, paths)


def _used(augment: Any) -> frozenset[str]:
    """Every augmentation in a list or in a choice between lists."""
    lists = augment.choices if isinstance(augment, Choice) else (augment,)
    return frozenset(name for each in lists for name in each)


def _value(value: Any) -> str:
    return shown(value.describe() if hasattr(value, "describe") else value)
