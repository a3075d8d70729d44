"""Searches of two arms whose samplers see each other's trials see what their policy says, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.sharing import Array, Policy, Recorded, Simulated, searched, worlds


@dataclass(frozen=True)
class Raised(Simulated):
    """RALR gains a constant."""

    def runs(self, arm: int, *given: object) -> Array:
        return super().runs(arm, *given) + arm  # type: ignore[arg-type]


def monotone(world: Simulated, policy: Policy) -> list[dict[str, float]]:
    return [dict(trial.recipe) for trial in searched(world, policy, block=3)[0]]


@pytest.mark.parametrize(("policy", "same"), [(Policy(), True), (Policy("shared"), False), (Policy("zero"), False)])
def test_a_sampler_sees_the_other_arm_only_if_trials_are_shared(policy: Policy, same: bool) -> None:
    assert (monotone(Simulated(), policy) == monotone(Simulated(factor=4.0), policy)) == same


@pytest.mark.parametrize(("shifted", "same"), [(True, True), (False, False)])
def test_shifted_values_hide_a_constant_between_the_arms(shifted: bool, same: bool) -> None:
    policy = Policy("shared", shifted=shifted)
    one, other = monotone(Simulated(), policy), monotone(Raised(), policy)
    assert np.allclose([list(each.values()) for each in one], [list(each.values()) for each in other]) == same


def test_recorded_arms_have_the_tables_means_and_values() -> None:
    world = worlds()["digits"]
    assert isinstance(world, Recorded)
    rng = np.random.default_rng(0)
    for arm, at in product((0, 1), (0, 17)):
        recorded: RecordedWorld = world.worlds[arm]
        recipe = recorded.table.plan.params[arm][at]
        arrays = {name: np.array([value]) for name, value in recipe.items()}
        mean = recorded.mean(recipe)
        assert world.means(arm, arrays)[0] == pytest.approx(mean)
        runs = world.runs(arm, arrays, rng.normal(size=(2, 4000)), rng)
        assert runs.mean() == pytest.approx(mean, abs=5 * runs.std() / 4000**0.5 + 1e-9)
