"""Stochastic depth: which branches are dropped, how often, and that a network without it is the same as before."""

from __future__ import annotations

import pytest
import torch

from ralr_tune.errors import UsageError
from ralr_tune.models.registry import build
from ralr_tune.models.stochastic_depth import StochasticDepth, branch_drops

NETWORKS = {"resnet20": 9, "preresnet20": 9, "wrn_16_1": 6}
"""With their numbers of blocks."""


def network(name: str, **options: float) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(name, classes=3, channels=1, size=8, options=options)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_probability_grows_linearly_to_the_last_block(name: str) -> None:
    model = network(name, stochastic_depth_prob=0.5)
    drops = [module.p for module in model.modules() if isinstance(module, StochasticDepth)]
    assert drops == pytest.approx([0.5 * block / NETWORKS[name] for block in range(1, NETWORKS[name] + 1)])


@pytest.mark.parametrize("name", NETWORKS)
def test_without_it_and_in_evaluation_the_network_is_the_same(name: str) -> None:
    plain, off, on = network(name), network(name, stochastic_depth_prob=0.0), network(name, stochastic_depth_prob=0.9)
    assert list(map(type, plain.modules())) == list(map(type, off.modules()))
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), on.parameters(), strict=True))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(plain.eval()(images), on.eval()(images))


def test_each_sample_is_kept_or_dropped_on_its_own_and_its_mean_stays() -> None:
    drop = StochasticDepth(0.3)
    torch.manual_seed(0)
    seen = drop(torch.ones(20_000, 2, 1, 3))
    assert torch.equal(seen, seen[:, :1, :, :1].expand_as(seen))
    kept = seen[:, 0, 0, 0]
    assert set(kept.tolist()) == {0.0, torch.tensor(1.0).div(torch.tensor(0.7)).item()}
    assert (kept > 0).float().mean().item() == pytest.approx(0.7, abs=0.012)
    assert torch.equal(drop.eval()(seen), seen)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_probability_must_be_below_one(name: str, probability: float) -> None:
    with pytest.raises(UsageError, match=rf"stochastic_depth_prob = {probability}: must be in \[0, 1\)"):
        network(name, stochastic_depth_prob=probability)
    with pytest.raises(ValueError, match="must be in"):
        branch_drops(probability, 3)
