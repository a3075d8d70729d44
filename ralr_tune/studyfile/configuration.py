"""One point of an arm's space: every value that one trial trains with."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import Curve, make_curve
from ralr_tune.schedules.noise import Noise
from ralr_tune.schedules.rate import LearningRate
from ralr_tune.schedules.weight_decay import WeightDecay
from ralr_tune.studyfile.optimizer_keys import Optimizer, Rate
from ralr_tune.studyfile.optimizers import is_decoupled
from ralr_tune.studyfile.parameters import OF_OPTIMIZERS, own_name
from ralr_tune.studyfile.sections import (
    Amplitude,
    Factor,
    Granularity,
    Std,
    Width,
    Window,
)
from ralr_tune.studyfile.values import Extended, Frozen, problem, within

if TYPE_CHECKING:
    from ralr_tune.studyfile.kind import Kind

TASK = "task."
"""Prefix of the names of searched [task] parameters."""
OWN = "params."
"""Prefix of the names of a program's own parameters, which are in task.params."""


def task_parameter(path: str) -> str:
    """The name of the parameter that is at this path below [task]."""
    return path if path.startswith(OWN) else f"{TASK}{path}"


def task_path(name: str) -> str | None:
    """The path below [task] of the parameter of this name; None for one of another table."""
    return name if name.startswith(OWN) else name.removeprefix(TASK) if name.startswith(TASK) else None


class FirstTrainingConfig(Extended):
    """See sections.FirstTrainingKeys."""

    epochs: Annotated[int, within("epochs")]
    batch_size: Annotated[int, within("batch_size")] = 1
    """1 for kinds of task without batches."""
    optimizer: Optimizer = "sgd"
    lr: Rate
    weight_decay: Annotated[float, within("weight_decay")] = 0.0
    options: dict[str, Any] = {}
    """Other options of the torch.optim class, by its argument names."""


class FurtherTrainingConfig(Extended):
    """See sections.FurtherTrainingKeys."""

    added = frozenset({"weight_decay_schedule", "weight_decay_end", "weight_decay_follows", "ema_decay"})

    weight_decay_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay_end: Annotated[float, within("weight_decay_end")] = 0.0
    weight_decay_follows: Literal["rate", "base"] = "rate"
    ema_decay: Annotated[float, within("ema_decay")] = 0.0
    """0: no average of the weights."""
    clip_norm: Annotated[float, within("clip_norm")] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    """"auto", also in precision and compile: on if known to help; the log reports the choice and the reason."""
    compile: bool | Literal["auto"] = "auto"


class TrainingConfig(FurtherTrainingConfig, FirstTrainingConfig):
    """[training] with one value per key; a kind's own keys come between the two parts (models.training_config)."""


class ScheduleConfig(Frozen):
    """[schedule] with one value per key."""

    name: str = "constant"
    granularity: Granularity = "epoch"
    warmup: Annotated[float, within("schedule.warmup")] = 0.0
    warmup_factor: Annotated[float, within("schedule.warmup_factor")] = 0.1
    options: dict[str, Any] = {}
    """The curve's own options (see schedules.curves.OPTIONS)."""


