"""What it gains if the samplers of both arms see each other's trials: `python -m benchmarks.sharing`.

RALR with probability 0 is monotone decay, so a trial of one arm says something about `lr` and `weight_decay` of the
other. Here every arm of a block has its own TPE, trials alternate, and each sampler may see the other arm's trials.
Last epochs only, no pruning. Each run of a search has a training seed of its own, so arms share no luck but their
trials. Two finalists are chosen on three fresh seeds, and four blocks are judged on five, the same in both arms.

Worlds: "same" and "shifted" are those of benchmarks/blocks; in "quarter" RALR's best base rate is a quarter of
monotone decay's; in "often" RALR is best if it amplifies often; "digits" has the recorded curves of both arms; in "digits, one arm" both search those of monotone
decay.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy import special

from benchmarks.blocks import EPOCHS, SD, Judged, calls, deviations, means, survival
from benchmarks.decisions.proposals import space_of
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.tables import ARMS as TABLE_ARMS
from benchmarks.decisions.tables import Table, plan_of
from benchmarks.decisions.worlds import SimulatedWorld, worst
from ralr_tune.kinds.simulated.task import CEILING, CHANCE

Array = npt.NDArray[np.float64]
Recipe = Mapping[str, float]

SHARED = ("lr", "weight_decay")
SPACE = space_of(SimulatedWorld("ralr"))
"""Of RALR in every world, by Optuna's names; monotone decay has SHARED alone."""
TRIALS = (12, 24)
"""Of each arm in each block: the shorter search is the beginning of the longer one."""
BLOCKS, FINALISTS, CHOOSING, JUDGING = 4, 2, 3, 5
BATCHES, STUDIES = 10, 300
"""The blocks of a policy are divided into batches; each gives this many studies, and their spread is the error."""


class Arms(Protocol):
    """Two arms and what a run of each gives."""

    @property
    def amplified(self) -> tuple[bool, bool]: ...

    @property
    def best(self) -> tuple[float, float]:
        """The largest true mean of each arm."""

    @property
    def sd(self) -> float:
        """Between seeds: the unit of differences."""

    def offered(self, arm: int, proposed: Recipe, tried: Sequence[Recipe]) -> Recipe:
        """The recipe that stands for a proposal."""

    def means(self, arm: int, recipes: Mapping[str, Array]) -> Array:
        """True means, of the shape of the parameters."""

    def runs(self, arm: int, recipes: Mapping[str, Array], seeds: Array, rng: np.random.Generator) -> Array:
        """Values of runs. `seeds`: two normal draws of each run's training seed, shape (2, ...)."""


@dataclass(frozen=True)
class Simulated:
    """The formula of benchmarks/blocks."""

    world: Literal["same", "shifted"] = "same"
    factor: float = 1.0
    """RALR is best at a base rate lower by this, whatever its parameters."""
    lost: float = 0.0
    """What RALR loses in the mean by the squared distance of its probability from 0.45."""
    amplified: tuple[bool, bool] = (False, True)
    sd: float = SD
    best: tuple[float, float] = (CHANCE + (CEILING - CHANCE) * (1 - 1 / (1 + EPOCHS)),) * 2

    def offered(self, arm: int, proposed: Recipe, tried: Sequence[Recipe]) -> Recipe:
        return proposed

    def means(self, arm: int, recipes: Mapping[str, Array]) -> Array:
        params = _short(recipes)
        return self._alive(arm, params) * survival(params, amplified=self.amplified[arm])

    def runs(self, arm: int, recipes: Mapping[str, Array], seeds: Array, rng: np.random.Generator) -> Array:
        params, amplified = _short(recipes), self.amplified[arm]
        found = self._alive(arm, params) + deviations(params, seeds, rng, amplified=amplified)
        return np.where(rng.random(seeds.shape[1:]) < survival(params, amplified=amplified), found, 0.0)

    def _alive(self, arm: int, params: Mapping[str, Array]) -> Array:
        if not self.amplified[arm]:
            return means(params, self.world, amplified=False)
        found = means({**params, "lr": params["lr"] * self.factor}, self.world, amplified=True)
        return found - self.lost * (params["probability"] - 0.45) ** 2


