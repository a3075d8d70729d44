"""The meaning of a study file: arms, search spaces, configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import getitem
from typing import Any

from pydantic import BaseModel

from ralr_tune.metric import Metric
from ralr_tune.schedules.curves import OPTIONS
from ralr_tune.studyfile import models
from ralr_tune.studyfile.configuration import Configuration, task_parameter, task_path
from ralr_tune.studyfile.kind import Kind
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
    TaskSection,
    TrainingKeys,
)
from ralr_tune.studyfile.values import Choice, Domain, Range

_PREFIXES = ("schedule", "amplify", "noise")
"""Tables whose parameters are prefixed by the table's name; parameters of [training] have no prefix (`lr`)."""


@dataclass(frozen=True)
class StudySpec:
    """A valid study file. Built only by `reading.parse_study` and `reading.load_study_file`."""

    file: StudyFile
    text: str
    """The text of the file, without passwords; stored with the study and sufficient to rebuild this object."""
    kind: Kind

    @property
    def study(self) -> StudySection:
        return self.file.study

    @property
    def name(self) -> str:
        return self.file.study.name

    @cached_property
    def metric(self) -> Metric:
        """The metric by which trials are judged."""
        offered = self.kind.metrics_of(self.task)
        return offered[self.study.metric or next(iter(offered))]

    @property
    def prune_metric(self) -> Metric | None:
        """What the pruner sees in place of the study's metric; None: the study's metric."""
        name = self.search.prune_metric
        return None if name is None else self.kind.epoch_metrics(self.task, self.metric)[name]

    @property
    def margin(self) -> float:
        """Differences below it count as equivalent, in the metric's unit."""
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
        """Arms in the order of the file."""
        return self.file.arms

    @property
    def task(self) -> TaskSection:
        """[task] as in the file; its values may be searched (see `resolved_task`)."""
        return self.file.task

    @cached_property
    def meaning(self) -> StudyFile:
        """The file with metric, margin and windows filled in, whose defaults depend on other keys: equivalent files
        compare equal."""
        study = self.study.model_copy(update={"metric": self.metric.name})
        confirm = self.confirm.model_copy(update={"margin": self.margin})
        arms = {name: _whole_window(arm) for name, arm in self.arms.items() if self.schedule(name).warmup == 0}
        return self.file.model_copy(update={"study": study, "confirm": confirm, "arms": {**self.arms, **arms}})

    def as_stored(self, fingerprint: str) -> StudySpec:
        """The study as the release that stored it with this fingerprint read its text.

        Without `window`, earlier releases amplified the warm-up, too.
        """
        arms = {name: _whole_window(arm) for name, arm in self.arms.items()}
        earlier = replace(self, file=self.file.model_copy(update={"arms": arms}))
        return earlier if earlier.fingerprint == fingerprint else self

    @cached_property
    def task_space(self) -> dict[str, Domain]:
        """The searched values of [task], by their path below it."""
        return dict(searched(self.task))

    def resolved_task(self, searched: Mapping[str, Any]) -> TaskSection:
        """[task] with these values (`Configuration.task`) in place of searched ones."""
        if not self.task_space:
            return self.task
        dumped = self.task.model_dump()
        for path in self.task_space:
            *tables, key = path.split(".")
            reduce(getitem, tables, dumped)[key] = searched[path]
        return type(self.task).model_validate(dumped)

    def task_identity(self, searched: Mapping[str, Any]) -> str:
        """A hash of the task with these values; checkpoints with another identity are not used."""
        return self.kind.identity(self.resolved_task(searched), seed=self.study.seed, metric=self.metric)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters of a trial, most of which may be searched."""
        return (
            *models.training_keys(self.kind).model_fields,
            *(f"schedule.{key}" for key in ScheduleSection.model_fields),
            *(f"amplify.{key}" for key in AmplifySection.model_fields),
            *(f"noise.{key}" for key in NoiseSection.model_fields),
            *map(task_parameter, self.task_space),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the meaning of the file (without comments, the order of tables, [storage] and the price)."""
        meaning = self.meaning.model_dump(mode="json", exclude={"storage": True, "study": {"cost_per_hour"}})
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def space(self, arm: str) -> dict[str, Domain]:
        """Searched parameters of an arm by Optuna name; those that arms may share come first."""
        return {name: value for name, value in self._values(arm) if isinstance(value, Range | Choice)}

    def dimensions(self, arm: str) -> dict[str, dict[str, Any]]:
        """`space` as plain dictionaries (see records.ArmRecord)."""
        return {name: domain.describe() for name, domain in self.space(arm).items()}

    def settings(self, arm: str) -> dict[str, Any]:
        """All parameters of an arm, fixed or searched (see records.ArmRecord)."""
        return {
            name: value.describe() if isinstance(value, Range | Choice) else value for name, value in self._values(arm)
        }

    def columns(self) -> dict[str, int]:
        """The dimension of every parameter in the quasi-random design that all arms share."""
        names = dict.fromkeys(name for arm in self.arms for name in self.space(arm))
        in_all = [name for name in names if all(name in self.space(arm) for arm in self.arms)]
        # the others sorted by name, since the order of arms must not matter (see `fingerprint`)
        return {name: column for column, name in enumerate(dict.fromkeys([*in_all, *sorted(names)]))}

    def configuration(self, arm: str, params: Mapping[str, Any]) -> Configuration:
        """The configuration of `arm` at `params` (Optuna's values by name).

        Raises KeyError if a searched parameter is missing from `params`.
        """
        tables: dict[str, dict[str, Any]] = {"training": {"options": {}}, "schedule": {"options": {}}, "task": {}}
        for name, value in self._values(arm):
            resolved = _resolve(value, params[name]) if isinstance(value, Range | Choice) else value
            if (path := task_path(name)) is not None:
                tables["task"][path] = resolved
                continue
            table, _, key = name.rpartition(".")
            _place(tables.setdefault(table or "training", {}), key, resolved)
        _drop_foreign_options(tables)
        tables["training"] = dict(self.kind.in_effect(tables["training"]))
        return models.configuration(self.kind).model_validate(tables)

    def schedule(self, arm: str) -> ScheduleSection:
        """The base curve of an arm: its own, otherwise the shared one."""
        return self.arms[arm].schedule or self.file.schedule

    def training(self, arm: str) -> dict[str, Any]:
        """Fixed values and domains of [training] for an arm: its own keys override the shared ones. Keys without effect
        in this arm are left out."""
        own = self.arms[arm].training
        layers: list[TrainingKeys] = [self.file.training, *([own] if own else [])]
        keys = models.training_keys(self.kind).model_fields
        given = ((key, getattr(layer, key)) for layer in layers for key in keys)
        merged = {key: value for key, value in given if value is not None}
        return dict(self.kind.in_effect({key: merged[key] for key in keys if key in merged}))

    def _values(self, arm: str) -> Iterator[tuple[str, Any]]:
        """(Optuna name, fixed value or domain) of every key of an arm; its own keys override the shared ones."""
        section = self.arms[arm]
        yield from self.training(arm).items()
        yield from ((task_parameter(path), domain) for path, domain in self.task_space.items())
        for table in _PREFIXES:
            model = self.schedule(arm) if table == "schedule" else getattr(section, table)
            for key in type(model).model_fields if model is not None else ():
                value = getattr(model, key)
                if value is not None:
                    yield f"{table}.{key}", value


