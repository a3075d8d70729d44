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
from ralr_tune.studyfile.budgets import Budget, SplitSection, parse_budget
from ralr_tune.studyfile.configuration import Configuration, task_parameter
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.optimizer_keys import OF_IMPORTED
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.studyfile.parameters import OF_OPTIMIZERS, TABLES, Parameter, possible, training_parameters
from ralr_tune.studyfile.sections import (
    CURVE_OPTIONS,
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
        """The metric by which trials are judged; the kind's default while the file names an unknown one, which is an
        error of the file, so that its other mistakes are found in the same check."""
        offered = self.kind.metrics_of(self.task)
        default = next(iter(offered.values()))
        return offered.get(self.study.metric or default.name, default)

    @property
    def prune_metric(self) -> Metric | None:
        """What the pruner sees in place of the study's metric; None: the study's metric."""
        name = self.search.prune_metric
        return None if name is None else self.kind.epoch_metrics(self.task, self.metric)[name]

    @property
    def margin(self) -> float:
        """Differences below it count as equivalent, in the metric's unit."""
        return self.metric.default_margin if self.confirm.margin is None else self.confirm.margin

    @cached_property
    def search(self) -> SearchSection:
        """[search], with the trials that its budget was split into (see `needs_split`), or with those of one block if
        the file gives those of all (`divided`)."""
        search, split = self.file.search, self.file.split
        if split is not None:
            return search.model_copy(update={"trials": split.trials})
        return search.model_copy(update={"trials": search.trials // search.blocks}) if search.divided else search

    @cached_property
    def confirm(self) -> ConfirmSection:
        """[confirm], with the seeds that the budget was split into."""
        confirm, split = self.file.confirm, self.file.split
        key = "most_seeds" if confirm.seeds == "auto" else "seeds"
        return confirm if split is None else confirm.model_copy(update={key: split.seeds})

    @property
    def budget(self) -> Budget | None:
        """`search.budget`."""
        return None if self.file.search.budget is None else parse_budget(self.file.search.budget)

    @property
    def needs_split(self) -> bool:
        """Whether trials and seeds are still to be chosen from the budget (`search.budget.split_of`)."""
        return self.file.search.budget is not None and self.file.split is None

    def with_split(self, split: SplitSection) -> StudySpec:
        """The same study with these trials and seeds, in its file and in its text."""
        table = "\n".join(["# Chosen from search.budget", *split.as_toml()])
        return replace(
            self, file=self.file.model_copy(update={"split": split}), text=f"{self.text.rstrip()}\n\n{table}\n"
        )

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
        """The file with metric, margin, windows and split filled in, whose defaults depend on other keys: equivalent
        files compare equal."""
        arms = {name: _whole_window(arm) for name, arm in self.arms.items() if self.schedule(name).warmup == 0}
        filled = {
            "study": self.study.model_copy(update={"metric": self.metric.name}),
            "search": self.search,
            "confirm": self.confirm.model_copy(update={"margin": self.margin}),
            "arms": {**self.arms, **arms},
            "split": None,
        }
        return self.file.model_copy(update=filled)

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
        own = (each.name for arm in self.arms for each in self._parameters(arm) if each.name.startswith(OF_OPTIMIZERS))
        return (
            *(key for key in models.training_keys(self.kind).model_fields if key not in (TABLES, OF_IMPORTED)),
            *dict.fromkeys(own),
            *(f"schedule.{key}" for key in ScheduleSection.model_fields),
            *(f"amplify.{key}" for key in AmplifySection.model_fields),
            *(f"noise.{key}" for key in NoiseSection.model_fields),
            *map(task_parameter, self.task_space),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the meaning of the file (without comments, the order of tables, [storage] and the price)."""
        left_out: Any = {"storage": True, "split": True, "study": {"cost_per_hour"}}
        meaning = self.meaning.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def space(self, arm: str) -> dict[str, Domain]:
        """Searched parameters of an arm by Optuna name; those that arms may share come first.

        A trial has only those that its optimizer uses (see `used_space`).
        """
        return {each.name: each.domain for each in self._parameters(arm) if each.domain is not None}

    def used_space(self, arm: str, params: Mapping[str, Any]) -> dict[str, Domain]:
        """The part of an arm's space that a trial with the optimizer of `params` uses."""
        optimizer = self._optimizer(arm, params)
        return {
            each.name: each.domain
            for each in self._parameters(arm)
            if each.domain is not None and each.is_used(optimizer)
        }

    def used_names(self, arm: str, optimizer: str) -> frozenset[str]:
        """Parameters of an arm, fixed or searched, that a trial with this optimizer uses."""
        return frozenset(each.name for each in self._parameters(arm) if each.is_used(optimizer))

    def conditional(self, arm: str) -> frozenset[str]:
        """Searched parameters of an arm that only some of its optimizers use."""
        found = (each for each in self._parameters(arm) if each.domain is not None)
        return frozenset(each.name for each in found if each.optimizers is not None)

    def dimensions(self, arm: str) -> dict[str, dict[str, Any]]:
        """`space` as plain dictionaries (see records.ArmRecord)."""
        return {name: domain.describe() for name, domain in self.space(arm).items()}

    def settings(self, arm: str) -> dict[str, Any]:
        """All parameters of an arm, fixed or searched (see records.ArmRecord)."""
        return {
            each.name: each.value if each.domain is None else each.domain.describe() for each in self._parameters(arm)
        }

    def columns(self) -> dict[str, int]:
        """The dimension of every parameter in the quasi-random design that all arms share."""
        names = dict.fromkeys(name for arm in self.arms for name in self.space(arm))
        in_all = [name for name in names if all(name in self.space(arm) for arm in self.arms)]
        # the others sorted by name, since the order of arms must not matter (see `fingerprint`)
        return {name: column for column, name in enumerate(dict.fromkeys([*in_all, *sorted(names)]))}

    def configuration(self, arm: str, params: Mapping[str, Any]) -> Configuration:
        """The configuration of `arm` at `params` (Optuna's values by name).

        Raises KeyError if a searched parameter that the optimizer uses is missing from `params`.
        """
        tables: dict[str, dict[str, Any]] = {"training": {}, "schedule": {"options": {}}, "task": {}, "options": {}}
        optimizer = self._optimizer(arm, params)
        for each in self._parameters(arm):
            if each.is_used(optimizer):
                _place(tables.setdefault(each.table, {}), each.key, each.resolved(params))
        tables["training"] = dict(self.kind.in_effect(tables["training"] | {"options": tables.pop("options")}))
        _drop_foreign_options(tables["schedule"])
        return models.configuration(self.kind).model_validate(tables)

    def schedule(self, arm: str) -> ScheduleSection:
        """The base curve of an arm: its own, otherwise the shared one."""
        return self.arms[arm].schedule or self.file.schedule

    def training(self, arm: str) -> dict[str, Any]:
        """Fixed values and domains of [training] for an arm: its own keys override the shared ones.

        Without keys that have no effect in this arm, and without the tables of single optimizers (`optimizer_tables`).
        """
        keys = models.training_keys(self.kind).model_fields
        given = ((key, getattr(layer, key)) for layer in self._training_layers(arm) for key in keys if key != TABLES)
        merged = {key: value for key, value in given if value is not None}
        return dict(self.kind.in_effect({key: merged[key] for key in keys if key in merged}))

    def optimizer_tables(self, arm: str) -> dict[str, dict[str, Any]]:
        """The keys of each [training.optimizers.NAME] for an arm: its own override the shared ones."""
        tables: dict[str, dict[str, Any]] = {}
        for layer in self._training_layers(arm):
            for name, table in (layer.optimizers or {}).items():
                given = {key: value for key, value in table if value is not None}
                tables[name] = tables.get(name, {}) | given
        return tables

    def optimizers(self, arm: str) -> tuple[str, ...]:
        """The optimizers that trials of an arm may have."""
        return possible(self.training(arm).get("optimizer", "sgd"))

    @property
    def imported_optimizers(self) -> tuple[str, ...]:
        """The optimizers of all arms that import paths name."""
        return tuple(dict.fromkeys(name for arm in self.arms for name in self.optimizers(arm) if is_imported(name)))

    def _training_layers(self, arm: str) -> list[TrainingKeys]:
        own = self.arms[arm].training
        return [self.file.training, *([own] if own else [])]

    def _optimizer(self, arm: str, params: Mapping[str, Any]) -> str:
        """The optimizer of a trial; without one in `params`, the first that it may have."""
        names = self.optimizers(arm)
        return str(params.get("optimizer", names[0])) if len(names) > 1 else names[0]

    def _parameters(self, arm: str) -> Iterator[Parameter]:
        """Every key of an arm; its own keys override the shared ones."""
        section = self.arms[arm]
        yield from training_parameters(self.training(arm), self.optimizer_tables(arm))
        yield from (Parameter(task_parameter(path), value, "task", path) for path, value in self.task_space.items())
        for table in _PREFIXES:
            model = self.schedule(arm) if table == "schedule" else getattr(section, table)
            for key in type(model).model_fields if model is not None else ():
                value = getattr(model, key)
                if value is not None:
                    yield Parameter(f"{table}.{key}", value, table, key)


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


def _place(table: dict[str, Any], key: str, value: Any) -> None:
    target = table["options"] if "options" in table and key in CURVE_OPTIONS else table
    target[key] = value


def _drop_foreign_options(schedule: dict[str, Any]) -> None:
    """Removes the options of other curves, which are present if the curve is searched."""
    own = OPTIONS[schedule["name"]]
    schedule["options"] = {key: value for key, value in schedule["options"].items() if key in own}