def _short(recipes: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix("amplify."): values for name, values in recipes.items()}


@dataclass(frozen=True)
class Recorded:
    """Two arms of a table of real runs; the recorded seeds are the population."""

    worlds: tuple[RecordedWorld, RecordedWorld]

    @property
    def amplified(self) -> tuple[bool, bool]:
        return self.worlds[0].arm == "ralr", self.worlds[1].arm == "ralr"

    @property
    def best(self) -> tuple[float, float]:
        return self.worlds[0].best, self.worlds[1].best

    @property
    def sd(self) -> float:
        return self.worlds[0].sd

    def offered(self, arm: int, proposed: Recipe, tried: Sequence[Recipe]) -> Recipe:
        return self.worlds[arm].offered(proposed, tried)

    def means(self, arm: int, recipes: Mapping[str, Array]) -> Array:
        return np.asarray(self._finals(arm, recipes).mean(-1))

    def runs(self, arm: int, recipes: Mapping[str, Array], seeds: Array, rng: np.random.Generator) -> Array:
        finals = self._finals(arm, recipes)
        if self.worlds[0] is self.worlds[1] and arm:  # the same runs in both arms would have no noise in the difference
            seeds = rng.normal(size=seeds.shape)
        drawn = (special.ndtr(seeds[0]) * finals.shape[-1]).astype(int)
        finals = np.broadcast_to(finals, (*drawn.shape, finals.shape[-1]))
        return np.asarray(np.take_along_axis(finals, drawn[..., None], -1)[..., 0])

    def _finals(self, arm: int, recipes: Mapping[str, Array]) -> Array:
        """Values at the last epoch of all seeds, shape (..., seeds). A rate identifies a recorded configuration."""
        table = self.worlds[arm].table
        values = table.values[TABLE_ARMS.index(self.worlds[arm].arm), :, : table.complete_seeds, -1]
        rates = np.array([each["lr"] for each in table.plan.params[0]])
        order = np.argsort(rates)
        places = order[np.searchsorted(rates[order], recipes["lr"])]
        return np.nan_to_num(values[places].astype(float), nan=worst(self.worlds[arm]))


def worlds() -> Mapping[str, Arms]:
    """Raises UsageError if the table has too few complete seeds."""
    table = Table.of(plan_of("digits"))
    monotone, ralr = (RecordedWorld(table, arm) for arm in TABLE_ARMS)
    return {
        "same": Simulated(),
        "shifted": Simulated("shifted"),
        "quarter": Simulated(factor=4.0),
        "often": Simulated("shifted", lost=0.05),
        "digits": Recorded((monotone, ralr)),
        "digits, one arm": Recorded((monotone, monotone)),
    }


# ---------------------------------------------------------------- searches


@dataclass(frozen=True)
class Policy:
    """What a sampler sees of the other arm."""

    others: Literal["nothing", "shared", "zero"] = "nothing"
    """Of the other arm's trials: their shared parameters alone, so that TPE models these by themselves ("shared"), or,
    for RALR's sampler, with the lowest probability and random bounds ("zero")."""
    shifted: bool = False
    """Add the difference of both arms' medians to the other arm's values."""
    start: int = 10
    """TPE draws at random until it sees so many trials: 10 is Optuna's default."""

    def __str__(self) -> str:
        if self.others == "nothing":
            return f"no sharing, {self.start} random trials"
        how = {"shared": "shared parameters alone", "zero": "lowest probability"}[self.others]
        return f"{how}, values {'shifted' if self.shifted else 'as they are'}"


POLICIES = (
    Policy(),
    Policy(start=5),
    Policy("shared"),
    Policy("shared", shifted=True),
    Policy("zero"),
    Policy("zero", shifted=True),
)
"""A sampler that sees both arms' trials ends its random start after five trials of its own, as the second does."""


class Trial:
    """A finished trial."""

    def __init__(self, arm: int, recipe: Recipe, value: float) -> None:
        self.arm, self.recipe, self.value = arm, recipe, value

    def seen(self, recipe: Recipe, plus: float = 0.0) -> FrozenTrial:
        """As Optuna knows it."""
        spaces = {name: SPACE[name] for name in recipe}
        return create_trial(params=dict(recipe), distributions=spaces, value=self.value + plus)


