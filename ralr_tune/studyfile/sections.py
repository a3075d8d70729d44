"""The tables of a study file, one class each, in the file's order."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.studyfile.imports import check_model
from ralr_tune.studyfile.values import (
    AtLeastOne,
    BelowOne,
    Choosable,
    Count,
    Frozen,
    NonNegative,
    Options,
    Positive,
    PositiveShare,
    Range,
    Searchable,
    Share,
    one_of,
    problem,
)

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

_NO_FILE_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?|.*\.", re.IGNORECASE)
"""Windows takes these for devices, and drops a dot at the end; a study's files may be looked at there."""


def _name(value: str) -> str:
    # fullmatch: with `$` a trailing newline would pass, and names become file names and Optuna study names
    if not NAME_PATTERN.fullmatch(value):
        raise problem("not a name: letters, digits, '.', '_' and '-', a letter or digit first, at most 80")
    if _NO_FILE_NAME.fullmatch(value):
        raise problem("no file can have this name everywhere; choose another")
    return value


Name = Annotated[str, AfterValidator(_name)]
Pair = Annotated[tuple[float, float], Field(strict=False)]
Granularity = Literal["epoch", "step"]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Betas = Annotated[tuple[BelowOne, BelowOne], Field(strict=False)]
# bounded, so that no rate of any trial can overflow
Factor = Annotated[float, Field(ge=1, le=1e6)]
Width = Annotated[float, Field(ge=0, le=1e6)]
Amplitude = Annotated[float, Field(gt=0, lt=1)]
Std = Annotated[float, Field(gt=0, le=1000)]


class StudySection(Frozen):
    """[study]: what is asked."""

    name: Name
    metric: str | None = None
    """None: the first one that the kind of task offers."""
    baseline: Name
    seed: Annotated[int, Field(ge=0, lt=2**48)] = 0


# ---------------------------------------------------------------- [task]


class _Images(Frozen):
    limit: Count | None = None
    """Train on this many images only (stratified, seeded)."""
    classes: Annotated[tuple[str | int, ...], Field(strict=False, min_length=2)] | None = None
    """Keep these classes only, by name or index."""


class DigitsData(_Images):
    """scikit-learn's 1,797 digits, embedded: nothing to download."""

    source: Literal["digits"]


class TorchvisionData(_Images):
    """Any classification data set of torchvision, by its class name."""

    source: Literal["torchvision"]
    dataset: str
    root: str = "data"
    download: bool = False
    size: Count | None = None


class FolderData(_Images):
    """A tree of class folders, or train/ [val/] test/ trees of them."""

    source: Literal["folder"]
    path: str
    size: Count = 224


class ArraysData(_Images):
    """One .npz file with train_images, train_labels, test_images, test_labels[, classes]."""

    source: Literal["arrays"]
    path: str


ImageData: TypeAlias = Annotated[DigitsData | TorchvisionData | FolderData | ArraysData, Field(discriminator="source")]


def _model(value: str) -> str:
    try:
        return check_model(value)
    except ValueError as error:
        raise problem(str(error)) from None


class ClassificationTask(Frozen):
    """[task] kind = "classification"."""

    kind: Literal["classification"]
    data: ImageData
    model: Annotated[str, AfterValidator(_model)]
    model_options: Options = {}
    pretrained: bool = False
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2


def _effective(name: str) -> str:
    if name == "lr":
        raise problem("its effect is data.optimum, which is where it is best")
    if name not in NUMBERS:
        raise problem(f"no number of a configuration; {one_of([each for each in NUMBERS if each != 'lr'], name)}")
    return name


class Effect(Frozen):
    """What one parameter does in the simulated task: `loss` of accuracy at one unit (`log`: one decade) from `best`."""

    best: float
    loss: NonNegative
    log: bool = False
    """As in the range that the parameter is searched in."""

    @model_validator(mode="after")
    def _has_a_place(self) -> Effect:
        if self.log and self.best <= 0:
            raise problem(f"best = {self.best:g} with log = true: best must be above 0")
        return self


