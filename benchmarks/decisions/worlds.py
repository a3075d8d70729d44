"""What the policies search: one arm's configurations, and the validation curve of every run of each.

A match is two independent searches of ONE world, so that both arms are equally good; a constant added to every value
of one arm is then exactly the true difference of the arms. Samplers and pruners compare values within an arm only, so
the constant does not change a search (a test checks it).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tomli_w

from ralr_tune.errors import TrialError
from ralr_tune.kinds.simulated.section import Effect
from ralr_tune.kinds.simulated.task import CEILING, CHANCE, RATE, SimulatedTask
from ralr_tune.search.samplers import longest_run
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec, parse_study

Params = Mapping[str, Any]
"""A configuration: searched parameters by Optuna name."""
Curve = npt.NDArray[np.float64]
"""The metric on the validation split after each epoch, shape (epochs,); NaN from the epoch on in which a run diverges.
"""

ARMS = ("first", "second")
"""The two arms of a match, which search the same world; the first is the baseline."""
AMPLIFY = {
    "probability": {"low": 0.05, "high": 0.6},
    "lower": {"low": 1.0, "high": 2.0},
    "width": {"low": 0.0, "high": 4.0},
}


WEIGHT_DECAY = Effect(best=3e-4, loss=0.005, log=True)
"""Our choice: at most a point and a half is lost."""


class World(Protocol):
    """One arm's configurations and their runs. Larger values are better in every world."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> StudySpec:
        """A study of ARMS: metric, epochs and the space that both arms search."""

    @property
    def identity(self) -> str:
        """Changes with everything that changes a curve."""

    @property
    def best(self) -> float:
        """The largest true mean of a configuration."""

    @property
    def sd(self) -> float:
        """Standard deviation between seeds of the value of good configurations: the unit of true differences."""

    def offered(self, params: Params, tried: Collection[Params]) -> Params:
        """The configuration that the world has for these parameters, none of `tried`."""

    def curve(self, params: Params, seed: int, *, amplified: bool = True) -> Curve:
        """A pure function of its arguments. `amplified` = False: of the twin."""

    def trained_with(self, seed: int) -> int:
        """The training seed of the run that `curve` gives for this seed: it decides which epochs are amplified."""

    def mean(self, params: Params) -> float:
        """The exact mean of the value at the last epoch over all seeds; a diverged run counts as the metric's worst."""


@dataclass(frozen=True)
class Match:
    """Two searches of a world, in one replay."""

    world: World
    number: int
    """Of the replay."""

    @property
    def better(self) -> int:
        """The arm to whose values the true difference is added: each arm in every second replay."""
        return self.number % 2

    def seed(self, purpose: str, *key: int | str) -> int:
        """A seed of this replay, below 2**32 as numpy's generators need."""
        return derive_seed(f"decisions {purpose}", self.world.name, self.number, *key) % 2**32

    def shifts(self, difference: float) -> tuple[float, float]:
        """What is added to the values of each arm, for a true difference in standard deviations between seeds."""
        shift = difference * self.world.sd
        return (shift, 0.0) if self.better == 0 else (0.0, shift)

    def final(self, params: Params, seed: int) -> float:
        """The value of one run at its last epoch."""
        return final(self.world, self.world.curve(params, seed))


def final(world: World, curve: Curve) -> float:
    """The value of a run at its last epoch; the metric's worst if it diverged."""
    value = float(curve[-1])
    return worst(world) if math.isnan(value) else value


def worst(world: World) -> float:
    """What a diverged run is worth."""
    found = world.spec.metric.worst
    assert found is not None
    return found


def match_study(tables: Mapping[str, Any], arm: Mapping[str, Any]) -> StudySpec:
    """The study file `tables` with two arms of this section. A margin of 0: every true difference counts."""
    changed = {
        "study": {**tables["study"], "baseline": ARMS[0]},
        "arms": {name: dict(arm) for name in ARMS},
        "search": {"trials": 1},
        "confirm": {"margin": 0.0},
    }
    return parse_study(tomli_w.dumps({**tables, **changed}))


def with_budget(spec: StudySpec, seed: int, **search: Any) -> StudySpec:
    """The same study with another seed and other keys of [search]; valid values only, they are not checked."""
    file = spec.file
    update = {
        "study": file.study.model_copy(update={"seed": seed}),
        "search": file.search.model_copy(update=search),
    }
    return replace(spec, file=file.model_copy(update=update))


