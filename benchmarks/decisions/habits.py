"""How people decide today, with Optuna and by hand: policies (a), (b) and (d)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import optuna
from scipy import stats

from benchmarks.decisions.decision import Decision, Policy, larger, shifted
from benchmarks.decisions.proposals import Offered, space_of
from benchmarks.decisions.worlds import Curve, Match, Params, World, worst

TRIALS = 24
"""Configurations of each arm in every search: `search.trials` of studies/digits.toml."""
SEEDS = 5
LEVEL = 0.05
RECIPE = {
    "lr": 0.1, "weight_decay": 5e-4, "amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.0,
}  # fmt: skip
"""Our choice: usual rates, and the middle of the ranges of an amplification."""
RECIPE_SEEDS = 3


@dataclass(frozen=True)
class Found:
    """The best trial of each arm's search."""

    recipes: tuple[Params, Params]
    values: tuple[float, float]
    epochs: int
    """Of both searches."""


def optuna_search(match: Match) -> Found:
    """Optuna's TPE and median pruner with their defaults, one search for each arm."""
    found = [_searched(match, arm) for arm in (0, 1)]
    (one, epochs), (other, further) = found
    return Found((one.params, other.params), (one.values[0], other.values[0]), epochs + further)


def _searched(match: Match, arm: int) -> tuple[optuna.trial.FrozenTrial, int]:
    world = match.world
    sampler = optuna.samplers.TPESampler(seed=match.seed("tpe", arm))
    study = optuna.create_study(
        direction="maximize", sampler=Offered(world, sampler), pruner=optuna.pruners.MedianPruner()
    )
    space, epochs = space_of(world), 0
    for ordinal in range(TRIALS):
        trial = study.ask(space)
        values = observed(world, world.curve(trial.params, match.seed("search", arm, ordinal)))
        pruned = False
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)
            epochs += 1
            pruned = epoch < len(values) and trial.should_prune()
            if pruned:
                break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, values[-1])
    return study.best_trial, epochs


def observed(world: World, curve: Curve) -> list[float]:
    """What a plain script reports: one that does not stop when its weights are NaN scores the worst value from then
    on."""
    found: list[float] = np.nan_to_num(curve, nan=worst(world)).tolist()
    return found


def best_search_value(match: Match, found: Found, shifts: tuple[float, float]) -> Decision:
    """The arm of the best trial is called better."""
    claim = larger(shifted(found.values, shifts))
    return Decision(claim, found.recipes, claim or 0, {"search": found.epochs})


def t_test(match: Match, found: Found, shifts: tuple[float, float]) -> Decision:
    """Each winner on SEEDS fresh seeds, an unpaired t-test of equal variances; the higher mean is returned."""
    one, other = (
        [match.final(found.recipes[arm], match.seed("t-test", arm, index)) + shifts[arm] for index in range(SEEDS)]
        for arm in (0, 1)
    )
    p_value = stats.ttest_ind(one, other).pvalue  # NaN if neither varies and both are equal
    better = larger((fmean(one), fmean(other)))
    confirm = 2 * SEEDS * match.world.spec.file.training.epochs
    return Decision(
        better if p_value < LEVEL else None, found.recipes, better or 0, {"search": found.epochs, "confirm": confirm}
    )


def no_search(match: Match) -> Params:
    """The recipe, as the world offers it."""
    return match.world.offered({name: RECIPE[name] for name in space_of(match.world)}, ())


def higher_mean(match: Match, recipe: Params, shifts: tuple[float, float]) -> Decision:
    """The recipe in both arms, each with seeds of its own; the arm with the higher mean is called better."""
    means = [
        fmean(match.final(recipe, match.seed("recipe", arm, index)) for index in range(RECIPE_SEEDS)) for arm in (0, 1)
    ]
    claim = larger(shifted((means[0], means[1]), shifts))
    epochs = 2 * RECIPE_SEEDS * match.world.spec.file.training.epochs
    return Decision(claim, (recipe, recipe), claim or 0, {"confirm": epochs})


POLICIES = (
    Policy(
        "Optuna, best trial", optuna_search, best_search_value,
        f"TPE, median pruner, {TRIALS} trials an arm; the arm of the best trial is called better",
    ),
    Policy(
        "Optuna, t-test", optuna_search, t_test,
        f"the same search, {SEEDS} seeds of each winner, unpaired t-test at {LEVEL:.0%}",
    ),
    Policy(
        "one recipe", no_search, higher_mean,
        f"one recipe without a search, {RECIPE_SEEDS} seeds an arm; the higher mean is called better",
    ),
)  # fmt: skip