class AmplifyConfig(Frozen):
    """Random amplification with one value per key; `upper = lower + width`, so every pair is valid (our choice).

    `upper` may be given in place of `width`.
    """

    probability: Annotated[float, within("amplify.probability")]
    lower: Factor = 1.0
    width: Width
    law: Literal["uniform", "loguniform"] = "uniform"
    granularity: Granularity = "epoch"
    window: Window | None = None
    """None: from the end of the warm-up (see `Configuration.window`)."""

    @model_validator(mode="before")
    @classmethod
    def _width_of_upper(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "upper" not in given:
            return given
        lower, upper = given.get("lower", 1.0), given["upper"]
        if "width" in given or not (isinstance(lower, int | float) and isinstance(upper, int | float)):
            raise problem("needs either upper or width (upper = lower + width), as numbers")
        if upper < lower:
            raise problem(f"upper = {upper:g}: must be at least lower, {lower:g}")
        return {**{key: value for key, value in given.items() if key != "upper"}, "width": upper - lower}

    @property
    def upper(self) -> float:
        return self.lower + self.width


class NoiseConfig(Frozen):
    """timm's learning-rate noise with one value per key."""

    amplitude: Amplitude = 0.67
    std: Std = 1.0
    law: Literal["normal", "uniform"] = "normal"
    granularity: Granularity = "epoch"
    window: Window = (0.0, 1.0)


class Configuration(Frozen):
    """Everything that one trial trains with, except its seed and data."""

    kind: ClassVar[Kind | None] = None
    """The kind of task; None for one without keys of its own."""

    training: TrainingConfig
    schedule: ScheduleConfig = ScheduleConfig()
    amplify: AmplifyConfig | None = None
    noise: NoiseConfig | None = None
    task: dict[str, Any] = {}
    """The searched values of [task], by their path below it (`model`, `data.size`)."""

    @model_serializer(mode="wrap")
    def _as_in_earlier_releases(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Same JSON as in releases that could not search [task] and whose window was never open, so that hashes do not
        change."""
        dumped: dict[str, Any] = handler(self)
        if self.amplify is not None and "window" in dumped.get("amplify", {}):
            dumped["amplify"]["window"] = self.window
        return {key: value for key, value in dumped.items() if key != "task" or value}

    @property
    def window(self) -> tuple[float, float]:
        """The part of the run that may be amplified, as shares: by default all of it after the warm-up.

        Our choice: a warm-up keeps the first rates small, and an amplified one does not. No gain in accuracy was
        measured (LOG.md, 2026-11-29).
        """
        if self.amplify is not None and self.amplify.window is not None:
            return self.amplify.window
        warmup = self.schedule.warmup
        share = warmup if warmup < 1 else warmup / self.training.epochs
        return (share if share < 1 else 0.0), 1.0  # the curve refuses a warm-up of the whole run

    @property
    def options(self) -> Hashable:
        """The values of the kind's own [training] keys, as its tasks expect them (`Kind.options`)."""
        if self.kind is None:
            return None
        return self.kind.options({key: getattr(self.training, key) for key in self.kind.training.model_fields})

    def without_amplification(self) -> Configuration:
        """The twin: the same configuration without amplification."""
        return self.model_copy(update={"amplify": None})

    def with_amplification(self, amplify: AmplifyConfig) -> Configuration:
        """The reverse of a twin: the same configuration with amplification."""
        return self.model_copy(update={"amplify": amplify})

    def number(self, name: str) -> float | None:
        """The value of an Optuna name (`lr`, `schedule.gamma`, `amplify.width`); None if it is not a number here."""
        if name.startswith(OF_OPTIMIZERS):
            own = own_name(name, self.training.optimizer)
            return None if own is None else self.number(own)
        table, _, key = name.rpartition(".")
        if (path := task_path(name)) is not None:
            return _number(self.task.get(path))
        if name == "amplify.upper":
            return None if self.amplify is None else self.amplify.upper
        values = dict(getattr(self, table or "training") or {})
        return _number({**values, **values.get("options", {})}.get(key))

    def learning_rate(self, steps_per_epoch: int | Sequence[int], seed: int) -> LearningRate:
        """The learning rate of every step of a run whose perturbation draws from `seed`.

        `steps_per_epoch`: one number for all epochs, or one for each. Raises ValueError as `curve` and `perturbation`
        do; a configuration of a valid study file never does.
        """
        return LearningRate(
            lr=self.training.lr,
            curve=self.curve(),
            epochs=self.training.epochs,
            steps_per_epoch=tuple(steps_per_epoch) if isinstance(steps_per_epoch, Sequence) else steps_per_epoch,
            perturbation=self.perturbation(),
            seed=seed,
            granularity=self.schedule.granularity,
        )

    def weight_decay(self, rate: LearningRate) -> WeightDecay:
        """The weight decay of every step of a run with this learning rate."""
        training = self.training
        decoupled = is_decoupled(training.optimizer, training.options)
        return WeightDecay(
            start=training.weight_decay,
            end=training.weight_decay_end,
            shape=training.weight_decay_schedule,
            follows=training.weight_decay_follows if decoupled else "rate",
            rate=rate,
        )

    def curve(self) -> Curve:
        """The base curve. Raises ValueError if its options do not fit each other or the number of epochs."""
        schedule = self.schedule
        return make_curve(
            schedule.name,
            epochs=self.training.epochs,
            warmup=schedule.warmup,
            warmup_factor=schedule.warmup_factor,
            **schedule.options,
        )

    def perturbation(self) -> Amplification | Noise | None:
        """The random factor of the curve. Raises ValueError if its options do not fit each other."""
        if self.amplify is not None:
            law = self.amplify.model_dump(exclude={"width", "window"})
            return Amplification(upper=self.amplify.upper, window=self.window, **law)
        return None if self.noise is None else Noise(**self.noise.model_dump())

    def identity(self, seed: int) -> str:
        """A hash of configuration and seed, equal only for runs that must agree bit for bit."""
        return hashlib.sha256(f"{self.model_dump_json()}|{seed}".encode()).hexdigest()


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