class SimulatedData(Frozen):
    """Constants of the simulated task's formula (see kinds/simulated/task.py): it trains nothing."""

    optimum: Positive = 0.1
    effect: Annotated[float, Field(ge=-0.5, le=0.5)] = 0.0
    noise: NonNegative = 0.005
    epoch_noise: NonNegative = 0.002
    jitter: NonNegative = 0.01
    diverges_above: Positive = 5.0
    seconds_per_epoch: NonNegative = 0.0
    effects: dict[Annotated[str, AfterValidator(_effective)], Effect] = {}
    """By Optuna name; what has no entry has no effect."""


class SimulatedTask(Frozen):
    """[task] kind = "simulated": curves from a formula, for trying the machinery and the statistics."""

    kind: Literal["simulated"]
    data: SimulatedData = SimulatedData()


Task: TypeAlias = Annotated[ClassificationTask | SimulatedTask, Field(discriminator="kind")]

# ---------------------------------------------------------------- [training]

OPTIMIZERS: dict[str, frozenset[str]] = {
    "adadelta": frozenset({"rho", "eps"}),
    "adagrad": frozenset({"lr_decay", "initial_accumulator_value", "eps"}),
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "adamax": frozenset({"betas", "eps"}),
    "adamw": frozenset({"betas", "eps", "amsgrad"}),
    "asgd": frozenset({"lambd", "alpha", "t0"}),
    "nadam": frozenset({"betas", "eps", "momentum_decay", "decoupled_weight_decay"}),
    "radam": frozenset({"betas", "eps", "decoupled_weight_decay"}),
    "rmsprop": frozenset({"alpha", "eps", "momentum", "centered"}),
    "sgd": frozenset({"momentum", "dampening", "nesterov"}),
}
"""Optimizers of torch.optim by lower-case name, and their options beside lr and weight_decay.

Written out, so that a study file is checked without importing torch; a test holds it against torch. Left out on
purpose: those that need a closure (lbfgs), sparse gradients (sparseadam) or matrices alone (muon), and those without a
rate to amplify in the usual sense (rprop: steps of its own for each weight; adafactor: relative steps)."""


def _optimizer(value: str) -> str:
    if value not in OPTIMIZERS:
        raise problem(f"not an optimizer offered here; {one_of(OPTIMIZERS, value)}")
    return value


Optimizer = Annotated[str, AfterValidator(_optimizer)]

MIXINGS = ("mixup", "cutmix")
"""Augmentations that mix the images of a batch with each other: after all others, wherever they stand. Of both, each
image gets one (see kinds/classification/mixing.py)."""

AUGMENTATIONS = ("crop", "flip", "cutout", *MIXINGS)
"""Written out as the optimizers are."""


def _augmentation(value: str) -> str:
    if value not in AUGMENTATIONS:
        raise problem(f"not an augmentation; {one_of(AUGMENTATIONS, value)}")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [each for each, count in Counter(value).items() if count > 1]:
        raise problem(f"every augmentation may stand there once; {repeated[0]} stands twice")
    return value


Augment = Annotated[
    tuple[Annotated[str, AfterValidator(_augmentation)], ...], Field(strict=False), AfterValidator(_distinct)
]


class TrainingKeys(Frozen):
    """Every key of [training], all optional: what an arm may override. None: not given."""

    epochs: Searchable[Count] | None = None
    batch_size: Searchable[Count] | None = None
    optimizer: Choosable[Optimizer] | None = None
    lr: Searchable[Rate] | None = None
    weight_decay: Searchable[NonNegative] | None = None
    augment: Choosable[Augment] | None = None
    label_smoothing: Searchable[BelowOne] | None = None
    clip_norm: Searchable[Positive] | None = None
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    channels_last: bool | Literal["auto"] | None = None
    compile: bool | Literal["auto"] | None = None
    # the optimizers' own options, by torch's names
    momentum: Searchable[BelowOne] | None = None
    dampening: Searchable[BelowOne] | None = None
    nesterov: Choosable[bool] | None = None
    betas: Choosable[Betas] | None = None
    eps: Searchable[Positive] | None = None
    amsgrad: Choosable[bool] | None = None
    rho: Searchable[BelowOne] | None = None
    lr_decay: Searchable[NonNegative] | None = None
    initial_accumulator_value: Searchable[NonNegative] | None = None
    lambd: Searchable[NonNegative] | None = None
    alpha: Searchable[BelowOne] | None = None
    t0: Searchable[Positive] | None = None
    momentum_decay: Searchable[NonNegative] | None = None
    decoupled_weight_decay: Choosable[bool] | None = None
    centered: Choosable[bool] | None = None


