"""An exported configuration: one TOML file with everything needed to train one configuration again.

The tables of the study file with one value per key, and the origin of the configuration: [task], [training],
[schedule], [amplify] or [noise], [provenance].
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model, field_validator

from ralr_tune.errors import StudyFileError
from ralr_tune.invocation import command, python
from ralr_tune.metric import Metric, Unit
from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.seeds import SEED_BITS
from ralr_tune.studyfile import models, problems, registry
from ralr_tune.studyfile.configuration import AmplifyConfig, Configuration, NoiseConfig, ScheduleConfig, TrainingConfig
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS, OptimizerOptions
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.studyfile.problems import KeyPath, shown, unreadable
from ralr_tune.studyfile.reading import SUBSTITUTE_TASK, kind_of, read_text, read_toml, refusal
from ralr_tune.studyfile.sections import Name, ScheduleSection, TaskSection
from ralr_tune.studyfile.study import searched
from ralr_tune.studyfile.values import Frozen, one_of

if TYPE_CHECKING:
    from ralr_tune.tasks.base import Task

Seed = Annotated[int, Field(ge=0, lt=2**SEED_BITS)]
Number = Annotated[int, Field(ge=0, lt=10**9)]
Form = Literal["toml", "json", "yaml"]
_ENDINGS = (".toml", ".json", ".yaml", ".yml")
Table = TypeVar("Table", TrainingConfig, ScheduleConfig)

_SUBSTITUTES: dict[KeyPath, Any] = {
    ("training", "epochs"): 1,
    ("training", "batch_size"): 2,  # with 1, mixup and cutmix would have no pairs
    ("training", "lr"): 1.0,
}
"""Valid values that replace wrong or missing required keys, so that the other keys can still be checked."""

_MAX_PASSES = 4
"""Removing a wrong key can make its table invalid in turn; each pass removes keys one level further up."""


class Scores(Frozen):
    """One configuration on several seeds; values in the metric's own unit."""

    mean: float
    std: Annotated[float, Field(ge=0)] | None = None
    """Sample standard deviation (ddof = 1); None with one seed."""
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]

    def text(self, unit: Unit) -> str:
        """ "97.00% +- 0.31 points over 5 seeds"."""
        spread = "" if self.std is None else f" +- {unit.size(self.std, 2)}"
        return f"{unit.value(self.mean, 2)}{spread} over {len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"


def _day(value: Any) -> Any:
    """JSON has no days: they are texts there."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    """One hash is a list of one."""
    return [value] if isinstance(value, str) else value


Digests = Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False, min_length=1)]


class Provenance(Frozen):
    """[provenance]: the origin of a configuration and its results."""

    study: Name
    arm: Name
    block: Number
    trial: Number
    """Optuna's number of the search trial in its arm and block."""
    metric: Name
    value: float
    """Metric at the trial's last epoch, on the validation split. Biased upwards: the best of many trials."""
    confirmed: Scores | None = None
    """The same configuration on fresh seeds, on the validation split."""
    tested: Scores | None = None
    """The same runs on the test split."""
    study_seed: Seed
    """Determines the validation split."""
    seed: Seed
    """The search trial's training seed."""
    created: Annotated[date, BeforeValidator(_day)]
    """The day on which the trial was finished (UTC)."""
    fingerprint: str
    """Fingerprint of the study file (StudySpec.fingerprint)."""
    packages: dict[str, str] = {}
    """Package versions with which the trial ran."""
    files: dict[str, Digests] = {}
    """SHA-256 of what the trials read besides the data, such as weights and modules, by the study's name for it; of
    code also that of its syntax (see `studyfile.code.digests`)."""

    def lines(self, unit: Unit) -> list[str]:
        """The same as a few lines of text; `unit`: the metric's."""
        block = f" of block {self.block}" if self.block > 1 else ""
        found = {"validation": self.confirmed, "test": self.tested}
        return [
            f"Found by ralr_tune: study {self.study}, arm {self.arm}, trial {self.trial}{block}.",
            f"In the search: validation {self.metric} {unit.value(self.value, 2)} (one of many runs: biased upwards).",
            *(f"On fresh seeds: {split} {self.metric} {each.text(unit)}." for split, each in found.items() if each),
        ]