def searched(world: Arms, policy: Policy, block: int) -> tuple[list[Trial], list[Trial]]:
    """One block. Draws depend on block, arm and trial alone, so that policies share their luck."""
    done: tuple[list[Trial], list[Trial]] = ([], [])
    studies = [optuna.create_study(direction="maximize") for _ in done]
    for ordinal in range(max(TRIALS)):
        for arm in (0, 1):
            rng = np.random.default_rng((block, arm, ordinal))
            recipe = _proposed(world, policy, arm, done, studies, int(rng.integers(2**32)))
            value = float(world.runs(arm, _arrays([recipe]), rng.normal(size=(2, 1)), rng)[0])
            trial = Trial(arm, recipe, value)
            done[arm].append(trial)
            studies[arm].add_trial(trial.seen(recipe))
            if policy.others != "nothing" and not policy.shifted:
                studies[1 - arm].add_trial(trial.seen(_elsewhere(world, policy, trial, ordinal)))
    return done


def _proposed(
    world: Arms, policy: Policy, arm: int, done: Sequence[list[Trial]], studies: list[optuna.Study], seed: int
) -> Recipe:
    if policy.shifted and done[1 - arm]:
        studies[arm] = _with_shifted(world, policy, arm, done)
    study = studies[arm]
    study.sampler = optuna.samplers.TPESampler(
        multivariate=True, group=policy.others == "shared", n_startup_trials=policy.start, seed=seed
    )
    asked = study.ask({name: SPACE[name] for name in _names(world, arm)})
    study.tell(asked, state=TrialState.FAIL)  # samplers leave it out: what is offered is added instead
    return world.offered(arm, asked.params, [each.recipe for each in done[arm]])


def _with_shifted(world: Arms, policy: Policy, arm: int, done: Sequence[list[Trial]]) -> optuna.Study:
    """A study of all trials with today's medians."""
    own, others = done[arm], done[1 - arm]
    plus = float(np.median([each.value for each in own]) - np.median([each.value for each in others])) if own else 0.0
    study = optuna.create_study(direction="maximize")
    study.add_trials([each.seen(each.recipe) for each in own])
    study.add_trials([each.seen(_elsewhere(world, policy, each, at), plus) for at, each in enumerate(others)])
    return study


def _names(world: Arms, arm: int) -> Sequence[str]:
    return tuple(SPACE) if world.amplified[arm] else SHARED


def _elsewhere(world: Arms, policy: Policy, trial: Trial, ordinal: int) -> Recipe:
    """What the other arm's sampler sees of a trial's parameters."""
    recipe = {name: trial.recipe[name] for name in SHARED}
    if policy.others == "zero" and world.amplified[1 - trial.arm]:
        rng = np.random.default_rng((ordinal, round(1e9 * recipe["lr"])))
        recipe |= {"amplify.probability": 0.05, "amplify.lower": rng.uniform(1, 2), "amplify.width": rng.uniform(0, 4)}
    return recipe


def winner(world: Arms, trials: Sequence[Trial], block: int) -> Recipe:
    """The best of the finalists on fresh seeds, which are the same in both arms."""
    best = sorted(trials, key=lambda each: -each.value)[:FINALISTS]
    seeds = np.random.default_rng((block, len(trials))).normal(size=(2, CHOOSING))
    rng = np.random.default_rng((block, len(trials), trials[0].arm))
    values = [world.runs(trials[0].arm, _arrays([each.recipe]), seeds, rng).mean() for each in best]
    return best[int(np.argmax(values))].recipe


def _arrays(recipes: Sequence[Recipe]) -> dict[str, Array]:
    return {name: np.array([each[name] for each in recipes]) for name in recipes[0]}


# ---------------------------------------------------------------- figures


