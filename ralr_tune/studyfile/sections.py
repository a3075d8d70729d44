"""The tables of a study file, one class each, in the file's order."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS
from ralr_tune.studyfile.values import (
    Choosable,
    Frozen,
    NonNegative,
    Options,
    Searchable,
    Share,
    one_of,
    problem,
    within,
)

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

_RESERVED_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?|.*\.", re.IGNORECASE)
"""Windows takes these for devices, and drops a dot at the end; a study's files may be looked at there."""


def _name(value: str) -> str:
    # fullmatch: with `$` a trailing newline would pass, and names become file names and Optuna study names
    if not NAME_PATTERN.fullmatch(value):
        raise problem("not a name: letters, digits, '.', '_' and '-', a letter or digit first, at most 80")
    if _RESERVED_NAME.fullmatch(value):
        raise problem("no file can have this name everywhere; choose another")
    return value


Name = Annotated[str, AfterValidator(_name)]
Pair = Annotated[tuple[float, float], Field(strict=False)]
Granularity = Literal["epoch", "step"]
Rate = Annotated[float, within("lr")]
Beta = Annotated[float, within("betas")]
Betas = Annotated[tuple[Beta, Beta], Field(strict=False)]
Factor = Annotated[float, within("amplify.lower")]
Width = Annotated[float, within("amplify.width")]
Amplitude = Annotated[float, within("noise.amplitude")]
Std = Annotated[float, within("noise.std")]


class StudySection(Frozen):
    """[study]: what is asked."""

    name: Name
    metric: str
    """One of the kind's; `models.study_file` fills in its first one."""
    baseline: Name
    seed: Annotated[int, Field(ge=0, lt=2**48)] = 0


# ---------------------------------------------------------------- [task]


class TaskSection(Frozen):
    """[task]; each kind of task has a model of its own, derived from this one (see kind.py)."""

    kind: str


# ---------------------------------------------------------------- [training]

OPTIMIZERS: dict[str, frozenset[str]] = {name: spec.options for name, spec in OPTIMIZER_SPECS.items()}
"""Optimizers by name, and their options besides lr and weight_decay."""


def _optimizer(value: str) -> str:
    if value not in OPTIMIZERS:
        raise problem(f"not an optimizer offered here; {one_of(OPTIMIZERS, value)}")
    return value


Optimizer = Annotated[str, AfterValidator(_optimizer)]


class FirstTrainingKeys(Frozen):
    """Keys of [training] that come before those of the kind: Optuna is asked in this order, and configurations are
    hashed in it."""

    epochs: Searchable[Annotated[int, within("epochs")]] | None = None
    batch_size: Searchable[Annotated[int, within("batch_size")]] | None = None
    optimizer: Choosable[Optimizer] | None = None
    lr: Searchable[Rate] | None = None
    weight_decay: Searchable[Annotated[float, within("weight_decay")]] | None = None


class FurtherTrainingKeys(Frozen):
    """Keys of [training] that come after those of the kind."""

    clip_norm: Searchable[Annotated[float, within("clip_norm")]] | None = None
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    channels_last: bool | Literal["auto"] | None = None
    compile: bool | Literal["auto"] | None = None
    # the optimizers' own options, by torch's names
    momentum: Searchable[Annotated[float, within("momentum")]] | None = None
    dampening: Searchable[Annotated[float, within("dampening")]] | None = None
    nesterov: Choosable[bool] | None = None
    betas: Choosable[Betas] | None = None
    eps: Searchable[Annotated[float, within("eps")]] | None = None
    amsgrad: Choosable[bool] | None = None
    rho: Searchable[Annotated[float, within("rho")]] | None = None
    lr_decay: Searchable[Annotated[float, within("lr_decay")]] | None = None
    initial_accumulator_value: Searchable[Annotated[float, within("initial_accumulator_value")]] | None = None
    lambd: Searchable[Annotated[float, within("lambd")]] | None = None
    alpha: Searchable[Annotated[float, within("alpha")]] | None = None
    t0: Searchable[Annotated[float, within("t0")]] | None = None
    momentum_decay: Searchable[Annotated[float, within("momentum_decay")]] | None = None
    decoupled_weight_decay: Choosable[bool] | None = None
    centered: Choosable[bool] | None = None


class TrainingKeys(FurtherTrainingKeys, FirstTrainingKeys):
    """Every key of [training] that all kinds have, all optional: what an arm may override. None: not given."""


REQUIRED = frozenset({"epochs", "lr"})
"""Keys of [training] that every study must give."""


OPTIMIZER_OPTIONS: frozenset[str] = frozenset().union(*OPTIMIZERS.values())

# ---------------------------------------------------------------- [schedule] and [arms.*]


def _milestone(value: float) -> float:
    """Epochs as whole numbers, however they are written."""
    if value < 1:
        return value
    if not value.is_integer():
        raise problem("must be a share of the run below 1, or a whole number of epochs")
    return int(value)


