"""How often blocks of search decide rightly whether one schedule is better: `python -m benchmarks.blocks`.

benchmarks/decisions gives both arms the same curves, so trials that arms share would be the same runs. Here the arms
differ: monotone decay and RALR in the formula of the simulated kind (last epochs only, vectorised: thousands of studies
in seconds; no pruning). In the world "same", amplification has no effect on the mean; in "shifted", an arm's best mean
rate is the same, so that RALR's best base rate is lower. "digits" and "cifar" are the recorded runs of
benchmarks/decisions: both arms have their own curves, and a trial that they share has the same rate and weight decay,
on the same seed. The true difference of the arms is that of the mean winners of such blocks; it is subtracted, so that
both are equally good, and a constant is added. Claims are counted at equal medians of studies, too: failed runs that
most studies do not see move the mean alone.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.stats import qmc

from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.tables import ARMS, Table, plan_of
from benchmarks.decisions.worlds import AMPLIFY, WEIGHT_DECAY
from ralr_tune.analysis.chances import crossed
from ralr_tune.kinds.simulated.task import CEILING, CHANCE, CURVATURE, SimulatedTask

Array = npt.NDArray[np.float64]
Params = Mapping[str, Array]
Shape = tuple[int, ...]
Draws = Literal["independent", "random", "qmc"]

EPOCHS = 12
TASK = SimulatedTask(optimum=0.05)
SD = float(np.hypot(TASK.noise, TASK.epoch_noise))
DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
FULL_RATE_EPOCHS = EPOCHS // 2
"""Before the first milestone of the benchmark's base curve: only these epochs can diverge."""
CEILING_AT_END = CHANCE + (CEILING - CHANCE) * (1 - 1 / (1 + EPOCHS))
SHARED = 0.5
"""Of the variance of a run, by all runs of its seed."""


@dataclass(frozen=True)
class Design:
    """A study of two arms."""

    draws: Draws
    """independent: each arm its own; random and qmc: both arms share the values of a trial."""
    blocks: int
    trials: int
    """Of each block."""
    top: int
    own_seeds: bool
    seeds: int
    common: int = 0
    """The first trials of every block are the same runs, trained once."""

    @property
    def choosing(self) -> int:
        """Seeds that choose among the finalists of all blocks, as `search.stages.choosing_seeds` has them."""
        return max(2, math.ceil(self.seeds / 2))

    @property
    def runs(self) -> int:
        """Of both arms, with the twins of RALR's best recipe."""
        searched = self.blocks * self.trials - (self.blocks - 1) * self.common
        return 2 * (searched + self.blocks * (self.top * self.choosing + self.seeds)) + self.seeds

    def __str__(self) -> str:
        seeds = f"{self.seeds} {'own' if self.own_seeds else 'shared'} seeds"
        common = f" of which {self.common} common" if self.common else ""
        return f"{self.draws} {self.blocks} x {self.trials}{common}, top {self.top}, {seeds}"


_CONFIRM = ((2, False, 5), (2, True, 5), (1, True, 5), (1, True, 2))
_DRAWS: tuple[Draws, ...] = ("independent", "random", "qmc")
DESIGNS = (
    Design("independent", 4, 24, 2, False, 5),  # four searches an arm, each of `search.trials`
    *(Design(draws, 4, 6, *confirm) for draws, confirm in product(_DRAWS, _CONFIRM)),
    *(Design(draws, *size, 1, True, 2) for draws, size in product(_DRAWS, ((8, 3), (8, 6)))),
    *(Design(draws, 4, 12, 2, True, 5, common=6) for draws in _DRAWS[:2]),
)


@dataclass(frozen=True)
class Judged:
    """Values of the blocks' winners."""

    values: tuple[Array, Array]
    """Of each arm, shape (studies, blocks, seeds)."""
    recipes: tuple[Array, Array]
    """True mean of the recipe that each arm has in the end, shape (studies,)."""


