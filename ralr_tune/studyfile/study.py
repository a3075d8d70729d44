"""A study file with its meaning: arms, search spaces, configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ralr_tune.metric import Metric
from ralr_tune.schedules.curves import OPTIONS
from ralr_tune.studyfile.configuration import Configuration
from ralr_tune.studyfile.metrics import beside_default, metric_of
from ralr_tune.studyfile.sections import (
    CURVE_OPTIONS,
    OPTIMIZER_OPTIONS,
    OPTIMIZERS,
    AmplifySection,
    ArmSection,
    ConfirmSection,
    NoiseSection,
    ScheduleSection,
    SearchSection,
    StorageSection,
    StudyFile,
    StudySection,
    TrainingKeys,
)
from ralr_tune.studyfile.values import Choice, Domain, Range

_PREFIXES = ("schedule", "amplify", "noise")
"""Tables whose parameters carry the table's name; those of [training] stand alone (`lr`)."""

PARAMETERS: tuple[str, ...] = (
    *TrainingKeys.model_fields,
    *(f"schedule.{key}" for key in ScheduleSection.model_fields),
    *(f"amplify.{key}" for key in AmplifySection.model_fields),
    *(f"noise.{key}" for key in NoiseSection.model_fields),
)
"""Optuna names of all that a trial has; most of it may be searched."""


@dataclass(frozen=True)
class TaskSpec:
    """[task] as the task's loader takes it."""

    kind: Literal["classification", "simulated"]
    data: Mapping[str, Any]
    """The data table, defaults filled in; `source` names the kind of source."""
    model: str = ""
    model_options: Mapping[str, Any] | None = None
    pretrained: bool = False
    validation: float = 0.2
    metric: str | None = None
    """Name of the metric that trials are judged by; None: the kind's default."""


@dataclass(frozen=True)
class StudySpec:
    """What a study file says. Built by `reading.parse_study` or `reading.load_study_file`, never by hand."""

    file: StudyFile
    text: str
    """The file as it was read; stored with the study, and enough to build this again."""

    @property
    def study(self) -> StudySection:
        return self.file.study

    @property
    def name(self) -> str:
        return self.file.study.name

    @cached_property
    def metric(self) -> Metric:
        """What trials are judged by."""
        return metric_of(self.file.task.kind, self.study.metric)

    @property
    def margin(self) -> float:
        """Differences below it count as equivalent, in the metric's own unit."""
        return self.metric.default_margin if self.confirm.margin is None else self.confirm.margin

    @property
    def search(self) -> SearchSection:
        return self.file.search

    @property
    def confirm(self) -> ConfirmSection:
        return self.file.confirm

    @property
    def storage(self) -> StorageSection:
        return self.file.storage

    @property
    def arms(self) -> Mapping[str, ArmSection]:
        """Arms in the file's order."""
        return self.file.arms

    @cached_property
    def task(self) -> TaskSpec:
        return TaskSpec(**self.file.task.model_dump(), metric=beside_default(self.file.task.kind, self.study.metric))

    @cached_property
    def meaning(self) -> StudyFile:
        """The file with the defaults written out that depend on other keys: files that mean the same are equal."""
        study = self.study.model_copy(update={"metric": self.study.metric or self.metric.name})
        confirm = self.confirm.model_copy(update={"margin": self.margin})
        return self.file.model_copy(update={"study": study, "confirm": confirm})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the file means (comments, order of tables and [storage] aside)."""
        meaning = self.meaning.model_dump(mode="json", exclude={"storage"})
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def space(self, arm: str) -> dict[str, Domain]:
        """Searched parameters of an arm by Optuna name, those that arms may share first."""
        return {name: value for name, value in self._values(arm) if isinstance(value, Range | Choice)}

    def dimensions(self, arm: str) -> dict[str, dict[str, Any]]:
        """`space` as plain tables (see records.ArmRecord)."""
        return {name: domain.describe() for name, domain in self.space(arm).items()}

    def settings(self, arm: str) -> dict[str, Any]:
        """All that an arm trains with, searched or not (see records.ArmRecord)."""
        return {
            name: value.describe() if isinstance(value, Range | Choice) else value for name, value in self._values(arm)
        }

    def columns(self) -> dict[str, int]:
        """A number for every parameter of the study, the same in all arms: its dimension in a shared design."""
        names = dict.fromkeys(name for arm in self.arms for name in self.space(arm))
        in_all = [name for name in names if all(name in self.space(arm) for arm in self.arms)]
        # the rest by name, since the order of the arms means nothing (see `fingerprint`)
        return {name: column for column, name in enumerate(dict.fromkeys([*in_all, *sorted(names)]))}

    def configuration(self, arm: str, params: Mapping[str, Any]) -> Configuration:
        """The configuration of `arm` at `params` (Optuna's values by name).

        Raises KeyError when a searched parameter is missing from `params`.
        """
        tables: dict[str, dict[str, Any]] = {"training": {"options": {}}, "schedule": {"options": {}}}
        for name, value in self._values(arm):
            settled = _settle(value, params[name]) if isinstance(value, Range | Choice) else value
            table, _, key = name.rpartition(".")
            _place(tables.setdefault(table or "training", {}), key, settled)
        _drop_foreign_options(tables)
        return Configuration.model_validate(tables)

    def schedule(self, arm: str) -> ScheduleSection:
        """The base curve of an arm: its own, else the shared one."""
        return self.arms[arm].schedule or self.file.schedule

    def training(self, arm: str) -> dict[str, Any]:
        """Fixed values and domains of [training] as an arm has them: its own keys over the shared ones."""
        own = self.arms[arm].training
        layers: list[TrainingKeys] = [self.file.training, *([own] if own else [])]
        given = ((key, getattr(layer, key)) for layer in layers for key in TrainingKeys.model_fields)
        merged = {key: value for key, value in given if value is not None}
        return {key: merged[key] for key in TrainingKeys.model_fields if key in merged}

    def _values(self, arm: str) -> Iterator[tuple[str, Any]]:
        """(Optuna name, fixed value or domain) of every key that an arm has, its own over the shared ones."""
        section = self.arms[arm]
        yield from self.training(arm).items()
        for table in _PREFIXES:
            model = self.schedule(arm) if table == "schedule" else getattr(section, table)
            for key in type(model).model_fields if model is not None else ():
                value = getattr(model, key)
                if value is not None:
                    yield f"{table}.{key}", value


def _settle(domain: Domain, value: Any) -> Any:
    return domain.decode(value) if isinstance(domain, Choice) else value


def _place(table: dict[str, Any], key: str, value: Any) -> None:
    home = table["options"] if "options" in table and key in OPTIMIZER_OPTIONS | CURVE_OPTIONS else table
    home[key] = value


def _drop_foreign_options(tables: dict[str, dict[str, Any]]) -> None:
    """Where optimizer or curve are searched, each takes those options that are its own."""
    optimizer, curve = tables["training"].get("optimizer", "sgd"), tables["schedule"]["name"]
    for table, own in (("training", OPTIMIZERS[optimizer]), ("schedule", OPTIONS[curve])):
        options = tables[table]["options"]
        tables[table]["options"] = {key: options[key] for key in options if key in own}