Milestone = Annotated[float, within("schedule.milestones"), AfterValidator(_milestone)]


def _curve(value: str) -> str:
    if value not in CURVES:
        raise problem(f"not a base curve; {one_of(CURVES, value)}")
    return value


class ScheduleSection(Frozen):
    """[schedule]: the base curve. Lengths below 1 are shares of the run, else epochs."""

    name: Choosable[Annotated[str, AfterValidator(_curve)]] = "constant"
    granularity: Granularity = "epoch"
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
    peak_at: Searchable[Annotated[float, within("schedule.peak_at")]] | None = None
    div_factor: Searchable[Annotated[float, within("schedule.div_factor")]] | None = None
    final_div_factor: Searchable[Annotated[float, within("schedule.final_div_factor")]] | None = None


CURVE_OPTIONS: frozenset[str] = frozenset().union(*OPTIONS.values())


def _window(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 1:
        raise problem("must be [start, end] in shares of the run, 0 <= start < end <= 1")
    return value


Window = Annotated[Pair, AfterValidator(_window)]


class AmplifySection(Frozen):
    """Random amplification; the factor is drawn from lower to upper = lower + width."""

    probability: Searchable[Annotated[float, within("amplify.probability")]]
    lower: Searchable[Factor] = 1.0
    width: Searchable[Width]
    law: Choosable[Literal["uniform", "loguniform"]] = "uniform"
    granularity: Choosable[Granularity] = "epoch"
    window: Choosable[Window] = (0.0, 1.0)


class NoiseSection(Frozen):
    """timm's learning-rate noise, a rival of amplification."""

    amplitude: Searchable[Amplitude] = 0.67
    std: Searchable[Std] = 1.0
    law: Choosable[Literal["normal", "uniform"]] = "normal"
    granularity: Choosable[Granularity] = "epoch"
    window: Choosable[Window] = (0.0, 1.0)


class ArmSection(Frozen):
    """[arms.NAME]: one schedule family; what it gives replaces the shared tables' keys."""

    amplify: AmplifySection | None = None
    noise: NoiseSection | None = None
    schedule: ScheduleSection | None = None
    """Replaces [schedule] as a whole."""
    training: TrainingKeys | None = None
    """Replaces keys of [training]."""

    @model_validator(mode="after")
    def _one_perturbation(self) -> ArmSection:
        if self.amplify is not None and self.noise is not None:
            raise problem("amplify and noise stand together: an arm takes one of the two")
        return self


# ---------------------------------------------------------------- [search], [confirm], [storage]


def _audit(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise problem('must be "auto", or a share of the pruned trials, 0 to 1')
    return value


Audit = Annotated[Literal["auto"] | Share, BeforeValidator(_audit)]
PruneOn = Literal["value", "smoothed", "best"]


class SearchSection(Frozen):
    """[search]: the budget of every arm and how it is spent."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)]
    sampler: Literal["tpe", "random", "qmc", "gp"] = "tpe"
    sampler_options: Options = {}
    pruner: Literal["median", "asha", "hyperband", "patient", "none"] = "median"
    pruner_options: Options = {}
    prune_on: PruneOn = "value"
    """What the pruner judges a trial by: its value, a moving average of it, or the best value so far."""
    audit: Audit = "auto"
    """The share of pruned trials that are trained to their end all the same, apart from the search."""
    blocks: Annotated[int, Field(ge=1, le=10_000)] = 1
    start: Annotated[tuple[Options, ...], Field(strict=False)] = ()


def _seeds(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 10_000):
        raise problem('must be "auto", or a number of seeds, 2 to 10000')
    return value


Seeds = Annotated[Literal["auto"] | int, BeforeValidator(_seeds)]


class ConfirmSection(Frozen):
    """[confirm]: how many configurations are tried again, and on how many fresh seeds."""

    top: Annotated[int, Field(ge=1, le=10_000)] = 2
    seeds: Seeds = 5
    """How many, or "auto": more until the verdict stands, up to `most_seeds` (see search.interim)."""
    most_seeds: Annotated[int, Field(ge=3, le=1_000)] = 20
    margin: NonNegative | None = None
    """Differences below it count as equivalent, in the metric's own unit; None: the metric's default margin."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @property
    def max_seeds(self) -> int:
        return self.most_seeds if self.seeds == "auto" else self.seeds


class StorageSection(Frozen):
    """[storage]: where the study lives; --storage and RALR_TUNE_STORAGE win over it."""

    url: Annotated[str | None, Field(repr=False)] = None  # it may hold a password
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0


class StudyFile(Frozen):
    """A whole study file; `models.study_file` narrows it to the tables of one kind of task."""

    study: StudySection
    task: TaskSection
    training: TrainingKeys
    schedule: ScheduleSection = ScheduleSection()
    arms: Annotated[dict[Name, ArmSection], Field(min_length=1, max_length=100)]
    search: SearchSection
    confirm: ConfirmSection = ConfirmSection()
    storage: StorageSection = StorageSection()
