"""The models of a study file, a configuration and an exported file for one kind of task.

All kinds share the tables. A kind adds its [task], its own keys and required keys of [training], and its metrics.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, cast, get_args

from pydantic import Field, create_model

from ralr_tune.studyfile.configuration import (
    Configuration,
    FirstTrainingConfig,
    FurtherTrainingConfig,
    TrainingConfig,
)
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.sections import (
    REQUIRED,
    ArmSection,
    FirstTrainingKeys,
    FurtherTrainingKeys,
    Name,
    StudyFile,
    StudySection,
    TrainingKeys,
)
from ralr_tune.studyfile.values import Extended, fixed_type, hints


@cache
def study_file(kind: Kind) -> type[StudyFile]:
    """The model of a study file of this kind."""
    own: dict[str, Any] = {"training": (training_keys(kind) | None, None)}
    arm = create_model("ArmSection", __base__=ArmSection, **own)
    fields: dict[str, Any] = {
        "study": (_study_section(kind), ...),
        "task": (kind.section, ...),
        "training": (_training_section(kind), ...),
        "arms": (Annotated[dict[Name, arm], Field(min_length=1, max_length=100)], ...),
    }
    return create_model("StudyFile", __base__=StudyFile, **fields)


@cache
def training_keys(kind: Kind) -> type[TrainingKeys]:
    """Every key of [training], all optional: the keys that an arm may override."""
    own: dict[str, Any] = {key: (hint | None, None) for key, hint in hints(kind.training).items()}
    between = create_model("OwnTrainingKeys", __base__=Extended, **own)
    # pydantic collects the keys of the last base first
    bases = (FurtherTrainingKeys, between, FirstTrainingKeys)
    made = cast(type[TrainingKeys], create_model("TrainingKeys", __base__=bases, __doc__=TrainingKeys.__doc__))
    made.added = TrainingKeys.added | _added(kind)
    return made


@cache
def training_config(kind: Kind) -> type[TrainingConfig]:
    """[training] with one value per key."""
    defaults = kind.training.model_fields
    own: dict[str, Any] = {key: (fixed_type(hint), defaults[key].default) for key, hint in hints(kind.training).items()}
    between = create_model("OwnTrainingConfig", __base__=Extended, **own)
    bases = (FurtherTrainingConfig, between, FirstTrainingConfig)
    shared = hints(TrainingConfig)
    required: dict[str, Any] = {key: (shared[key], ...) for key in sorted(kind.required & shared.keys())}
    made = cast(type[TrainingConfig], create_model("TrainingConfig", __base__=bases, **required))
    made.added = TrainingConfig.added | _added(kind)
    return made


def _added(kind: Kind) -> frozenset[str]:
    return kind.training.added if issubclass(kind.training, Extended) else frozenset()


@cache
def configuration(kind: Kind) -> type[Configuration]:
    """One point of an arm's space."""
    made = create_model("Configuration", __base__=Configuration, training=(training_config(kind), ...))
    made.kind = kind
    return made


def _study_section(kind: Kind) -> type[StudySection]:
    fields: dict[str, Any] = {"metric": (str, kind.default_metric.name if kind.metrics else "")}
    return create_model("StudySection", __base__=StudySection, **fields)


def _training_section(kind: Kind) -> type[TrainingKeys]:
    """[training] itself, in which some keys are required."""
    keys = training_keys(kind)
    known = hints(keys)
    required: dict[str, Any] = {key: (_given(known[key]), ...) for key in sorted(REQUIRED | kind.required)}
    optimizer = (_given(known["optimizer"]), "sgd")
    return create_model("TrainingSection", __base__=keys, optimizer=optimizer, **required)


def _given(hint: Any) -> Any:
    """The annotation of a key that may be None, without the None."""
    (given,) = (part for part in get_args(hint) if part is not type(None))
    return given
