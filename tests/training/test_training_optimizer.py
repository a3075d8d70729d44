from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.studyfile.sections import OPTIMIZERS
from ralr_tune.training.optimizer import make_optimizer, optimizers, state_of_one_weight
from tests.training.recipes import OPTIMIZER_RECIPES
from tests.training.trials import configuration


def training(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"epochs": 1, "batch_size": 1, "lr": 0.1} | changes)


def unchecked(**changes: Any) -> TrainingConfig:
    """What the study file's own checks would refuse."""
    return training().model_copy(update=changes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_study_file_takes_steps(name: str) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(training(optimizer=name, weight_decay=0.01), model.parameters())
    assert type(optimizer).__name__.lower() == name
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.1, 0.01)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("recipe", OPTIMIZER_RECIPES)
def test_the_state_of_one_weight_stands_for_that_of_all(recipe: str) -> None:
    settings = configuration(**OPTIMIZER_RECIPES[recipe]).training
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(settings, model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
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


def test_an_optimizer_without_weight_decay_works_without() -> None:
    make_optimizer(unchecked(optimizer="rprop"), nn.Linear(3, 2).parameters())
    with pytest.raises(UsageError, match=r"'rprop' with .*weight_decay"):
        make_optimizer(unchecked(optimizer="rprop", weight_decay=0.1), nn.Linear(3, 2).parameters())


def test_those_that_cannot_train_here_are_not_offered() -> None:
    assert not {"lbfgs", "sparseadam", "optimizer"} & optimizers().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "training.optimizer = 'sdg'; did you mean 'sgd'.; allowed: .*adamw"),
        ({"optimizer": "lbfgs"}, "training.optimizer = 'lbfgs'"),
        ({"options": {"betas": (0.9, 0.9)}}, "unexpected keyword argument 'betas'; its options: momentum, dampening"),
        ({"options": {"nesterov": True}}, "Nesterov momentum requires a momentum"),
    ],
)
def test_the_impossible_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_optimizer(unchecked(**changes), nn.Linear(3, 2).parameters())