class Exported(Frozen):
    """A whole exported file; `exported_model` specializes it for one kind of task."""

    kind: ClassVar[Kind]
    """The kind of task."""

    task: TaskSection
    training: TrainingConfig
    schedule: ScheduleConfig = ScheduleConfig()
    amplify: AmplifyConfig | None = None
    noise: NoiseConfig | None = None
    provenance: Provenance

    @field_validator("training", "schedule")
    @classmethod
    def _lists_as_tuples(cls, table: Table) -> Table:
        """Lists become tuples, which TOML lacks, so that a file that was written and read again compares equal."""
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in table.options.items()}
        return table.model_copy(update={"options": options})

    @property
    def metric(self) -> Metric:
        """The metric of the study, also used when the configuration is trained again."""
        return self.kind.metrics_of(self.task)[self.provenance.metric]

    def lines(self) -> list[str]:
        """The origin of the configuration, as text."""
        return self.provenance.lines(self.metric.format)

    def load(self, device: str) -> Task:
        """The task with its data loaded. Raises DataError and UsageError as `Kind.load` does."""
        return self.kind.load(self.task, metric=self.metric, seed=self.provenance.study_seed, device=device)

    def configuration(self) -> Configuration:
        """Everything that the trial trained with, except its seed and data."""
        made = models.configuration(self.kind)
        return made(training=self.training, schedule=self.schedule, amplify=self.amplify, noise=self.noise)


@cache
def exported_model(kind: Kind) -> type[Exported]:
    """The model of exported files for this kind of task."""
    fields: dict[str, Any] = {"task": (kind.section, ...), "training": (models.training_config(kind), ...)}
    made = create_model("Exported", __base__=Exported, **fields)
    made.kind = kind
    return made


def load_exported(path: str | Path, *, imports: bool = True) -> Exported:
    """Read and check an exported file, TOML, JSON or YAML by its ending; raises what `parse_exported` raises."""
    source, ending = str(path), Path(path).suffix.lower()
    if ending == ".py":
        raise refusal(source, [f"is a Python script, which trains by itself: {python(source)}"])
    try:
        raw = _read_tables(Path(path), ending)
    except StudyFileError as error:
        if ending in _ENDINGS or not Path(path).is_file():
            raise
        reasons = "; ".join(each.removeprefix(f"{source}: ") for each in error.problems)
        what = "is no exported configuration, which is a text file that `export` wrote (.toml, .json or .yaml)"
        raise refusal(source, [f"{what}: {reasons}"]) from None
    return _checked(raw, source, imports)


def _read_tables(path: Path, ending: str) -> dict[str, Any]:
    text = read_text(path)
    is_json = ending == ".json" or (ending != ".toml" and text.lstrip().startswith("{"))
    return _tables(text, str(path), "json" if is_json else "yaml" if ending in (".yaml", ".yml") else "toml")


def parse_exported(text: str, source: str = "configuration", *, form: Form = "toml", imports: bool = True) -> Exported:
    """A configuration from its text.

    Raises StudyFileError with every problem at once, one line each: source, key path, value, what is allowed;
    UsageError, without `imports`, for a kind of task named by an import path.
    """
    return _checked(_tables(text, source, form), source, imports)


def _tables(text: str, source: str, form: Form) -> dict[str, Any]:
    return read_toml(text, source) if form == "toml" else _read_other(text, source, form)


def _checked(raw: dict[str, Any], source: str, imports: bool) -> Exported:
    if "provenance" not in raw and {"study", "arms", "search"} & raw.keys():
        how = command("run", source)
        raise refusal(source, [f"is a study file; `{how}` searches it and writes the configurations for `train`"])
    kind = kind_of(raw, source, imports)
    if isinstance(kind, str):
        raise refusal(source, [kind, *_problems_without_kind(raw)])
    model = exported_model(kind)
    try:
        found = model.model_validate(raw)
    except ValidationError as error:
        raise refusal(source, [*problems.lines(error, model, raw), *_remaining_contradictions(raw, kind)]) from None
    lines = [*_task_problems(found), *_contradictions(found.configuration(), kind)]
    if lines:
        raise refusal(source, lines)
    return found


