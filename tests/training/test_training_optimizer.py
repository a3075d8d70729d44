from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS as SPECS
from ralr_tune.training.loop import seeded
from ralr_tune.training.optimizer import make_optimizer, optimizers, state_of_one_weight, state_of_weights
from ralr_tune.training.start import start
from tests.training.recipes import OPTIMIZER_RECIPES
from tests.training.trials import configuration

Make = Callable[..., Any]


def training(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"epochs": 1, "batch_size": 1, "lr": 0.1} | changes)


def network() -> nn.Module:
    """With a hidden layer, for muon."""
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))


def described(states: Iterable[Mapping[str, Tensor] | None]) -> list[dict[str, torch.Size]]:
    return [{name: value.shape for name, value in (state or {}).items()} for state in states]


def unchecked(**changes: Any) -> TrainingConfig:
    """A configuration that the study file's checks would refuse."""
    return training().model_copy(update=changes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_study_file_takes_steps(name: str) -> None:
    model = network()
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = make_optimizer(training(optimizer=name, weight_decay=0.01), model.parameters())
    assert type(optimizer) is optimizers()[name]
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.1, 0.01)}
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not any(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trials_step_under_ralr_is_torchs_step_at_the_amplified_rate(
    make_images: Make, configure: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, the second amplified: some optimizers do the same in the first step at any rate."""
    rate = min(SPECS[name].usual_rates[1], 0.05)
    amplify = {"probability": 1.0, "lower": 3.0, "width": 0.0, "window": (0.5, 1.0), "granularity": "step"}
    made = configure(epochs=1, batch_size=36, lr=rate, weight_decay=0.01, optimizer=name, amplify=amplify)
    monkeypatch.setattr("ralr_tune.training.kernels.normalise.fits", lambda *_: False)  # torch's own normalisation
    task = make_images(width=4)
    trial = start(task, made, seed=1)
    model = copy.deepcopy(trial.state.model)
    next(trial.epochs())

    options = {"weight_decay": 0.01, **({"fused": True} if SPECS[name].one_kernel else {})}
    optimizer = optimizers()[name](model.parameters(), lr=rate, **options)
    assert trial.learning_rate.rates(0).tolist() == [rate, 3 * rate]
    with seeded(derive_seed("dropout", 1, 0), "cpu"):
        batches = task.batches("train", seed=1, epoch=0, batch_size=36, options=made.options)
        for batch, factor in zip(batches, (1.0, 3.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad()
            task.loss(model, batch, options=made.options).backward()
            optimizer.step()
    for weight, expected in zip(trial.state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", OPTIMIZER_RECIPES)
def test_the_state_of_one_weight_represents_that_of_all(recipe: str) -> None:
    settings = configuration(**OPTIMIZER_RECIPES[recipe]).training
    model = network()
    optimizer = make_optimizer(settings, model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    if not SPECS[settings.optimizer].uniform_state:
        expected = state_of_weights(settings, [weight.shape for weight in model.parameters()])
        assert described(map(optimizer.state.get, model.parameters())) == described(expected)
        return
    for weight in model.parameters():
        state, example = optimizer.state[weight], state_of_one_weight(settings)
        assert state.keys() == example.keys()
        for name, value in example.items():
            assert type(state[name]) is type(value)
            if isinstance(value, Tensor):
                assert state[name].shape == (weight.shape if value.shape == (2,) else ())


def test_options_reach_the_optimizer() -> None:
    options = {"momentum": 0.9, "nesterov": True}
    group = make_optimizer(training(options=options), nn.Linear(3, 2).parameters()).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_options_that_the_study_file_refuses_are_refused_here() -> None:
    assert optimizers().keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_kernel_is_declared_only_for_optimizers_that_are_fused_and_accept_a_tensor_rate(name: str) -> None:
    """The others have no fused form on a CPU, or refuse a tensor as the rate."""
    weights = [nn.Parameter(torch.ones(2))]
    made = make_optimizer(training(optimizer=name), weights, torch.tensor(0.25)) if SPECS[name].one_kernel else None
    assert (made is not None) is (name in ("sgd", "adam", "adamw"))
    if made is not None:
        assert made.param_groups[0]["fused"]
        weights[0].grad = torch.ones(2)
        made.step()
        assert not torch.equal(weights[0], torch.ones(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_of_slots_are_options_of_the_optimizer(name: str) -> None:
    offer = SPECS[name]
    assert offer.options >= (offer.slot_options or frozenset()) | offer.shared_options
    assert not (offer.slot_options or frozenset()) & offer.shared_options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "training.optimizer = 'sdg'; did you mean 'sgd'.; allowed: .*adamw"),
        ({"optimizer": "lbfgs"}, "training.optimizer = 'lbfgs'"),
        ({"options": {"betas": (0.9, 0.9)}}, "unexpected keyword argument 'betas'; its options: momentum, dampening"),
        ({"options": {"nesterov": True}}, "Nesterov momentum requires a momentum"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_optimizer(unchecked(**changes), nn.Linear(3, 2).parameters())