class TrainingSection(TrainingKeys):
    """[training]: how one trial trains."""

    epochs: Searchable[Count]
    batch_size: Searchable[Count]
    lr: Searchable[Rate]
    optimizer: Choosable[Optimizer] = "sgd"


OPTIMIZER_OPTIONS: frozenset[str] = frozenset().union(*OPTIMIZERS.values())

# ---------------------------------------------------------------- [schedule] and [arms.*]


def _milestone(value: float) -> float:
    """Epochs as whole numbers, however they are written."""
    if value < 1:
        return value
    if not value.is_integer():
        raise problem("must be a share of the run below 1, or a whole number of epochs")
    return int(value)


Milestone = Annotated[Positive, AfterValidator(_milestone)]
Length = Annotated[float, Field(ge=1e-6)]


def _curve(value: str) -> str:
    if value not in CURVES:
        raise problem(f"not a base curve; {one_of(CURVES, value)}")
    return value


class ScheduleSection(Frozen):
    """[schedule]: the base curve. Lengths below 1 are shares of the run, else epochs."""

    name: Choosable[Annotated[str, AfterValidator(_curve)]] = "constant"
    granularity: Granularity = "epoch"
    warmup: Searchable[NonNegative] = 0.0
    warmup_factor: Searchable[PositiveShare] = 0.1
    milestones: Choosable[Annotated[tuple[Milestone, ...], Field(strict=False, min_length=1)]] | None = None
    step_size: Searchable[Length] | None = None
    gamma: Searchable[PositiveShare] | None = None
    power: Searchable[Positive] | None = None
    end_factor: Searchable[Share] | None = None
    period: Searchable[Length] | None = None
    multiplier: Searchable[Annotated[int, Field(ge=1, lt=1000)]] | None = None
    low_factor: Searchable[Share] | None = None
    mode: Choosable[Literal["triangular", "triangular2", "exp_range"]] | None = None
    peak_at: Searchable[Positive] | None = None
    div_factor: Searchable[AtLeastOne] | None = None
    final_div_factor: Searchable[AtLeastOne] | None = None


CURVE_OPTIONS: frozenset[str] = frozenset().union(*OPTIONS.values())


def _window(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 1:
        raise problem("must be [start, end] in shares of the run, 0 <= start < end <= 1")
    return value


Window = Annotated[Pair, AfterValidator(_window)]


class AmplifySection(Frozen):
    """Random amplification; the factor is drawn from lower to upper = lower + width."""

    probability: Searchable[Share]
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


def _takes_range(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Range):
        return True
    return any(map(_takes_range, get_args(annotation)))


_TABLES: dict[str, type[Frozen]] = {
    "": TrainingKeys,
    "schedule.": ScheduleSection,
    "amplify.": AmplifySection,
    "noise.": NoiseSection,
}

NUMBERS: tuple[str, ...] = tuple(
    f"{prefix}{key}"
    for prefix, table in _TABLES.items()
    for key, field in table.model_fields.items()
    if _takes_range(field.annotation)
)
"""Optuna names of all that may be searched in a range."""


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
    """How many, or "auto": more until the verdict stands, up to `most_seeds` (see search.looks)."""
    most_seeds: Annotated[int, Field(ge=3, le=1_000)] = 20
    margin: NonNegative | None = None
    """Differences below it count as equivalent, in the metric's own unit; None: the metric's default margin."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @property
    def seeds_at_most(self) -> int:
        return self.most_seeds if self.seeds == "auto" else self.seeds


class StorageSection(Frozen):
    """[storage]: where the study lives; --storage and RALR_TUNE_STORAGE win over it."""

    url: Annotated[str | None, Field(repr=False)] = None  # it may hold a password
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0


class StudyFile(Frozen):
    """A whole study file."""

    study: StudySection
    task: Task
    training: TrainingSection
    schedule: ScheduleSection = ScheduleSection()
    arms: Annotated[dict[Name, ArmSection], Field(min_length=1, max_length=100)]
    search: SearchSection
    confirm: ConfirmSection = ConfirmSection()
    storage: StorageSection = StorageSection()