def _whole_window(arm: ArmSection) -> ArmSection:
    """The arm with the whole run as its window, unless it has another or does not amplify."""
    if arm.amplify is None or arm.amplify.window is not None:
        return arm
    return arm.model_copy(update={"amplify": arm.amplify.model_copy(update={"window": (0.0, 1.0)})})


def searched(table: BaseModel | Mapping[str, Any]) -> Iterator[tuple[str, Domain]]:
    """The searched values of a table and of its nested tables, by path."""
    for key, value in dict(table).items():
        if isinstance(value, Range | Choice):
            yield key, value
        elif isinstance(value, BaseModel | dict):
            yield from ((f"{key}.{path}", domain) for path, domain in searched(value))


def _resolve(domain: Domain, value: Any) -> Any:
    return domain.decode(value) if isinstance(domain, Choice) else value


def _place(table: dict[str, Any], key: str, value: Any) -> None:
    target = table["options"] if "options" in table and key in OPTIMIZER_OPTIONS | CURVE_OPTIONS else table
    target[key] = value


def _drop_foreign_options(tables: dict[str, dict[str, Any]]) -> None:
    """Removes the options of other optimizers and curves, which are present if optimizer or curve are searched."""
    optimizer, curve = tables["training"].get("optimizer", "sgd"), tables["schedule"]["name"]
    for table, own in (("training", OPTIMIZERS[optimizer]), ("schedule", OPTIONS[curve])):
        options = tables[table]["options"]
        tables[table]["options"] = {key: options[key] for key in options if key in own}