def _read_other(text: str, source: str, form: Form) -> dict[str, Any]:
    """The tables of an export in JSON or YAML, under the same bounds as TOML's."""
    try:
        raw = json.loads(text) if form == "json" else _read_yaml(text)
    except (ValueError, RecursionError) as error:
        raise refusal(source, [f"not valid {form.upper()}: {error or 'nested too deeply'}"]) from None
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise refusal(source, [f"not an exported configuration: its {form.upper()} is no table"])
    if found := unreadable(raw):
        raise refusal(source, found)
    return raw


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _problems_without_kind(raw: Mapping[str, Any]) -> list[str]:
    """The other problems of a file with an unknown kind of task: the rest is checked with the substitute kind."""
    model, rest = exported_model(registry.find(SUBSTITUTE_TASK["kind"])), {**raw, "task": SUBSTITUTE_TASK}
    try:
        model.model_validate(rest)
    except ValidationError as error:
        return problems.lines(error, model, rest)
    return []


def _task_problems(found: Exported) -> Iterator[str]:
    for path, domain in searched(found.task):
        yield f"task.{path} = {shown(domain.describe())}: must be one value, not a range or choice"
    kind, metric = found.kind, found.provenance.metric
    if metric not in (offered := kind.metrics_of(found.task)):
        yield f"provenance.metric = {shown(metric)}: {one_of(offered, metric)}"


def _remaining_contradictions(raw: Mapping[str, Any], kind: Kind) -> list[str]:
    """Contradictions that remain after the wrong keys are removed, so that one read reports all problems."""
    model = models.configuration(kind)
    rest: dict[str, Any] = {key: raw[key] for key in model.model_fields if key in raw and key != "task"}
    left_out: set[KeyPath] = set()
    for _ in range(_MAX_PASSES):
        try:
            found = model.model_validate(rest)
        except ValidationError as error:
            wrong = problems.faults(error, rest, _SUBSTITUTES)
            left_out |= wrong
            rest = problems.without_faults(wrong, rest, _SUBSTITUTES)
        else:
            # with a substitute for epochs or without a wrong schedule key, the curve cannot be checked
            uncertain = any(path[:1] == ("schedule",) or path == ("training", "epochs") for path in left_out)
            return _option_problems(found, kind) if uncertain else _contradictions(found, kind)
    return []  # too many faults to check further


def _contradictions(configuration: Configuration, kind: Kind) -> list[str]:
    """Problems of several keys: options of another optimizer or curve, a curve that does not fit the epochs."""
    lines = _option_problems(configuration, kind)
    if configuration.amplify is not None and configuration.noise is not None:
        lines.append("amplify and noise: a configuration can have only one of the two")
    return lines or list(_rate_problems(configuration))


def _option_problems(configuration: Configuration, kind: Kind) -> list[str]:
    training, schedule = configuration.training, configuration.schedule
    lines: list[str] = []
    if not is_imported(training.optimizer):  # otherwise its class decides, when training starts
        allowed = OPTIMIZERS[training.optimizer]
        lines += _table_problems("training.options", training.options, allowed, OptimizerOptions)
    lines += kind.complaints(configuration)
    if schedule.name not in CURVES:
        return [*lines, f"schedule.name = {shown(schedule.name)}: unknown base curve; {one_of(CURVES, schedule.name)}"]
    return [
        *lines,
        *_table_problems("schedule.options", schedule.options, OPTIONS[schedule.name], ScheduleSection),
    ]


def _table_problems(
    where: str, options: Mapping[str, Any], allowed: frozenset[str], section: type[BaseModel]
) -> Iterator[str]:
    """Checks options against the study file's table of them; here, unlike there, they must have one value each."""
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in allowed:
            yield f"{where}.{key} = {shown(value)}: unknown key; {one_of(sorted(allowed), key)}"
        elif isinstance(value, dict):
            yield f"{where}.{key} = {shown(value)}: must be one value, not a range or choice"
        else:
            values[key] = value
    try:
        section.model_validate(values)
    except ValidationError as error:
        for line in problems.lines(error, section, values):
            yield f"{where}.{line}"


def _rate_problems(configuration: Configuration) -> Iterator[str]:
    for table, part in (("schedule", configuration.curve), ("noise", configuration.perturbation)):
        try:
            part()
        except ValueError as error:
            yield f"{table}: {error}"
