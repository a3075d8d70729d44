"""The tables of a study file, one class each, in the order of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.studyfile.budgets import BudgetText, SplitSection
from ralr_tune.studyfile.optimizer_keys import Optimizer, OptimizerOptions, OptimizerTable, Rate
from ralr_tune.studyfile.values import (
    Choice,
    Choosable,
    Extended,
    Frozen,
    NonNegative,
    Options,
    Range,
    Searchable,
    Share,
    one_of,
    problem,
    within,
)

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

_RESERVED_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?|.*\.", re.IGNORECASE)
"""Windows reserves these names for devices and drops a trailing dot; a study's files may be copied there."""


def _name(value: str) -> str:
    # fullmatch: `$` would accept a trailing newline, and names become file names and Optuna study names
    if not NAME_PATTERN.fullmatch(value):
        raise problem(
            "not a valid name: letters, digits, '.', '_' and '-', a letter or digit first, at most 80 characters"
        )
    if _RESERVED_NAME.fullmatch(value):
        raise problem("not a valid file name on all systems; choose another")
    return value


Name = Annotated[str, AfterValidator(_name)]
Pair = Annotated[tuple[float, float], Field(strict=False)]
Granularity = Literal["epoch", "step"]
Factor = Annotated[float, within("amplify.lower")]
Upper = Annotated[float, within("amplify.upper")]
Width = Annotated[float, within("amplify.width")]
Amplitude = Annotated[float, within("noise.amplitude")]
Std = Annotated[float, within("noise.std")]


class StudySection(Frozen):
    """[study]: the question."""

    name: Name
    """Name of the study, of its folder in runs/ and of its Optuna studies."""
    metric: str
    """A metric of the kind; the default is its first (see `models.study_file`), or the one that [task] defines."""
    baseline: Name
    """The arm that all others are compared with."""
    seed: Annotated[int, Field(ge=0, lt=2**48)] = 0
    """Determines the split of the data, initial weights, order of the data and the search."""
    cost_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The price of one device for an hour, in any currency: the report says what the study cost."""


# ---------------------------------------------------------------- [task]


class TaskSection(Frozen):
    """[task]; each kind of task derives its own model from this one (see kind.py)."""

    kind: str
    """The kind of task: built in, installed, or `package.module:NAME`."""


# ---------------------------------------------------------------- [training]


class FirstTrainingKeys(Extended):
    """Keys of [training] before those of the kind. The order matters: Optuna suggests values in this order, and
    configurations are hashed in it."""

    epochs: Searchable[Annotated[int, within("epochs")]] | None = None
    batch_size: Searchable[Annotated[int, within("batch_size")]] | None = None
    optimizer: Choosable[Optimizer] | None = None
    """One of the optimizers below."""
    lr: Searchable[Rate] | None = None
    weight_decay: Searchable[Annotated[float, within("weight_decay")]] | None = None


class _Technical(Extended):
    """How a network is trained, for any optimizer."""

    added = frozenset({"weight_decay_schedule", "weight_decay_end", "weight_decay_follows", "ema_decay"})

    weight_decay_schedule: Choosable[Literal["constant", "linear", "cosine"]] | None = None
    """How the weight decay goes from weight_decay to weight_decay_end."""
    weight_decay_end: Searchable[Annotated[float, within("weight_decay_end")]] | None = None
    weight_decay_follows: Choosable[Literal["rate", "base"]] | None = None
    """Whether amplification amplifies the decay of a decoupled optimizer (adamw), which is rate * weight_decay, or the
    decay follows the base curve alone."""
    ema_decay: Searchable[Annotated[float, within("ema_decay")]] | None = None
    clip_norm: Searchable[Annotated[float, within("clip_norm")]] | None = None
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Number format of the forward and backward pass; auto: what is fastest on the device."""
    channels_last: bool | Literal["auto"] | None = None
    """Memory layout of images; auto: what is fastest on the device."""
    compile: bool | Literal["auto"] | None = None
    """Whether torch.compile compiles the network; auto: where it pays off."""


class FurtherTrainingKeys(OptimizerOptions, _Technical):
    """Keys of [training] after those of the kind."""

    added = _Technical.added | OptimizerOptions.added | {"optimizers"}

    optimizers: dict[Optimizer, OptimizerTable] | None = None
    """Tables [training.optimizers.NAME]: keys for one of several optimizers. They replace those of [training]."""


class TrainingKeys(FurtherTrainingKeys, FirstTrainingKeys):
    """Every key of [training] that all kinds share. All are optional, for arms to override. None: not given."""


REQUIRED = frozenset({"epochs", "lr"})
"""Keys of [training] that every study requires."""


# ---------------------------------------------------------------- [schedule] and [arms.*]