@dataclass(frozen=True)
class Simulated:
    """The formula of the simulated kind. A seed is two normal draws, a configuration its parameters and its mean."""

    shifted: bool
    """Whether amplification raises the mean rate, which then has the same best value in both arms."""
    draws: ClassVar[tuple[Draws, ...]] = ("independent", "random", "qmc")
    sd: ClassVar[float] = SD
    best: ClassVar[tuple[float, float]] = (CEILING_AT_END, CEILING_AT_END)
    epochs: ClassVar[int] = EPOCHS

    def seeds(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.normal(size=(2, *shape))

    def trials(self, design: Design, studies: int, rng: np.random.Generator) -> tuple[Params, Params]:
        """Of each arm, each value of shape (studies, blocks, trials)."""
        shape = (studies, design.blocks, design.trials, 5)
        if design.draws == "qmc":
            count = studies * design.blocks
            points = [qmc.Sobol(5, scramble=True, rng=rng).random(design.trials) for _ in range(count)]
            units = [np.reshape(points, shape)] * 2
        else:
            first = rng.random(shape)
            units = [first, rng.random(shape) if design.draws == "independent" else first]
        return self._with_means(units[0], amplified=False), self._with_means(units[1], amplified=True)

    def _with_means(self, unit: Array, *, amplified: bool) -> Params:
        params = params_at(unit)
        return {**params, "mean": means(params, shifted=self.shifted, amplified=amplified)}

    def values(self, params: Params, of_seed: Array, rng: np.random.Generator, *, amplified: bool) -> Array:
        """Of runs that do not diverge."""
        return params["mean"] + deviations(params, of_seed, rng, amplified=amplified)

    def searched(self, params: Params, of_seed: Array, rng: np.random.Generator, *, amplified: bool) -> Array:
        """Of the runs of a search; -1 if they diverge."""
        lives = rng.random(params["mean"].shape) < survival(params, amplified=amplified)
        return np.where(lives, self.values(params, of_seed, rng, amplified=amplified), -1.0)


@dataclass(frozen=True)
class Recorded:
    """A table of real runs. A seed and a configuration are their places in the table; a block draws among all
    configurations without replacement, and seeds are drawn with replacement."""

    arms: tuple[RecordedWorld, RecordedWorld]
    draws: ClassVar[tuple[Draws, ...]] = ("independent", "random")

    @classmethod
    def of(cls, name: str) -> Recorded:
        """Raises UsageError for a table that has too few seeds."""
        table = Table.of(plan_of(name))
        return cls((RecordedWorld(table, ARMS[0]), RecordedWorld(table, ARMS[1])))

    @property
    def sd(self) -> float:
        return self.arms[0].sd

    @property
    def epochs(self) -> int:
        """Of a run."""
        return self.arms[0].table.plan.shape[-1]

    @property
    def best(self) -> tuple[float, float]:
        return self.arms[0].best, self.arms[1].best

    def seeds(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.integers(self.arms[0].finals.shape[1], size=(1, *shape)).astype(float)

    def trials(self, design: Design, studies: int, rng: np.random.Generator) -> tuple[Params, Params]:
        first = self._places(design, studies, rng)
        other = self._places(design, studies, rng) if design.draws == "independent" else first
        return self._with_means(first, 0), self._with_means(other, 1)

    def _places(self, design: Design, studies: int, rng: np.random.Generator) -> Array:
        count = len(self.arms[0].finals)
        every = np.broadcast_to(np.arange(count), (studies * design.blocks, count))
        drawn = rng.permuted(every, axis=1)[:, : design.trials]
        return drawn.reshape(studies, design.blocks, design.trials).astype(float)

    def _with_means(self, places: Array, arm: int) -> Params:
        return {"place": places, "mean": self.arms[arm].finals.mean(axis=1)[places.astype(int)]}

    def values(self, params: Params, of_seed: Array, rng: np.random.Generator, *, amplified: bool) -> Array:
        return self.arms[amplified].finals[params["place"].astype(int), of_seed[0].astype(int)]

    searched = values


World = Simulated | Recorded


def params_at(unit: Array) -> dict[str, Array]:
    """The parameters at quantiles, shape (..., 5), in the ranges of benchmarks/decisions."""
    ends = {
        "lr": (-3.0, 0.0),
        "weight_decay": (-5.0, -2.0),
        **{key: (e["low"], e["high"]) for key, e in AMPLIFY.items()},
    }
    found = {name: low + (high - low) * unit[..., at] for at, (name, (low, high)) in enumerate(ends.items())}
    return {**found, "lr": 10 ** found["lr"], "weight_decay": 10 ** found["weight_decay"]}


def means(params: Params, *, shifted: bool, amplified: bool) -> Array:
    """The mean value of a run that does not diverge."""
    rate = params["lr"]
    if amplified and shifted:
        rate = rate * (1 + params["probability"] * (params["lower"] + params["width"] / 2 - 1))
    lost = CURVATURE * np.log10(rate / TASK.optimum) ** 2
    lost = lost + WEIGHT_DECAY.loss * np.log10(params["weight_decay"] / WEIGHT_DECAY.best) ** 2
    return np.asarray(CHANCE + (CEILING - lost - CHANCE) * (1 - 1 / (1 + EPOCHS)))


def survival(params: Params, *, amplified: bool) -> Array:
    """The probability that a run does not diverge."""
    if not amplified:
        return np.ones_like(params["lr"])
    limit = TASK.diverges_above / params["lr"]
    above = np.clip((params["lower"] + params["width"] - limit) / np.maximum(params["width"], 1e-9), 0, 1)
    return np.asarray((1 - params["probability"] * above) ** FULL_RATE_EPOCHS)


def deviations(params: Params, of_seed: Array, rng: np.random.Generator, *, amplified: bool) -> Array:
    """Of runs from their means. `of_seed`: two normal draws of each run's seed, shape (2, ...)."""
    shape, factor = of_seed.shape[1:], np.ones(of_seed.shape[1:])
    if amplified:
        drawn = params["lower"] + params["width"] * rng.random(shape)
        factor = np.where(rng.random(shape) < params["probability"], drawn, 1.0)
    last = np.hypot(TASK.epoch_noise, TASK.jitter * np.log(factor))
    own = rng.normal(size=(2, *shape))
    parts = ((SHARED, of_seed), (1 - SHARED, own))
    return np.asarray(sum(share**0.5 * (TASK.noise * one + last * other) for share, (one, other) in parts))


def simulated(design: Design, world: World, studies: int, rng: np.random.Generator) -> Judged:
    """Studies from search to judged winners; fresh seeds are the same in both arms."""
    searching = world.seeds((studies, design.blocks, design.trials), rng)
    choosing = world.seeds((studies, 1, 1, design.choosing), rng)
    judging = world.seeds((studies, design.blocks if design.own_seeds else 1, design.seeds), rng)
    values, recipes = [], []
    for amplified, drawn in enumerate(world.trials(design, studies, rng)):
        arm = {"amplified": bool(amplified)}
        params = {name: _in_common(each, design.common) for name, each in drawn.items()}
        found = _in_common(world.searched(params, searching, rng, **arm), design.common)
        best = np.argsort(-found, axis=-1)[..., : design.top]
        params = _taken(params, best)
        runs = {name: each[..., None] for name, each in params.items()}
        of_seed = np.broadcast_to(choosing, (len(choosing), *best.shape, design.choosing))
        chosen = world.values(runs, of_seed, rng, **arm).mean(-1)
        winner = chosen.argmax(-1)[..., None]
        params, chosen = _taken(params, winner), np.take_along_axis(chosen, winner, -1)[..., 0]
        of_seed = np.broadcast_to(judging, (len(judging), *chosen.shape, design.seeds))
        values.append(world.values(params, of_seed, rng, **arm))
        recipes.append(np.take_along_axis(params["mean"][..., 0], chosen.argmax(-1)[:, None], 1)[:, 0])
    return Judged((values[0], values[1]), (recipes[0], recipes[1]))


def _in_common(values: Array, trials: int) -> Array:
    """With those of the first block in the first trials of every block."""
    return np.concatenate(
        [np.broadcast_to(values[:, :1, :trials], values[:, :, :trials].shape), values[:, :, trials:]], -1
    )


def _taken(params: Params, places: npt.NDArray[np.intp]) -> dict[str, Array]:
    return {name: np.take_along_axis(each, places, -1) for name, each in params.items()}


def claims(judged: Judged, difference: float, *, own_seeds: bool) -> tuple[float, float]:
    """The shares of studies that call RALR better and worse, at 5%: `analysis.comparison.paired_test`, vectorised.

    `difference`: the true one, in the unit of the values.
    """
    d = judged.values[1] - judged.values[0]
    d = d - d.mean() + difference
    blocks, mean = d.mean(-1), d.mean((1, 2))
    if own_seeds:
        half = special.stdtrit(blocks.shape[1] - 1, 0.975) * blocks.std(1, ddof=1) / np.sqrt(blocks.shape[1])
    else:
        error, critical = crossed(blocks, d.mean(1), _run_errors(d), np.array([0.025]))
        half = critical[0] * error
    return float((mean > half).mean()), float((mean < -half).mean())


def _mean_less_median(judged: Judged) -> float:
    """Of the difference that a study finds."""
    found = (judged.values[1] - judged.values[0]).mean((1, 2))
    return float(found.mean() - np.median(found))


def _run_errors(d: Array) -> Array:
    """`analysis.comparison.run_error` of every study, shape (studies,); d: shape (studies, blocks, seeds)."""
    rest = d - d.mean(1, keepdims=True) - d.mean(2, keepdims=True) + d.mean((1, 2), keepdims=True)
    _, blocks, seeds = d.shape
    return np.sqrt((rest**2).sum((1, 2)) / ((blocks - 1) * (seeds - 1) * blocks * seeds))


def rows(worlds: Mapping[str, World], studies: int, seed: int) -> Iterator[str]:
    """One line of a Markdown table for each design that a world has."""
    yield "| world | design | claims: equal means, medians | right at 0.5 / 1 / 2 sd | correlation | regret | epochs |"
    yield "|---|---|---|---|---|---|---|"
    for (name, world), design in product(worlds.items(), DESIGNS):
        if design.draws not in world.draws:
            continue
        rng = np.random.default_rng(seed)
        judged = simulated(design, world, studies if design.draws != "qmc" else studies // 5, rng)
        found = [claims(judged, each * world.sd, own_seeds=design.own_seeds) for each in DIFFERENCES]
        one, other = (each.mean(-1).ravel() for each in judged.values)
        typical = claims(judged, _mean_less_median(judged), own_seeds=design.own_seeds)
        right = " / ".join(f"{100 * better:.0f}" for better, _ in found[1:])
        wrong = ", ".join(f"{100 * sum(each):.1f}%" for each in (found[0], typical))
        lost = [best - each.mean() for best, each in zip(world.best, judged.recipes, strict=True)]
        yield (
            f"| {name} | {design} | {wrong} | {right}% | {np.corrcoef(one, other)[0, 1]:.2f} | "
            f"{np.mean(lost) / world.sd:.2f} | {world.epochs * design.runs:,} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.blocks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=3000, help="of each design; a fifth with Sobol points")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # scipy warns if the number of Sobol points is no power of 2
    for line in rows({name: WORLDS[name]() for name in given.worlds}, given.studies, given.seed):
        print(line, flush=True)


WORLDS: Mapping[str, Callable[[], World]] = {
    "same": partial(Simulated, shifted=False),
    "shifted": partial(Simulated, shifted=True),
    "digits": partial(Recorded.of, "digits"),
    "cifar": partial(Recorded.of, "cifar"),
}


if __name__ == "__main__":
    main()
