"""RandomAmplifyLR around every scheduler of torch: its own trace to the last bit times one factor, and resumable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as torchs
from torch.optim.lr_scheduler import LRScheduler

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import make_curve
from ralr_tune.schedules.rate import LearningRate
from ralr_tune.schedules.scheduler import RandomAmplifyLR
from tests.schedules.loops import (
    BASES,
    STEPS,
    advance,
    amplified,
    expected_factors,
    rates,
    through_a_file,
    trace,
    two_groups,
)


@pytest.mark.parametrize("name", BASES)
def test_the_rate_is_the_base_schedulers_own_times_the_factor(name: str) -> None:
    """To the last bit: the base scheduler, recursive or not, is never touched by an amplified rate."""
    bare = two_groups()
    own = trace(bare, BASES[name](bare))
    factors = expected_factors()
    assert 4 < sum(factor > 1 for factor in factors) < 20
    assert trace(*amplified(BASES[name])) == [[lr * f for lr in row] for row, f in zip(own, factors, strict=True)]


def test_the_first_rate_is_amplified_before_any_step() -> None:
    optimizer, scheduler = amplified(BASES["cosine"], probability=1.0)
    assert scheduler.factor == Amplification(1.0, 1.5, 3.0).factor(4, 0) > 1.5
    assert rates(optimizer) == [0.1 * scheduler.factor, 0.02 * scheduler.factor] == scheduler.get_last_lr()


def test_factor_and_last_lr_are_the_current_ones() -> None:
    optimizer, scheduler = amplified(BASES["exponential"])
    for index, factor in enumerate(expected_factors()):
        assert scheduler.factor == factor
        assert scheduler.last_epoch == index
        assert scheduler.get_last_lr() == rates(optimizer)
        advance(optimizer, scheduler, index)


def test_one_step_per_epoch_gives_the_rates_of_learning_rate() -> None:
    optimizer, scheduler = amplified(lambda o: torchs.CosineAnnealingLR(o, STEPS))
    curve = make_curve("cosine", epochs=STEPS)
    rate = LearningRate(0.1, curve, STEPS, 1, Amplification(0.5, 1.5, 3.0), 4)
    found = np.array(trace(optimizer, scheduler))[:, 0]
    np.testing.assert_allclose(found, rate.trace()[:, 0], rtol=1e-9)


def test_outside_of_the_window_the_factor_is_1_and_inside_no_draw_is_shifted() -> None:
    optimizer, scheduler = amplified(BASES["constant"], window=(3, 15), probability=1.0)
    always = Amplification(1.0, 1.5, 3.0)
    for index in range(STEPS):
        assert scheduler.factor == (always.factor(4, index) if 3 <= index < 15 else 1.0)
        advance(optimizer, scheduler, index)


def test_arguments_of_step_reach_the_base_scheduler() -> None:
    optimizer, scheduler = amplified(BASES["sgdr"], probability=0.0)
    optimizer.step()
    scheduler.step(2.5)  # torch's fractional epochs
    assert rates(optimizer)[0] == pytest.approx(0.1 * (1 + np.cos(np.pi * 2.5 / 4)) / 2)
    assert scheduler.last_epoch == 1


def test_a_failed_step_changes_nothing() -> None:
    optimizer, scheduler = amplified(BASES["plateau"])
    before = trace(*amplified(BASES["plateau"]))
    advance(optimizer, scheduler, 0)
    with pytest.raises(TypeError, match="metrics"):
        scheduler.step()
    assert scheduler.factor == 1.0
    assert scheduler.get_last_lr() == rates(optimizer) == [0.1, 0.02]
    advance(optimizer, scheduler, 1)
    assert trace(optimizer, scheduler, first=2) == before[2:]


# Resuming


@pytest.mark.parametrize("scheduler_first", [True, False])
@pytest.mark.parametrize("name", sorted(BASES.keys() - {"swa"}))  # SWALR keeps a function in its state
def test_a_resumed_run_has_the_same_rates(name: str, scheduler_first: bool) -> None:
    whole = trace(*amplified(BASES[name]))
    for stop in (0, 1, 7, 13):
        optimizer, scheduler = amplified(BASES[name])
        trace(optimizer, scheduler, last=stop)
        states = [through_a_file(scheduler.state_dict()), through_a_file(optimizer.state_dict())]
        # Made anew with other arguments: all of them come from the state.
        optimizer, scheduler = amplified(BASES[name], probability=0.1, upper=9.0, seed=77, window=(2, 3))
        if scheduler_first:
            scheduler.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
        if not scheduler_first:
            scheduler.load_state_dict(states[0])
        assert scheduler.get_last_lr() == whole[stop] == rates(optimizer)
        assert trace(optimizer, scheduler, first=stop) == whole[stop:]


@pytest.mark.parametrize("name", ["step", "cosine", "plateau", "sequential"])
def test_a_scheduler_created_after_the_optimizer_was_loaded_resumes(name: str) -> None:
    """Then it finds amplified rates in the optimizer when it is made."""
    whole = trace(*amplified(BASES[name]))
    optimizer, scheduler = amplified(BASES[name])
    trace(optimizer, scheduler, last=9)
    states = scheduler.state_dict(), optimizer.state_dict()
    fresh = two_groups()
    fresh.load_state_dict(states[1])
    _, resumed = amplified(BASES[name], fresh)
    resumed.load_state_dict(states[0])
    assert trace(fresh, resumed, first=9) == whole[9:]


def test_the_scheduler_alone_restores_the_rates_and_a_state_can_be_loaded_twice() -> None:
    optimizer, scheduler = amplified(BASES["cyclic"])
    trace(optimizer, scheduler, last=9)
    state = scheduler.state_dict()
    for _ in range(2):
        fresh, resumed = amplified(BASES["cyclic"])
        resumed.load_state_dict(state)
        assert rates(fresh) == rates(optimizer)


def test_a_state_of_more_param_groups_is_refused() -> None:
    _, scheduler = amplified(BASES["step"])
    _, narrow = amplified(BASES["step"], SGD([Parameter(torch.zeros(1))], lr=0.1))
    with pytest.raises(ValueError, match="state_dict = '2 param groups'; allowed: at most 1"):
        narrow.load_state_dict(scheduler.state_dict())


# Param groups, optimizers, tensors, other writers


def test_a_param_group_added_later_is_amplified_from_the_next_step_on() -> None:
    optimizer, scheduler = amplified(BASES["exponential"], probability=1.0)
    trace(optimizer, scheduler, last=3)
    optimizer.add_param_group({"params": [Parameter(torch.zeros(1))], "lr": 0.5})
    state = scheduler.state_dict(), optimizer.state_dict()
    advance(optimizer, scheduler, 3)
    assert rates(optimizer) == pytest.approx([lr * scheduler.factor for lr in (0.1 * 0.9**4, 0.02 * 0.9**4, 0.45)])
    assert len(scheduler.get_last_lr()) == 3

    resumed_optimizer, resumed = amplified(BASES["exponential"])
    resumed_optimizer.add_param_group({"params": [Parameter(torch.zeros(1))], "lr": 0.5})
    resumed.load_state_dict(state[0])
    resumed_optimizer.load_state_dict(state[1])
    assert trace(resumed_optimizer, resumed, first=3, last=9)[1:] == trace(optimizer, scheduler, first=4, last=9)


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop"]
)
def test_any_optimizer_trains_under_it(name: str) -> None:
    parameter = Parameter(torch.tensor([3.0, -2.0]))
    optimizer: Optimizer = getattr(torch.optim, name)([parameter], lr=0.05)
    optimizer, scheduler = amplified(BASES["cosine"], optimizer)
    for index, factor in enumerate(expected_factors()):
        assert scheduler.factor == factor
        parameter.grad = 2 * parameter.detach()
        advance(optimizer, scheduler, index)
    assert parameter.detach().abs().sum() < 5


def test_the_amplified_rate_is_what_the_optimizer_applies() -> None:
    parameter = Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, scheduler = amplified(BASES["exponential"], SGD([parameter], lr=0.1))
    for index in range(STEPS):
        before, lr = parameter.item(), rates(optimizer)[0]
        parameter.grad = torch.ones(1, dtype=torch.float64)
        advance(optimizer, scheduler, index)
        assert before - parameter.item() == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize("name", sorted(BASES.keys() - {"swa"}))
def test_a_tensor_rate_is_written_in_place(name: str) -> None:
    """As a captured or compiled optimizer needs it; torch.float64 so that the traces can be compared."""
    tensors = [torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.02, dtype=torch.float64)]
    optimizer, scheduler = amplified(BASES[name], two_groups(*tensors))
    found = trace(optimizer, scheduler)
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, tensors, strict=True))
    np.testing.assert_allclose(found, trace(*amplified(BASES[name])), rtol=1e-6)
    assert all(isinstance(lr, Tensor) for lr in scheduler.get_last_lr())


def test_param_groups_that_share_one_tensor_are_amplified_once() -> None:
    """torch gives its default rate, the very tensor, to every group that names none."""
    shared = torch.tensor(0.1, dtype=torch.float64)
    groups = [{"params": [Parameter(torch.zeros(1))]}, {"params": [Parameter(torch.zeros(1))]}]
    optimizer, scheduler = amplified(BASES["multistep"], SGD(groups, lr=shared))
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    single = SGD([Parameter(torch.zeros(1))], lr=0.1)
    expected = [[lr, lr] for (lr,) in trace(*amplified(BASES["multistep"], single))]
    np.testing.assert_allclose(trace(optimizer, scheduler), expected, rtol=1e-12)


def test_a_float32_tensor_rate_resumes_to_the_last_bit() -> None:
    def made() -> tuple[Optimizer, RandomAmplifyLR]:
        return amplified(BASES["cosine"], two_groups(torch.tensor(0.1), torch.tensor(0.02)))

    whole = trace(*made())
    optimizer, scheduler = made()
    trace(optimizer, scheduler, last=9)
    resumed_optimizer, resumed = made()
    resumed.load_state_dict(through_a_file(scheduler.state_dict()))
    resumed_optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert trace(resumed_optimizer, resumed, first=9) == whole[9:]


def test_another_scheduler_on_the_same_optimizer_changes_the_base_rate() -> None:
    """torch's schedulers are chainable: whoever multiplies the rate in between multiplies the base, for good."""
    optimizer, scheduler = amplified(BASES["step"])
    other = torchs.ExponentialLR(optimizer, 0.9)
    found = []
    for _ in range(STEPS):
        found.append(rates(optimizer)[0])
        optimizer.step()
        scheduler.step()
        other.step()
    own = [0.1 * 0.1 ** (index // 5) * 0.9**index for index in range(STEPS)]
    assert found == pytest.approx([lr * factor for lr, factor in zip(own, expected_factors(), strict=True)])


def test_it_cannot_be_a_member_of_a_sequential_scheduler() -> None:
    optimizer, scheduler = amplified(BASES["cosine"])
    members: list[LRScheduler] = [torchs.LinearLR(optimizer), scheduler]
    with pytest.raises(ValueError, match="must wrap a SequentialLR, not be a member of one"):
        torchs.SequentialLR(optimizer, members, [5])


# Arguments


@given(seed=st.integers(0, 2**64 - 1), law=st.sampled_from(["uniform", "loguniform"]), probability=st.floats(0, 1))
def test_its_draws_are_those_of_amplification(seed: int, law: Any, probability: float) -> None:
    optimizer, scheduler = amplified(BASES["constant"], seed=seed, law=law, probability=probability)
    expected = Amplification(probability, 1.5, 3.0, law).factors(seed, 0, 5)
    for index in range(5):
        assert scheduler.factor == expected[index]
        advance(optimizer, scheduler, index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.5}, r"probability = 1.5; allowed: a number in \[0, 1\]"),
        ({"lower": 0.5}, r"lower = 0.5; allowed: a number in \[1, inf\)"),
        ({"upper": 1.0}, r"upper = 1.0; allowed: a number in \[1.5, inf\)"),
        ({"law": "normal"}, "law = 'normal'; allowed: uniform, loguniform"),
        ({"seed": -1}, "seed = -1; allowed: an integer >= 0"),
        ({"seed": 1.0}, "seed = 1.0"),
        ({"window": (5, 5)}, "window = 5; allowed: an integer >= 0 and < 5"),
        ({"window": (0.0, 0.5)}, "window = 0.5"),
        ({"window": 3}, "window = 3; allowed: None or two steps"),
    ],
)
def test_invalid_arguments_are_refused_and_do_not_change_the_rates(arguments: dict[str, Any], message: str) -> None:
    optimizer = two_groups()
    with pytest.raises(ValueError, match=message):
        amplified(BASES["constant"], optimizer, **arguments)
    assert rates(optimizer) == [0.05, 0.01]


@pytest.mark.parametrize(
    "base", ["StepLR", torchs.StepLR(two_groups(), 5)], ids=["no scheduler", "of another optimizer"]
)
def test_a_base_scheduler_of_another_optimizer_is_refused(base: Any) -> None:
    with pytest.raises(ValueError, match=r"base_scheduler = .*allowed: a torch or timm scheduler of this optimizer"):
        RandomAmplifyLR(two_groups(), base, probability=0.5, lower=1.5, upper=3.0)
