"""The [task] table of kind "simulated": the constants of the formula in task.py."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ralr_tune.studyfile.sections import AmplifySection, NoiseSection, ScheduleSection, TaskSection, TrainingKeys
from ralr_tune.studyfile.values import (
    Choosable,
    Frozen,
    NonNegative,
    Positive,
    Searchable,
    one_of,
    problem,
    takes_range,
    within,
)


class SimulatedTraining(Frozen):
    """Keys of [training] that have no effect unless `data.effects` defines one: parameters that do not matter."""

    augment: Choosable[Annotated[tuple[str, ...], Field(strict=False)]] = ()
    """Has no effect."""
    label_smoothing: Searchable[Annotated[float, within("label_smoothing")]] = 0.0


RANGE_PARAMETERS: tuple[str, ...] = tuple(
    f"{prefix}{key}"
    for prefix, tables in {
        "": (TrainingKeys, SimulatedTraining),
        "schedule.": (ScheduleSection,),
        "amplify.": (AmplifySection,),
        "noise.": (NoiseSection,),
    }.items()
    for table in tables
    for key in takes_range(table)
)
"""All parameters that may be searched in a range."""


def _parameter(name: str) -> str:
    if name == "lr":
        raise problem("the effect of lr is set by data.optimum, its best value")
    if name not in RANGE_PARAMETERS:
        others = [each for each in RANGE_PARAMETERS if each != "lr"]
        raise problem(f"not a number of a configuration; {one_of(others, name)}")
    return name


class Effect(Frozen):
    """Effect of one parameter: accuracy drops by `loss` at a distance of one unit (`log`: one decade) from `best`."""

    best: float
    """The best value of the parameter."""
    loss: NonNegative
    """Accuracy lost at a distance of one unit from `best`."""
    log: bool = False
    """Must equal `log` of the range in which the parameter is searched."""

    @model_validator(mode="after")
    def _on_log_scale(self) -> Effect:
        if self.log and self.best <= 0:
            raise problem(f"best = {self.best:g} with log = true: best must be above 0")
        return self


class SimulatedData(Frozen):
    """Constants of the simulated task's formula (see task.py)."""

    optimum: Positive = 0.1
    """The best learning rate."""
    effect: Annotated[float, Field(ge=-0.5, le=0.5)] = 0.0
    """What amplification adds to the accuracy, in the mean."""
    noise: NonNegative = 0.005
    """Standard deviation between seeds."""
    epoch_noise: NonNegative = 0.002
    """Standard deviation between epochs."""
    jitter: NonNegative = 0.01
    """How much an amplified epoch adds to the noise."""
    diverges_above: Positive = 5.0
    """A trial whose rate exceeds this diverges."""
    seconds_per_epoch: NonNegative = 0.0
    """Time that an epoch takes."""
    effects: dict[Annotated[str, AfterValidator(_parameter)], Effect] = {}
    """By Optuna name; a parameter without an entry has no effect."""
    loss: bool = False
    """Whether trials also measure a loss every epoch: minus the logarithm of the metric."""

    @model_serializer(mode="wrap")
    def _as_without_loss(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Same JSON as in releases without `loss`, so that fingerprints do not change."""
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key != "loss" or value}


class SimulatedSection(TaskSection):
    """[task] kind = "simulated": curves from a formula, to test the software and the statistics."""

    data: SimulatedData = SimulatedData()
    """Constants of the formula."""
