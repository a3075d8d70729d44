"""Groups of weights: rates of their own, frozen epochs, and what both mean for checkpoints, recordings and slots."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.training.estimate import seconds_per_epoch
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.groups import Freezer, GroupedTask, WeightGroup, groups_of
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.start import start
from tests.training.recipes import OPTIMIZER_RECIPES
from tests.training.test_training_resume import resumed_wrongly
from tests.training.trials import differences, run, timeless, weights

Make = Callable[..., Any]


class TwoGroups(ClassificationTask):
    """The head first, although its weights are last: groups need not have the order of the weights."""

    head_factor, frozen_epochs = 1.0, 0

    def weight_groups(self, model: nn.Module, options: Hashable) -> Sequence[WeightGroup]:
        head = tuple(model.get_submodule("head").parameters())
        trunk = tuple(model.get_submodule("features").parameters())
        return [WeightGroup(head, self.head_factor), WeightGroup(trunk, frozen_epochs=self.frozen_epochs)]


@pytest.fixture
def grouped(make_images: Make) -> Callable[..., TwoGroups]:
    def make(head_factor: float = 1.0, frozen_epochs: int = 0, **options: Any) -> TwoGroups:
        task = make_images(width=4, **options)
        task.__class__ = TwoGroups
        task.head_factor, task.frozen_epochs = head_factor, frozen_epochs
        return task

    return make


def changed(before: dict[str, Any], trial: Any) -> set[str]:
    now = weights(trial)
    return {name for name in now if not torch.equal(now[name], before[name])}


def after_epochs(trial: TorchTrial, count: int) -> TorchTrial:
    for _ in zip(range(count), trial.epochs(), strict=False):
        pass
    return trial


@pytest.mark.parametrize("recipe", OPTIMIZER_RECIPES)
def test_groups_that_do_not_differ_change_nothing(
    grouped: Make, make_images: Make, configure: Make, recipe: str
) -> None:
    configuration = configure(epochs=2, **OPTIMIZER_RECIPES[recipe])
    plain, two = (run(start(task, configuration, seed=1)) for task in (make_images(width=4), grouped()))
    assert differences(plain, two) == []


@pytest.mark.parametrize("recipe", OPTIMIZER_RECIPES)
def test_a_checkpoint_resumes_exactly_while_frozen_and_after(
    grouped: Make, configure: Make, tmp_path: Path, recipe: str
) -> None:
    task, configuration = grouped(head_factor=3.0, frozen_epochs=2, dropout=0.3), configure(**OPTIMIZER_RECIPES[recipe])
    assert resumed_wrongly(tmp_path, lambda **files: start(task, configuration, seed=1, **files)) == {}


def test_the_rate_of_a_group_is_multiplied(grouped: Make, make_images: Make, configure: Make) -> None:
    """One step of plain SGD, so that the change is the rate times the same gradient."""
    moved = []
    for task in (make_images(width=4), grouped(head_factor=5.0)):
        trial = start(task, configure(epochs=1, batch_size=72, lr=0.01), seed=0)
        before = weights(trial)
        after = weights(run(trial))
        moved.append({name: after[name] - before[name] for name in after if name.startswith(("features.0.0", "head"))})
    plain, two = moved
    for name in plain:
        factor = 5.0 if name.startswith("head") else 1.0
        torch.testing.assert_close(two[name], factor * plain[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adamw", "weight_decay": 0.1}, {"weight_decay": 0.1}])
def test_nothing_of_a_frozen_group_changes_until_its_epoch(
    grouped: Make, configure: Make, optimizer: dict[str, Any]
) -> None:
    trial = start(grouped(frozen_epochs=2), configure(lr=0.01, **optimizer), seed=0)
    before = weights(trial)
    assert changed(before, after_epochs(trial, 2)) == {"head.1.weight", "head.1.bias"}
    assert changed(before, after_epochs(trial, 1)) == set(before)


def test_weights_that_the_network_excludes_stay_excluded(configure: Make) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    freezer = Freezer(model, [WeightGroup(tuple(model.parameters()), frozen_epochs=1)])
    assert [freezer.train(0), freezer.train(1), freezer.train(2)] == [True, True, False]
    assert [weight.requires_grad for weight in model.parameters()] == [True, False, True, True]


@pytest.mark.parametrize("affine", [True, False])
def test_a_normalisation_is_frozen_with_the_weights_around_it(affine: bool) -> None:
    trunk = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2, affine=affine)))
    head = nn.Sequential(nn.BatchNorm1d(2, affine=affine), nn.Linear(2, 2))
    model = nn.Sequential(trunk, nn.Dropout(), head)
    freezer = Freezer(
        model, [WeightGroup(tuple(trunk.parameters()), frozen_epochs=1), WeightGroup(tuple(head.parameters()))]
    )
    freezer.train(0)
    assert (trunk[1][0].training, head[0].training, model[1].training) == (False, True, True)
    freezer.train(1)
    assert trunk[1][0].training


def test_groups_do_not_train_in_slots_and_the_log_says_so_once(
    grouped: Make, configure: Make, caplog: pytest.LogCaptureFixture
) -> None:
    task = grouped(head_factor=2.0)
    alone, together = ([start(task, configure(epochs=1, lr=lr), seed=0) for lr in (0.1, 0.05)] for _ in range(2))
    with caplog.at_level("INFO"):
        FusedTrainer(task, 2).train(together)
    assert [trial.trained_ahead for trial in together] == [None, None]
    assert caplog.text.count("do not train in slots") <= 1
    for one, other in zip(alone, together, strict=True):
        assert timeless(run(one).curve) == timeless(run(other).curve)


def test_the_estimate_is_that_of_epochs_without_frozen_weights(
    grouped: Make, configure: Make, monkeypatch: Any
) -> None:
    seen = []
    train = Freezer.train

    def noted(self: Freezer, epoch: int) -> bool:
        found = train(self, epoch)
        seen.append(all(weight.requires_grad for weight in self._model.parameters()))
        return found

    monkeypatch.setattr(Freezer, "train", noted)
    task = grouped(frozen_epochs=3)
    seconds_per_epoch(task, configure(), steps=1)
    assert seen == [True, True]
    groups = groups_of(copy.copy(task), task.build_model(0), None)
    assert [group.frozen_epochs for group in groups] == [0, 3]


def test_a_task_without_groups_has_one(make_line: Make) -> None:
    task = make_line()
    assert not isinstance(task, GroupedTask)
    model = task.build_model(0)
    assert groups_of(task, model, None) == [WeightGroup(tuple(model.parameters()))]
