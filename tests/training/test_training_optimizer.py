from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ralr_tune.errors import UsageError
from ralr_tune.spec.configuration import TrainingConfig
from ralr_tune.spec.sections import OPTIMIZERS
from ralr_tune.training.optimizer import make_optimizer, optimizers


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