# ---------------------------------------------------------------- the simulated world


@dataclass(frozen=True)
class SimulatedWorld:
    """The curves of the simulated kind. Half of a run's variance is shared by all runs of its seed (our choice).

    The kind itself shares all of it, which makes differences of two monotone runs constant. A value is therefore the
    mean curve plus the deviations of two of its runs: that of the seed, and one of the run's own seed; the rate, and
    with it divergence and amplification, is the seed's.
    """

    arm: str
    """"monotone" or "ralr"."""
    shared: float = 0.5
    task: SimulatedTask = field(
        default_factory=lambda: SimulatedTask(optimum=0.05, effects={"weight_decay": WEIGHT_DECAY})
    )
    """Its best rate is not that of a usual recipe (our choice)."""

    @property
    def name(self) -> str:
        return f"simulated, {self.arm}"

    @property
    def identity(self) -> str:
        return f"{self.name} {self.shared} {self.task} {self.spec.fingerprint}"

    @cached_property
    def spec(self) -> StudySpec:
        tables = {
            "study": {"name": "simulated"},
            "task": {"kind": "simulated"},
            "training": {
                "epochs": 12,
                "lr": {"low": 1e-3, "high": 1.0, "log": True},
                "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
            },
            "schedule": {"name": "multistep", "milestones": [0.5, 0.75], "gamma": 0.1},
        }
        return match_study(tables, {"amplify": AMPLIFY} if self.arm == "ralr" else {})

    @property
    def best(self) -> float:
        return self._mean_at(CEILING, longest_run(self.spec))

    @property
    def sd(self) -> float:
        """Of a run whose last epoch is not amplified."""
        return math.hypot(self.task.noise, self.task.epoch_noise)

    def offered(self, params: Params, tried: Collection[Params]) -> Params:
        return params

    def curve(self, params: Params, seed: int, *, amplified: bool = True) -> Curve:
        configuration = self._configuration(params)
        if not amplified:
            configuration = configuration.without_amplification()
        epochs = configuration.training.epochs
        of_seed = self.task.trajectory(configuration, seed=seed)
        own = self.task.trajectory(configuration, seed=derive_seed("own", seed, repr(sorted(params.items()))))
        own.factors, own.rates = of_seed.factors, of_seed.rates
        asymptote, found = self.task.asymptote(configuration), np.full(epochs, np.nan)
        try:
            for epoch in range(1, epochs + 1):
                mean = self._mean_at(asymptote, epoch)
                deviations = (self.shared**0.5, of_seed), ((1 - self.shared) ** 0.5, own)
                found[epoch - 1] = mean + sum(part * (run.point(epoch) - mean) for part, run in deviations)
        except TrialError:
            pass  # diverged
        return found

    def trained_with(self, seed: int) -> int:
        return seed

    def mean(self, params: Params) -> float:
        """Exact but for the clipping to [0, 1], which a good configuration reaches at six standard deviations."""
        configuration = self._configuration(params)
        epochs = configuration.training.epochs
        survives = math.prod(self._survives(configuration, base) for base in self._base_rates(configuration))
        return survives * self._mean_at(self.task.asymptote(configuration), epochs)

    def _configuration(self, params: Params) -> Configuration:
        return self.spec.configuration(ARMS[0], params)

    @staticmethod
    def _mean_at(asymptote: float, epoch: int) -> float:
        return CHANCE + (asymptote - CHANCE) * float(1 - (1.0 + epoch) ** -RATE)

    @staticmethod
    def _base_rates(configuration: Configuration) -> list[float]:
        rates = configuration.without_amplification().learning_rate(1, seed=0).trace()[:, 0]
        return [float(rate) for rate in rates]

    def _survives(self, configuration: Configuration, base: float) -> float:
        """The probability that an epoch with this base rate does not diverge (a uniform factor)."""
        amplify, limit = configuration.amplify, self.task.diverges_above / base
        if amplify is None or amplify.upper <= limit:
            return 1.0
        above = 1.0 if amplify.lower >= limit else (amplify.upper - limit) / amplify.width
        return 1 - amplify.probability * above
