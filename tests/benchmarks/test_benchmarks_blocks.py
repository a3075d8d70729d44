"""The vectorised simulation of blocks agrees with the simulated kind and with the package's own test."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.blocks import (
    SD,
    Design,
    Draws,
    Judged,
    Recorded,
    Simulated,
    claims,
    means,
    params_at,
    simulated,
    survival,
)
from benchmarks.decisions.worlds import SimulatedWorld
from ralr_tune.analysis.comparison import paired_test, run_error

NAMES = {"probability": "amplify.probability", "lower": "amplify.lower", "width": "amplify.width"}


@pytest.mark.parametrize(("arm", "amplified"), [("monotone", False), ("ralr", True)])
def test_means_are_those_of_the_simulated_kind(arm: str, amplified: bool) -> None:
    world = SimulatedWorld(arm)
    params = params_at(np.random.default_rng(0).random((20, 5)))
    own = means(params, shifted=False, amplified=amplified) * survival(params, amplified=amplified)
    for at in range(20):
        one = {NAMES.get(name, name): float(values[at]) for name, values in params.items()}
        searched = {name: one[name] for name in world.spec.space("first")}
        assert own[at] == pytest.approx(world.mean(searched), abs=1e-9)


@pytest.mark.parametrize("own_seeds", [False, True])
def test_claims_are_those_of_the_packages_test(own_seeds: bool) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 40, 4, 5)) + rng.normal(size=(2, 40, 4, 1)) + rng.normal(size=(2, 40, 1, 5))
    d = values[1] - values[0]
    d = d - d.mean() + 3 * SD
    shared = [{} if own_seeds else {"by_seed": list(each.mean(0)), "run_error": run_error(each, 20)} for each in d]
    tests = [
        paired_test(list(each.mean(1)), margin=0.0, confidence=0.95, **of_seeds)
        for each, of_seeds in zip(d, shared, strict=True)
    ]
    signs = [test.difference for test in tests if test.p_value is not None and test.p_value <= 0.05]
    judged = Judged((values[0], values[1]), (values[0, :, 0, 0], values[1, :, 0, 0]))
    assert claims(judged, 3 * SD, own_seeds=own_seeds) == (
        sum(each > 0 for each in signs) / 40,
        sum(each < 0 for each in signs) / 40,
    )


def test_winners_of_arms_that_share_trials_are_correlated() -> None:
    def correlation(draws: Draws) -> float:
        design = Design(draws, blocks=4, trials=6, top=2, own_seeds=True, seeds=5)
        one, other = simulated(design, Simulated(shifted=False), 200, np.random.default_rng(0)).values
        return float(np.corrcoef(one.mean(-1).ravel(), other.mean(-1).ravel())[0, 1])

    assert abs(correlation("independent")) < 0.15
    assert correlation("random") > 0.5


def test_recorded_arms_have_their_own_runs_of_shared_trials() -> None:
    """A world of which every run is known: both arms try the same configurations, and none twice in a block."""
    world = Recorded.of("digits")
    rng = np.random.default_rng(0)
    design = Design("random", blocks=3, trials=40, top=1, own_seeds=True, seeds=2)
    one, other = world.trials(design, 2, rng)
    assert (one["place"] == other["place"]).all()
    assert all(len(set(block)) == 40 for study in one["place"] for block in study)
    at, seed = int(one["place"][1, 2, 7]), world.seeds((), rng)
    for arm, params in enumerate((one, other)):
        picked = {name: each[1, 2, 7] for name, each in params.items()}
        value = world.values(picked, seed, rng, amplified=bool(arm))
        assert value == world.arms[arm].finals[at, int(seed[0])]
        assert picked["mean"] == world.arms[arm].mean(world.arms[arm].table.plan.params[arm][at])
