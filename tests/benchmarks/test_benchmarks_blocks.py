"""The vectorised simulation of blocks agrees with the simulated kind and with the package's own test."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.blocks import SD, Design, Draws, Judged, claims, means, params_at, simulated, survival
from benchmarks.decisions.worlds import SimulatedWorld
from ralr_tune.analysis.comparison import paired_test, run_error

NAMES = {"probability": "amplify.probability", "lower": "amplify.lower", "width": "amplify.width"}


@pytest.mark.parametrize(("arm", "amplified"), [("monotone", False), ("ralr", True)])
def test_means_are_those_of_the_simulated_kind(arm: str, amplified: bool) -> None:
    world = SimulatedWorld(arm)
    params = params_at(np.random.default_rng(0).random((20, 5)))
    own = means(params, "same", amplified=amplified) * survival(params, amplified=amplified)
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
    assert claims(judged, 3.0, own_seeds=own_seeds) == (
        sum(each > 0 for each in signs) / 40,
        sum(each < 0 for each in signs) / 40,
    )


def test_winners_of_arms_that_share_trials_are_correlated() -> None:
    def correlation(draws: Draws) -> float:
        design = Design(draws, blocks=4, trials=6, top=2, own_seeds=True, seeds=5)
        one, other = simulated(design, "same", 200, np.random.default_rng(0)).values
        return float(np.corrcoef(one.mean(-1).ravel(), other.mean(-1).ravel())[0, 1])

    assert abs(correlation("independent")) < 0.15
    assert correlation("random") > 0.5