def _milestone(value: float) -> float:
    """Epochs as integers, also if written as 2.0."""
    if value < 1:
        return value
    if not value.is_integer():
        raise problem("must be a share of the run below 1, or an integer number of epochs")
    return int(value)


Milestone = Annotated[float, within("schedule.milestones"), AfterValidator(_milestone)]


def _curve(value: str) -> str:
    if value not in CURVES:
        raise problem(f"unknown base curve; {one_of(CURVES, value)}")
    return value


class ScheduleSection(Frozen):
    """[schedule]: the base curve. Lengths below 1 are shares of the run, otherwise epochs."""

    name: Choosable[Annotated[str, AfterValidator(_curve)]] = "constant"
    """One of the base curves below."""
    granularity: Granularity = "epoch"
    """Whether the base rate changes once per epoch or at every step."""
    warmup: Searchable[Annotated[float, within("schedule.warmup")]] = 0.0
    warmup_factor: Searchable[Annotated[float, within("schedule.warmup_factor")]] = 0.1
    milestones: Choosable[Annotated[tuple[Milestone, ...], Field(strict=False, min_length=1)]] | None = None
    step_size: Searchable[Annotated[float, within("schedule.step_size")]] | None = None
    gamma: Searchable[Annotated[float, within("schedule.gamma")]] | None = None
    power: Searchable[Annotated[float, within("schedule.power")]] | None = None
    end_factor: Searchable[Annotated[float, within("schedule.end_factor")]] | None = None
    period: Searchable[Annotated[float, within("schedule.period")]] | None = None
    multiplier: Searchable[Annotated[int, within("schedule.multiplier")]] | None = None
    low_factor: Searchable[Annotated[float, within("schedule.low_factor")]] | None = None
    mode: Choosable[Literal["triangular", "triangular2", "exp_range"]] | None = None
    """How the amplitude of cyclic changes: constant, halved after each cycle, or times gamma per step."""
    peak_at: Searchable[Annotated[float, within("schedule.peak_at")]] | None = None
    div_factor: Searchable[Annotated[float, within("schedule.div_factor")]] | None = None
    final_div_factor: Searchable[Annotated[float, within("schedule.final_div_factor")]] | None = None


CURVE_OPTIONS: frozenset[str] = frozenset().union(*OPTIONS.values())


