"""One point of an arm's space: every number that one trial trains with."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import Curve, make_curve
from ralr_tune.schedules.noise import Noise
from ralr_tune.schedules.rate import LearningRate
from ralr_tune.studyfile.sections import (
    Amplitude,
    Factor,
    Granularity,
    Optimizer,
    Rate,
    Std,
    Width,
    Window,
)
from ralr_tune.studyfile.values import Frozen, within

if TYPE_CHECKING:
    from ralr_tune.studyfile.kind import Kind

TASK = "task."
"""Begins the names of parameters that are searched values of [task]."""


class FirstTrainingConfig(Frozen):
    """See sections.FirstTrainingKeys."""

    epochs: Annotated[int, within("epochs")]
    batch_size: Annotated[int, within("batch_size")] = 1
    """Kinds of task that have no batches leave it at 1."""
    optimizer: Optimizer = "sgd"
    lr: Rate
    weight_decay: Annotated[float, within("weight_decay")] = 0.0
    options: dict[str, Any] = {}
    """Further options of the torch.optim class, by its own names."""


class FurtherTrainingConfig(Frozen):
    """See sections.FurtherTrainingKeys."""

    clip_norm: Annotated[float, within("clip_norm")] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    """"auto", as in precision and compile: where it is known to help; the log says what was chosen, and why."""
    compile: bool | Literal["auto"] = "auto"


class TrainingConfig(FurtherTrainingConfig, FirstTrainingConfig):
    """[training] with every search settled; a kind's own keys lie between the two parts (models.training_config)."""


class ScheduleConfig(Frozen):
    """[schedule] with every search settled."""

    name: str = "constant"
    granularity: Granularity = "epoch"
    warmup: Annotated[float, within("schedule.warmup")] = 0.0
    warmup_factor: Annotated[float, within("schedule.warmup_factor")] = 0.1
    options: dict[str, Any] = {}
    """The curve's own options (see schedules.curves.OPTIONS)."""


class AmplifyConfig(Frozen):
    """Random amplification with every search settled; `upper = lower + width`, so that no pair is impossible (ours)."""

    probability: Annotated[float, within("amplify.probability")]
    lower: Factor = 1.0
    width: Width
    law: Literal["uniform", "loguniform"] = "uniform"
    granularity: Granularity = "epoch"
    window: Window = (0.0, 1.0)

    @property
    def upper(self) -> float:
        return self.lower + self.width


class NoiseConfig(Frozen):
    """timm's learning-rate noise with every search settled."""

    amplitude: Amplitude = 0.67
    std: Std = 1.0
    law: Literal["normal", "uniform"] = "normal"
    granularity: Granularity = "epoch"
    window: Window = (0.0, 1.0)


class Configuration(Frozen):
    """Everything that one trial trains with, its seed and data aside."""

    kind: ClassVar[Kind | None] = None
    """The kind of task; None for one without keys of its own."""

    training: TrainingConfig
    schedule: ScheduleConfig = ScheduleConfig()
    amplify: AmplifyConfig | None = None
    noise: NoiseConfig | None = None
    task: dict[str, Any] = {}
    """The searched values of [task], by their path below it (`model`, `data.size`)."""

    @model_serializer(mode="wrap")
    def _without_empty_task(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As releases wrote it that could not search [task]: what is hashed stays the same."""
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key != "task" or value}

    @property
    def options(self) -> Hashable:
        """The kind's own keys of [training], settled, as its tasks take them (`Kind.options`)."""
        if self.kind is None:
            return None
        return self.kind.options({key: getattr(self.training, key) for key in self.kind.training.model_fields})

    def without_amplification(self) -> Configuration:
        """The twin: the same, with the amplification switched off."""
        return self.model_copy(update={"amplify": None})

    def with_amplification(self, amplify: AmplifyConfig) -> Configuration:
        """The twin the other way round: the same, amplified."""
        return self.model_copy(update={"amplify": amplify})

    def number(self, name: str) -> float | None:
        """What an Optuna name (`lr`, `schedule.gamma`, `amplify.width`) stands for; None where it is no number here."""
        table, _, key = name.rpartition(".")
        if name.startswith(TASK):
            return _number(self.task.get(name.removeprefix(TASK)))
        values = dict(getattr(self, table or "training") or {})
        return _number({**values, **values.get("options", {})}.get(key))

    def learning_rate(self, steps_per_epoch: int | Sequence[int], seed: int) -> LearningRate:
        """The learning rate of every step of a run whose perturbation draws from `seed`.

        `steps_per_epoch`: one number for all epochs, or one for each. Raises ValueError as `curve` and `perturbation`
        do; a configuration of a study file never does.
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

    def curve(self) -> Curve:
        """The base curve. Raises ValueError when its options do not fit each other or the number of epochs."""
        schedule = self.schedule
        return make_curve(
            schedule.name,
            epochs=self.training.epochs,
            warmup=schedule.warmup,
            warmup_factor=schedule.warmup_factor,
            **schedule.options,
        )

    def perturbation(self) -> Amplification | Noise | None:
        """What multiplies the curve at random. Raises ValueError when its options do not fit each other."""
        if self.amplify is not None:
            return Amplification(upper=self.amplify.upper, **self.amplify.model_dump(exclude={"width"}))
        return None if self.noise is None else Noise(**self.noise.model_dump())

    def identity(self, seed: int) -> str:
        """A hash of configuration and seed: two runs that must agree bit for bit share it, no others do."""
        return hashlib.sha256(f"{self.model_dump_json()}|{seed}".encode()).hexdigest()


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