@dataclass(frozen=True)
class Pool:
    """The winners of many blocks of one policy."""

    world: Arms
    recipes: tuple[Mapping[str, Array], Mapping[str, Array]]
    """Of each arm, every parameter of shape (blocks,)."""

    @property
    def means(self) -> tuple[Array, Array]:
        return self.world.means(0, self.recipes[0]), self.world.means(1, self.recipes[1])

    @property
    def regrets(self) -> Array:
        """In standard deviations between seeds, shape (2, blocks)."""
        best = self.world.best
        return np.array([(best[arm] - self.means[arm]) / self.world.sd for arm in (0, 1)])

    def judged(self, rng: np.random.Generator) -> Judged:
        """Studies of BLOCKS blocks, batch by batch."""
        count = len(self.recipes[0]["lr"])
        batches = np.array_split(np.arange(count), BATCHES)
        chosen = np.array([rng.choice(batch, BLOCKS, replace=False) for batch in batches for _ in range(STUDIES)])
        seeds = np.broadcast_to(rng.normal(size=(2, len(chosen), 1, JUDGING)), (2, *chosen.shape, JUDGING))
        taken = [{name: each[chosen][..., None] for name, each in arm.items()} for arm in self.recipes]
        one, other = (self.world.runs(arm, taken[arm], seeds, rng) for arm in (0, 1))
        return Judged((one, other), (one[:, 0, 0], other[:, 0, 0]))


def line(pool: Pool, alone: Pool, seed: int) -> str:
    """The figures of one policy as cells; `alone`: of the first policy, on the same luck."""
    regrets = pool.regrets
    gained = alone.regrets - regrets
    rates = [np.log10(each["lr"]) for each in pool.recipes]
    one, other = pool.means
    judged = pool.judged(np.random.default_rng(seed))
    shares = []
    for difference in (0.0, 1.0, 2.0):
        called = calls(judged, difference * pool.world.sd, own_seeds=False)
        right = (called > 0 if difference else called != 0).reshape(BATCHES, STUDIES).mean(1)
        shares.append(f"{100 * right.mean():.1f} ± {100 * right.std(ddof=1) / math.sqrt(BATCHES):.1f}%")
    cells = [*map(_mean, regrets), *map(_mean, gained)]
    cells += [f"{np.corrcoef(rates[0], rates[1])[0, 1]:.2f}", f"{np.corrcoef(one, other)[0, 1]:.2f}"]
    cells += [f"{(other - one).std(ddof=1) / pool.world.sd:.2f}", *shares]
    return " | ".join(cells)


def _mean(values: Array) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def rows(names: Sequence[str], blocks: int, policies: Sequence[int] = range(len(POLICIES))) -> Iterator[str]:
    """A Markdown table: one line for each world, length of search and policy."""
    yield (
        "| world | trials | sampler sees | regret, monotone | RALR | gain, monotone | RALR | correlation of lr "
        "| of means | spread of differences | claims, equal arms | right at 1 sd | at 2 sd |"
    )
    yield "|" + "---|" * 13
    there = worlds()
    for name in names:
        world = there[name]
        chosen = [POLICIES[at] for at in policies]
        selected = [each for each in chosen if each.others != "zero" or any(world.amplified)]
        pools = {policy: pooled(world, policy, blocks) for policy in selected}
        for at, trials in enumerate(TRIALS):
            for policy, each in pools.items():
                yield f"| {name} | {trials} | {policy} | {line(each[at], pools[selected[0]][at], at)} |"


def pooled(world: Arms, policy: Policy, blocks: int) -> list[Pool]:
    """The winners of as many blocks, one pool for each of TRIALS."""
    found: list[tuple[list[Recipe], list[Recipe]]] = [([], []) for _ in TRIALS]
    for block in range(blocks):
        for arm, trials in enumerate(searched(world, policy, block)):
            for at, count in enumerate(TRIALS):
                found[at][arm].append(winner(world, trials[:count], block))
    return [Pool(world, (_arrays(one), _arrays(other))) for one, other in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.sharing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=200, help=f"of each policy; at least {BATCHES * BLOCKS}")
    parser.add_argument("--worlds", nargs="+", choices=worlds(), default=list(worlds()))
    parser.add_argument("--policies", nargs="+", type=int, default=range(len(POLICIES)), help="places in POLICIES")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for row in rows(given.worlds, given.blocks, given.policies):
        print(row, flush=True)