def _window(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 1:
        raise problem("must be [start, end] as shares of the run, 0 <= start < end <= 1")
    return value


Window = Annotated[Pair, AfterValidator(_window)]


class AmplifySection(Frozen):
    """Random amplification; the factor is drawn from lower to upper, which is given itself or as lower + width.

    A searched `width` keeps every combination possible while `lower` is searched too (our choice)."""

    probability: Searchable[Annotated[float, within("amplify.probability")]]
    lower: Searchable[Factor] = 1.0
    upper: Searchable[Upper] | None = None
    width: Searchable[Width] | None = None
    law: Choosable[Literal["uniform", "loguniform"]] = "uniform"
    """Distribution of the factor between its two ends."""
    granularity: Choosable[Granularity] = "epoch"
    """Whether the factor is drawn once per epoch or at every step."""
    window: Choosable[Window] | None = None
    """Amplifies only within this part of the run: [start, end] as shares; None: from the end of the warm-up (our
    choice)."""

    @model_validator(mode="after")
    def _one_upper_end(self) -> AmplifySection:
        if (self.upper is None) == (self.width is None):
            raise problem("needs either upper or width (upper = lower + width)")
        if self.upper is not None and min(_numbers(self.upper)) < max(_numbers(self.lower)):
            raise problem(
                f"upper may be {min(_numbers(self.upper)):g} and lower {max(_numbers(self.lower)):g}; "
                "allowed: upper >= lower in every combination, or a searched width in place of upper"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_without_upper(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Same JSON as in releases without `upper`, so that fingerprints do not change."""
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key != "upper" or value is not None}


def _numbers(value: Any) -> Sequence[float]:
    """The choices or ends of a domain; a fixed value itself."""
    if isinstance(value, Choice):
        return value.choices
    return value.numbers()[:2] if isinstance(value, Range) else (value,)


class NoiseSection(Frozen):
    """timm's learning-rate noise, an alternative to amplification."""

    amplitude: Searchable[Amplitude] = 0.67
    std: Searchable[Std] = 1.0
    law: Choosable[Literal["normal", "uniform"]] = "normal"
    """Distribution of the deviation from the curve."""
    granularity: Choosable[Granularity] = "epoch"
    """Whether the deviation is drawn once per epoch or at every step."""
    window: Choosable[Window] = (0.0, 1.0)
    """Adds noise only within this part of the run: [start, end] as shares."""


class ArmSection(Frozen):
    """[arms.NAME]: one schedule family; its keys replace those of the shared tables."""

    amplify: AmplifySection | None = None
    """Random amplification of the base curve (RALR)."""
    noise: NoiseSection | None = None
    """Learning-rate noise, as an alternative."""
    schedule: ScheduleSection | None = None
    """Replaces the whole [schedule] table."""
    training: TrainingKeys | None = None
    """Replaces single keys of [training]."""

    @model_validator(mode="after")
    def _one_perturbation(self) -> ArmSection:
        if self.amplify is not None and self.noise is not None:
            raise problem("amplify and noise: an arm can have only one of the two")
        return self


# ---------------------------------------------------------------- [search], [confirm], [storage]


def _audit(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise problem('must be "auto", or a share of the pruned trials, 0 to 1')
    return value


Audit = Annotated[Literal["auto"] | Share, BeforeValidator(_audit)]
PruneOn = Literal["value", "smoothed", "best"]


FROM_BUDGET = 0
"""`search.trials` of a file that leaves them to `search.budget`."""


class SearchSection(Frozen):
    """[search]: the budget of every arm, the sampler and the pruner."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["trials"]}, {"required": ["budget"]}]})

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = FROM_BUDGET
    """Configurations that each arm tries in each block; required without `budget`."""
    budget: BudgetText | None = None
    """What the study may spend at most: "12 device hours", "90 device minutes" or "600 epochs". Trials and seeds that
    are not given are chosen from it (see search.budget)."""
    sampler: Literal["tpe", "random", "qmc", "gp"] = "tpe"
    """Optuna's sampler, which proposes configurations."""
    sampler_options: Options = {}
    """Arguments of the sampler, by the names that Optuna gives them."""
    pruner: Literal["median", "asha", "hyperband", "patient", "none"] = "median"
    """Optuna's pruner, which stops trials that look bad."""
    pruner_options: Options = {}
    """Arguments of the pruner, by the names that Optuna gives them."""
    prune_on: PruneOn = "value"
    """What the pruner compares: the value of a trial, its moving average, or its best value so far."""
    prune_metric: str | None = None
    """What only the pruner sees in place of the study's metric: another one that the kind measures every epoch."""
    audit: Audit = "auto"
    """The share of pruned trials that are still trained to the end, outside of the search, to check the pruner."""
    blocks: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Whole searches of every arm; with one, the schedules themselves are not compared."""
    divided: bool = False
    """Divides `trials` among the blocks, which need no further searches: each is as random as the whole. Arms share
    their values block by block, and each block is judged on its own seeds."""
    start: Annotated[tuple[Options, ...], Field(strict=False)] = ()
    """Configurations that every arm tries first, such as a known recipe."""
    start_from: Name | None = None
    """An earlier study, whose best search configurations every arm tries next; none of its values is used."""

    @model_serializer(mode="wrap")
    def _as_without_added(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Same JSON as in releases without these keys, so that fingerprints do not change."""
        dumped: dict[str, Any] = handler(self)
        unset = {"prune_metric": None, "budget": None, "start_from": None, "divided": False}
        return {key: value for key, value in dumped.items() if key not in unset or value != unset[key]}


def _seeds(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 10_000):
        raise problem('must be "auto", or a number of seeds, 2 to 10000')
    return value


Seeds = Annotated[Literal["auto"] | int, BeforeValidator(_seeds)]


class ConfirmSection(Frozen):
    """[confirm]: how many configurations are trained again, and on how many fresh seeds."""

    top: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Configurations of each arm and block that race for the winner on fresh seeds: after each seed the worse half is
    dropped, until two are left."""
    seeds: Seeds = 5
    """Number of seeds, or "auto": seeds are added until there is a verdict, up to `most_seeds` (see search.interim)."""
    most_seeds: Annotated[int, Field(ge=3, le=1_000)] = 20
    """The largest number of seeds if `seeds` is "auto"."""
    margin: NonNegative | None = None
    """Differences below it count as equivalent, in the metric's unit; None: the metric's default margin."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals; verdicts err in at most the rest."""

    @property
    def max_seeds(self) -> int:
        return self.most_seeds if self.seeds == "auto" else self.seeds


class StorageSection(Frozen):
    """[storage]: the database of the study; --storage and RALR_TUNE_STORAGE override it."""

    url: Annotated[str | None, Field(repr=False)] = None  # it may hold a password
    """Database URL; without one, runs/STUDY/study.db (SQLite)."""
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    """Seconds after which a worker that does not renew its lease counts as lost."""


class StudyFile(Frozen):
    """A whole study file; `models.study_file` specializes it for one kind of task."""

    study: StudySection
    task: TaskSection
    training: TrainingKeys
    schedule: ScheduleSection = ScheduleSection()
    arms: Annotated[dict[Name, ArmSection], Field(min_length=1, max_length=100)]
    search: SearchSection
    confirm: ConfirmSection = ConfirmSection()
    storage: StorageSection = StorageSection()
    split: SplitSection | None = None
    """Written by `run` into the file that it stores."""
