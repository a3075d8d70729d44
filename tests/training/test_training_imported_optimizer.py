"""Optimizers by import path: what is refused before anything is trained, and that the others train and resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.training.optimizer import make_optimizer
from ralr_tune.training.optimizer_problems import optimizer_problems
from ralr_tune.training.start import start
from tests.training.own_optimizers import MODULE, Lion
from tests.training.test_training_resume import resumed_wrongly

Make = Callable[..., Any]

STUDY = """
[study]
baseline = "plain"
name = "own"
[task]
kind = "classification"
data = {{ source = "digits" }}
model = "small_cnn"
[training]
epochs = 2
batch_size = 16
lr = 1e-3
optimizer = {optimizer}
{more}
[arms.plain]
[search]
trials = 2
"""


def study(optimizer: str, more: str = "") -> StudySpec:
    return parse_study(STUDY.format(optimizer=optimizer, more=more))


def own(name: str) -> str:
    return f'"{MODULE}:{name}"'


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("Lyon", "", "has no attribute 'Lyon'"),
        ("a_function", "", "is function; it is called as Class"),
        ("NoOptimizer", "", "is a class that is no torch.optim.Optimizer"),
        ("SAM", "", "it computes two gradients in each step"),
        ("NeedsClosure", "", "its step needs a closure"),
        ("FixedRate", "", "it does not read lr from its param groups"),
        ("Forgetful", "", "keeps something outside of state_dict"),
        ("Pickled", "", "its state cannot be saved without pickled code"),
        ("OnlyMatrices", "", "on a matrix and a vector: RuntimeError: expected a matrix"),
        ("Explodes", "", "its steps are not finite at lr = 0.001"),
        ("Lion", "optimizer_options = { beta = 0.9 }", "argument 'beta'; its options: betas, weight_decay"),
        ("Lion", "optimizer_options = { betas = { choices = [[0.9, 0.9], [2.0, 0.9]] } }", "betas[0] = 2.0"),
        ("WithoutDecay", "weight_decay = 0.1", "WithoutDecay has none; leave it out"),
    ],
)  # fmt: skip
def test_what_could_not_be_trained_is_refused_with_the_reason(name: str, more: str, reason: str) -> None:
    (found,) = optimizer_problems(study(own(name), more))
    assert reason in found.line
    assert "\n" not in found.line
    assert MODULE in found.line
    assert not found.absent


def test_a_missing_module_may_be_elsewhere() -> None:
    (found,) = optimizer_problems(study('"no_such_module_here:Lion"'))
    assert found.absent
    assert "importing 'no_such_module_here' failed" in found.line


@pytest.mark.parametrize("name", ["lion", "torch.optim:LBFGS"])
def test_torchs_own_classes_are_tried_in_the_same_way(name: str) -> None:
    if ":" in name:
        (found,) = optimizer_problems(study(f'"{name}"'))
        assert "closure" in found.line
    assert not list(optimizer_problems(study('"torch.optim:NAdam"', "optimizer_options = { momentum_decay = 0.01 }")))


@pytest.mark.parametrize(
    ("optimizer", "more"),
    [
        (own("Lion"), "optimizer_options = { betas = [0.9, 0.95] }\nweight_decay = 0.1"),
        (own("WithoutDecay"), ""),
        (f'{{ choices = ["sgd", {own("Lion")}] }}', "momentum = 0.9\noptimizer_options = { betas = [0.9, 0.95] }"),
    ],
)
def test_what_can_be_trained_passes_and_leaves_the_random_state(optimizer: str, more: str) -> None:
    before = torch.get_rng_state()
    assert list(KIND.problems(study(optimizer, more), sample=1)) == []
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_made_with_the_study_s_values() -> None:
    training = TrainingConfig(
        epochs=1, lr=0.5, weight_decay=0.1, optimizer=f"{MODULE}:Lion", options={"betas": (0.5, 0.6)}
    )
    optimizer = make_optimizer(training, nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, Lion)
    assert optimizer.defaults == {"lr": 0.5, "betas": (0.5, 0.6), "weight_decay": 0.1, "count": 0}


def test_it_resumes_bit_for_bit_with_what_is_in_its_param_groups(
    make_images: Make, configure: Make, tmp_path: Path
) -> None:
    task = make_images(width=4)
    amplify = {"probability": 0.6, "lower": 1.0, "width": 2.0}
    made = configure(epochs=3, optimizer=f"{MODULE}:Lion", lr=1e-3, weight_decay=0.01, amplify=amplify)
    assert resumed_wrongly(tmp_path, lambda **files: start(task, made, seed=1, **files)) == {}


def test_a_checkpoint_of_another_optimizer_is_not_used(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task = make_images(width=4)
    one, other = (configure(epochs=1, lr=1e-3, optimizer=f"{MODULE}:{name}") for name in ("Lion", "WithoutDecay"))
    trial = start(task, one, seed=1, checkpoint=tmp_path / "a.ckpt")
    assert math.isfinite(next(trial.epochs()).value)
    assert start(task, other, seed=1, checkpoint=tmp_path / "a.ckpt").curve == []
    assert len(start(task, one, seed=1, checkpoint=tmp_path / "a.ckpt").curve) == 1
