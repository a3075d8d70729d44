"""The trainer of a range test: one step at each rate, on the training split, until the loss diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
import torch

from ralr_tune.errors import TrialError
from ralr_tune.records import RateSweep
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.optimizer import optimizers
from ralr_tune.training.range_test import sweep_rates
from tests.training.trials import PLAIN, LineTask, configuration, images

RATES = [0.01 * 1.1**step for step in range(24)]


def never(losses: Sequence[float]) -> bool:
    return False


def swept(task: Any, *, seed: int = 0, rates: Sequence[float] = RATES, **given: Any) -> RateSweep:
    diverged, advance = given.pop("diverged", never), given.pop("advance", lambda done: None)
    return sweep_rates(task, configuration(**given), seed=seed, rates=rates, diverged=diverged, advance=advance)


def test_every_step_has_its_rate_and_only_the_training_split_is_used() -> None:
    task = LineTask()
    seen: list[int] = []
    found = swept(task, advance=seen.append)
    # the weight falls by the rate of each step, and the loss is the weight before the step
    assert found.losses == pytest.approx([0.0, *(-total for total in accumulate(RATES))][:-1], rel=1e-5)
    assert found.rates == tuple(RATES)
    assert not found.ended_early
    assert set(task.trained_on) == {"train"}
    assert seen == [10, 20, 24]


def test_schedule_and_amplification_are_not_used() -> None:
    amplify = {"probability": 1.0, "lower": 3.0, "width": 0.0}
    plain = swept(LineTask())
    assert swept(LineTask(), amplify=amplify, schedule={"name": "cosine"}, lr=7.0).losses == plain.losses


def test_a_diverged_seed_ends_within_ten_steps() -> None:
    task = LineTask(lambda step: math.nan if step >= 5 else None)
    found = swept(task, diverged=lambda losses: not math.isfinite(losses[-1]))
    assert found.ended_early
    assert len(found.losses) == len(found.rates) == task.steps_done == 10


def test_a_seed_repeats_itself_and_differs_from_others() -> None:
    assert swept(images()).losses == swept(images()).losses
    assert swept(images()).losses != swept(images(), seed=1).losses


def test_dropout_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = swept(images(model=PLAIN, dropout=0.5))
    assert torch.equal(torch.rand(3), expected)
    assert found.losses == swept(images(model=PLAIN, dropout=0.5)).losses


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_SPECS))
def test_every_optimizer_takes_the_growing_rate(optimizer: str) -> None:
    rates = (1e-9,) * 5 + (1e-1,) * 5
    model = "resnet20" if optimizer == "muon" else PLAIN  # which needs a hidden matrix
    losses = swept(images(model=model), optimizer=optimizer, rates=rates, batch_size=72).losses
    assert max(losses[:5]) - min(losses[:5]) < 1e-4
    assert abs(losses[9] - losses[4]) > 1e-3


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_SPECS))
def test_the_default_rate_of_torch_is_a_usual_one(optimizer: str) -> None:
    low, high = OPTIMIZER_SPECS[optimizer].usual_rates
    weights = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3)]  # muon: one between the first and the last
    default = optimizers()[optimizer](weights).defaults["lr"]
    assert low <= default <= high


def test_without_memory_the_sweep_starts_again_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    task = images(model=PLAIN)
    loss, sizes = task.loss, []

    def limited(model: Any, batch: Any, *, options: Any) -> Any:
        if len(batch) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(batch))
        return loss(model, batch, options=options)

    monkeypatch.setattr(task, "loss", limited)
    found = swept(task)
    assert max(sizes) <= 5
    assert found.losses == pytest.approx(swept(images(model=PLAIN)).losses, rel=1e-4)


def test_too_little_memory_for_one_sample_is_an_error() -> None:
    def fail(step: int) -> float:
        raise MemoryError

    with pytest.raises(TrialError, match="even for one sample") as caught:
        swept(LineTask(fail))
    assert caught.value.kind == "oom"


def test_nothing_is_saved_or_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a range test neither saves nor evaluates")

    monkeypatch.setattr(TorchTrial, "_save", refuse)
    monkeypatch.setattr(TorchTrial, "evaluate", refuse)
    monkeypatch.setattr(LineTask, "evaluate", refuse)
    assert len(swept(LineTask()).losses) == len(RATES)
