"""RandomAmplifyLR in other loops: wrapped again, resumed without it, garbage-collected, prepared, compiled."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import warnings
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch.nn import Parameter
from torch.optim import SGD, Optimizer, swa_utils
from torch.optim import lr_scheduler as torchs
from torch.optim.lr_scheduler import LRScheduler

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.scheduler import RandomAmplifyLR
from tests.schedules.loops import (
    ARGUMENTS,
    BASES,
    STEPS,
    Factory,
    advance,
    amplified,
    expected_factors,
    rates,
    through_a_file,
    trace,
    two_groups,
)

DOUBLE: dict[str, Any] = {"probability": 1.0, "lower": 2.0, "upper": 2.0}


def doubled(values: list[float]) -> list[float]:
    return [2 * value for value in values]


# An amplified rate is never used as a base rate

AGAIN: dict[str, Factory] = {
    **{name: BASES[name] for name in BASES.keys() - {"amplified"}},
    # With explicit rates: in BASES, they read them from the optimizer.
    "cyclic": lambda o: torchs.CyclicLR(o, 0.01, [0.1, 0.02], 4),
    "one_cycle": lambda o: torchs.OneCycleLR(o, [0.1, 0.02], STEPS + 1),
    "swa": lambda o: swa_utils.SWALR(o, 0.003, anneal_epochs=6),
    "swa_at_once": lambda o: swa_utils.SWALR(o, 0.003, anneal_epochs=0),
    "chain_of_sequences": lambda o: torchs.ChainedScheduler([BASES["sequential"](o), torchs.ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("rebound", [False, True])
@pytest.mark.parametrize("name", sorted(AGAIN.keys() - {"chain_of_sequences"}))
def test_a_notebook_cell_that_runs_twice_has_the_same_effect_as_without_a_wrapper(name: str, rebound: bool) -> None:
    bare, optimizer, held = two_groups(), two_groups(), []
    for _ in range(3):
        base = AGAIN[name](bare)
        scheduler = RandomAmplifyLR(optimizer, AGAIN[name](optimizer), **DOUBLE)
        held += [] if rebound else [scheduler]
        assert rates(optimizer) == doubled(rates(bare))
    assert trace(optimizer, scheduler, last=12) == [doubled(row) for row in trace(bare, base, last=12)]


@pytest.mark.parametrize("name", BASES)
def test_another_wrapper_of_the_same_base_continues(name: str) -> None:
    optimizer, scheduler = amplified(BASES[name])
    before = trace(optimizer, scheduler, last=7)
    again = RandomAmplifyLR(optimizer, scheduler.base_scheduler, **ARGUMENTS)
    assert again.last_epoch == 7
    assert before + trace(optimizer, again, first=7) == trace(*amplified(BASES[name]))


def test_a_rate_written_before_another_wrapper_counts_as_amplified() -> None:
    optimizer, scheduler = amplified(BASES["step"], **DOUBLE)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    again = RandomAmplifyLR(optimizer, scheduler.base_scheduler, probability=1.0, lower=3.0, upper=3.0)
    assert rates(optimizer) == pytest.approx([0.15, 0.03])
    assert again.get_base_lr() == pytest.approx([0.05, 0.01])


def test_the_wrapper_that_steps_replaces_the_other_one() -> None:
    optimizer, first = amplified(BASES["exponential"], **DOUBLE)
    second = RandomAmplifyLR(optimizer, first.base_scheduler, probability=1.0, lower=3.0, upper=3.0)
    for step, (scheduler, factor) in enumerate([(first, 2), (second, 3), (second, 3), (first, 2)], start=1):
        advance(optimizer, scheduler, step)
        assert rates(optimizer)[0] == pytest.approx(0.1 * 0.9**step * factor)


RESUMABLE: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "step": lambda o, last: torchs.StepLR(o, 5, last_epoch=last),
    "multistep": lambda o, last: torchs.MultiStepLR(o, [8, 16], last_epoch=last),
    "exponential": lambda o, last: torchs.ExponentialLR(o, 0.9, last_epoch=last),
    "linear": lambda o, last: torchs.LinearLR(o, 1.0, 0.1, 20, last_epoch=last),
    "constant": lambda o, last: torchs.ConstantLR(o, 0.5, 6, last_epoch=last),
    "polynomial": lambda o, last: torchs.PolynomialLR(o, 30, 2.0, last_epoch=last),
    "cosine": lambda o, last: torchs.CosineAnnealingLR(o, 10, 1e-4, last_epoch=last),
    "sgdr": lambda o, last: torchs.CosineAnnealingWarmRestarts(o, 4, 2, last_epoch=last),
    "lambda": lambda o, last: torchs.LambdaLR(o, lambda step: 1 / (1 + step), last_epoch=last),
    "multiplicative": lambda o, last: torchs.MultiplicativeLR(o, lambda step: 0.95, last_epoch=last),
    "cyclic": lambda o, last: torchs.CyclicLR(o, 0.01, 0.1, 4, last_epoch=last),
    "one_cycle": lambda o, last: torchs.OneCycleLR(o, 0.1, STEPS + 1, last_epoch=last),
}


@pytest.mark.parametrize("name", RESUMABLE)
def test_the_optimizers_state_alone_resumes_from_the_base_rates(name: str) -> None:
    """As without a wrapper; a base scheduler created with last_epoch=N relies on it."""
    bare, optimizer = two_groups(), two_groups()
    trace(bare, RESUMABLE[name](bare, -1), last=7)
    scheduler = RandomAmplifyLR(optimizer, RESUMABLE[name](optimizer, -1), **ARGUMENTS)
    trace(optimizer, scheduler, last=7)
    saved = through_a_file(optimizer.state_dict())
    assert saved["param_groups"] == bare.state_dict()["param_groups"]

    loaded, alone = two_groups(), two_groups()
    loaded.load_state_dict(saved)
    alone.load_state_dict(saved)
    resumed = RandomAmplifyLR(loaded, RESUMABLE[name](loaded, 6), **ARGUMENTS)
    own = trace(alone, RESUMABLE[name](alone, 6), first=7)
    factors = Amplification(0.5, 1.5, 3.0).factors(4, 7, STEPS - 7).tolist()
    assert trace(loaded, resumed, first=7) == [
        [rate * factor for rate in row] for row, factor in zip(own, factors, strict=True)
    ]


@pytest.mark.parametrize("tensor", [False, True])
def test_a_wrapped_optimizer_amplifies_what_it_loads(tensor: bool) -> None:
    initial = [torch.tensor(0.1), torch.tensor(0.02)] if tensor else [0.1, 0.02]
    optimizer, scheduler = amplified(BASES["exponential"], two_groups(*initial), **DOUBLE)
    state = copy.deepcopy(optimizer.state_dict())
    before = rates(optimizer)
    assert [float(group["lr"]) for group in state["param_groups"]] == pytest.approx([0.1, 0.02])
    for group in state["param_groups"]:
        group["lr"] = group["lr"] / 10
    for _ in range(2):  # loading twice is loading once
        optimizer.load_state_dict(state)
        assert rates(optimizer) == pytest.approx([rate / 10 for rate in before])
    assert [float(rate) for rate in scheduler.get_base_lr()] == pytest.approx([0.01, 0.002])


@pytest.mark.parametrize("optimizer_first", [False, True])
def test_a_checkpoint_of_release_0_1_resumes(optimizer_first: bool) -> None:
    """In 0.1, the optimizer's state held amplified rates, and the scheduler's state had no prefix."""
    whole = trace(*amplified(BASES["cosine"]))
    optimizer, scheduler = amplified(BASES["cosine"])
    trace(optimizer, scheduler, last=7)
    states = scheduler.state_dict(), optimizer.state_dict()
    del states[0]["prefix"]
    for group, rate in zip(states[1]["param_groups"], rates(optimizer), strict=True):
        group["lr"] = rate
    fresh, resumed = amplified(BASES["cosine"])
    if optimizer_first:
        fresh.load_state_dict(states[1])
    resumed.load_state_dict(states[0])
    if not optimizer_first:
        fresh.load_state_dict(states[1])
    assert trace(fresh, resumed, first=7) == whole[7:]


@pytest.mark.parametrize("name", BASES)
def test_release_restores_the_base_rates(name: str) -> None:
    bare, (optimizer, scheduler) = two_groups(), amplified(BASES[name])
    base = BASES[name](bare)
    trace(bare, base, last=7)
    trace(optimizer, scheduler, last=7)
    assert scheduler.get_base_lr() == rates(bare)
    scheduler.release()
    assert scheduler.factor == 1.0
    assert rates(optimizer) == rates(bare) == scheduler.get_base_lr()
    assert optimizer.state_dict() == bare.state_dict()  # no trace of it in the groups, "initial_lr" of a plateau say
    scheduler.release()
    advance(optimizer, scheduler, 7)
    assert trace(optimizer, scheduler, first=8) == trace(*amplified(BASES[name]))[8:]


@pytest.mark.parametrize("released", [True, False])
def test_weights_averaged_after_the_scheduler_was_swapped(released: bool) -> None:
    """The optimizer's next step restores the base rates of a garbage-collected wrapper."""

    def averaging(optimizer: Optimizer) -> list[list[float]]:
        return trace(optimizer, swa_utils.SWALR(optimizer, 0.01, anneal_epochs=4), last=8)

    bare, (optimizer, scheduler) = two_groups(), amplified(BASES["constant"], **DOUBLE)
    BASES["constant"](bare)
    if released:
        scheduler.release()
    del scheduler
    found, expected = averaging(optimizer), averaging(bare)
    assert found[1:] == expected[1:]
    assert optimizer.state_dict() == bare.state_dict()


def test_a_rate_written_after_the_wrapper_was_collected_is_kept() -> None:
    optimizer, scheduler = amplified(BASES["step"], **DOUBLE)
    del scheduler
    optimizer.param_groups[0]["lr"] = 0.07
    assert [group["lr"] for group in optimizer.state_dict()["param_groups"]] == [0.07, 0.02]
    optimizer.register_step_pre_hook(lambda *_: None)
    for _ in range(2):
        optimizer.step()
        assert rates(optimizer) == [0.07, 0.02]


def test_a_scheduler_created_after_a_plateau_starts_from_the_base_rates() -> None:
    """ReduceLROnPlateau leaves no "initial_lr"; the next scheduler would read the amplified rate."""
    optimizer, _held = amplified(BASES["plateau"], **DOUBLE)
    assert torchs.StepLR(optimizer, 5).base_lrs == [0.1, 0.02]


def test_optimizer_and_wrapper_are_freed_without_the_garbage_collector() -> None:
    optimizer, scheduler = amplified(BASES["step"])
    gone = weakref.ref(optimizer), weakref.ref(scheduler)
    gc.disable()
    try:
        del optimizer, scheduler
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


# Copies, files, refused states


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step")  # torch's, of any scheduler that was copied early
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("name", sorted(BASES.keys() - {"lambda", "multiplicative"}))
def test_a_copied_pair_continues_like_the_original(name: str, copied: Callable[[Any], Any]) -> None:
    optimizer, scheduler = amplified(BASES[name])
    trace(optimizer, scheduler, last=7)
    other, twin = copied((optimizer, scheduler))
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert trace(other, twin, first=7) == trace(optimizer, scheduler, first=7)


def test_numpy_scalars_become_plain_numbers() -> None:
    optimizer = SGD([Parameter(torch.zeros(1))], lr=0.1)
    milestones, gamma = np.array([3, 5]), np.float64(0.5)
    scheduler = RandomAmplifyLR(
        optimizer,
        torchs.MultiStepLR(optimizer, milestones, gamma),  # type: ignore[arg-type]
        probability=np.float64(0.5),
        lower=np.float32(1.5),
        upper=np.int64(3),
        law=np.str_("uniform"),  # type: ignore[arg-type]
        window=(np.int64(0), np.int32(20)),  # type: ignore[arg-type]
        seed=np.uint64(4),  # type: ignore[arg-type]
        prefix=np.str_("g"),
        last_epoch=np.int64(-1),  # type: ignore[arg-type]
    )
    state = scheduler.state_dict()
    assert through_a_file(state) == state
    assert json.loads(json.dumps({name: state[name] for name in state.keys() - {"base_scheduler"}}))["seed"] == 4


def test_a_numpy_rate_leaves_the_optimizer_as_a_plain_number() -> None:
    optimizer = SGD([Parameter(torch.zeros(1))], lr=np.float64(0.1))
    scheduler = RandomAmplifyLR(optimizer, **DOUBLE)
    assert type(optimizer.state_dict()["param_groups"][0]["lr"]) is float
    assert through_a_file(scheduler.state_dict()["base_lrs"]) == [0.1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_scheduler": None}, r"state_dict\['base_scheduler'\] = None; allowed: a state of SequentialLR"),
        ({"base_scheduler": {"last_epoch": 3}}, r"'keys last_epoch'; allowed: a state of SequentialLR"),
        ({"base_scheduler": {"_milestones": [1], "_schedulers": [{}, {}, {}]}}, "IndexError.*a state of SequentialLR"),
        ({"base_lrs": [0.1, 0.1, 0.1]}, "'3 param groups'; allowed: at most 2"),
        ({"base_lrs": [0.1, float("nan")]}, r"base_lrs'\] = nan; allowed: a number in \[0, inf\)"),
        ({"base_lrs": 0.1}, "allowed: a list of numbers"),
        ({"last_epoch": -1}, r"last_epoch'\] = -1; allowed: an integer >= 0"),
        ({"amplification": {"probability": 0.5}}, r"amplification'\] = .*a dict of law, lower, probability, upper"),
        ({"amplification": {"probability": 2, "lower": 1, "upper": 2, "law": "uniform"}}, "probability = 2"),
        ({"window": (5, 3)}, "window = 5"),
        ({"seed": 0.5}, "seed = 0.5"),
        ({"prefix": None}, "prefix = None; allowed: a string"),
    ],
)
def test_a_refused_state_changes_nothing(change: dict[str, Any], message: str) -> None:
    optimizer, scheduler = amplified(BASES["sequential"])
    trace(optimizer, scheduler, last=3)
    before = copy.deepcopy((scheduler.state_dict(), optimizer.state_dict(), rates(optimizer)))
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict({**amplified(BASES["sequential"])[1].state_dict(), **change})
    assert (scheduler.state_dict(), optimizer.state_dict(), rates(optimizer)) == before


@pytest.mark.parametrize("state", [torchs.StepLR(two_groups(), 5).state_dict(), {}, None, [1]])
def test_the_state_of_a_base_scheduler_is_refused_with_the_fix(state: Any) -> None:
    with pytest.raises(ValueError, match=r"state_dict = 'no value for .*seed'; allowed: .* into the base sched"):
        amplified(BASES["step"])[1].load_state_dict(state)


# Attributes, rates, and callers that compute rates


@pytest.mark.parametrize("name", sorted(BASES.keys() - {"amplified"}))
def test_unknown_attributes_are_read_from_the_base_scheduler(name: str) -> None:
    bare, (_, scheduler) = two_groups(), amplified(BASES[name])
    own = vars(BASES[name](bare)).keys() - {"_schedulers"}  # by which a SequentialLR would take it for a member
    assert [attribute for attribute in own if not hasattr(scheduler, attribute)] == []
    with pytest.raises(AttributeError, match="object has no attribute 'nonsense'"):
        _ = scheduler.nonsense


def test_the_guards_of_accelerate_for_one_cycle_hold() -> None:
    """Its AcceleratedScheduler compares these, and counts skipped steps in the scheduler that it wraps."""
    _, scheduler = amplified(BASES["one_cycle"])
    assert (scheduler.total_steps, scheduler._step_count) == (STEPS + 1, 1)
    scheduler._step_count += 1
    assert scheduler.base_scheduler._step_count == 2
    assert "_step_count" not in vars(scheduler)


@pytest.mark.parametrize("name", ["multistep", "cosine", "sgdr", "lambda", "cyclic", "one_cycle", "swa", "amplified"])
def test_a_caller_that_writes_the_result_of_get_lr_gets_the_same_rates(name: str) -> None:
    """Like ignite, with and without a wrapper: get_lr(), write, count."""

    def ignite(optimizer: Optimizer, scheduler: LRScheduler) -> list[list[float]]:
        rows = []
        for _ in range(12):
            scheduler._get_lr_called_within_step = True
            values = scheduler.get_lr()
            scheduler._get_lr_called_within_step = False
            for group, value in zip(optimizer.param_groups, values, strict=True):
                group["lr"] = value
            rows.append(rates(optimizer))
            scheduler.last_epoch += 1
        return rows

    bare, (optimizer, scheduler) = two_groups(), amplified(BASES[name])
    own = ignite(bare, BASES[name](bare))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ignite(optimizer, scheduler)
    assert found == [[rate * f for rate in row] for row, f in zip(own, expected_factors(12), strict=True)]
    assert optimizer.state_dict() == bare.state_dict()
    assert scheduler.get_last_lr() == found[-1]


@pytest.mark.parametrize("name", ["plateau", "sequential", "chained"])
def test_get_lr_of_a_base_without_one_names_the_alternative(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"has no get_lr\(\); get_last_lr\(\) returns the current rates"):
        amplified(BASES[name])[1].get_lr()


def test_get_lr_warns_and_writes_nothing() -> None:
    optimizer, scheduler = amplified(BASES["step"])
    before = rates(optimizer)
    with pytest.warns(UserWarning, match="get_last_lr"):
        assert scheduler.get_lr() == before
    assert (rates(optimizer), scheduler.get_base_lr()) == (before, [0.1, 0.02])


def test_repr_shows_arguments_and_state() -> None:
    _, scheduler = amplified(BASES["amplified"], prefix="g.", window=(0, 9))
    assert repr(scheduler) == (
        "RandomAmplifyLR(RandomAmplifyLR(StepLR, probability=0.5, lower=1.2, upper=1.4, law='uniform', window=None, "
        "seed=9, prefix='', last_epoch=0, factor=1.35926), probability=0.5, lower=1.5, upper=3.0, law='uniform', "
        f"window=(0, 9), seed=4, prefix='g.', last_epoch=0, factor={scheduler.factor:.6g})"
    )


# Arguments


def test_without_a_base_scheduler_the_base_rate_is_constant() -> None:
    optimizer = two_groups()
    scheduler = RandomAmplifyLR(optimizer, **ARGUMENTS)
    whole = [[0.1 * factor, 0.02 * factor] for factor in expected_factors()]
    assert trace(optimizer, scheduler, last=7) == whole[:7]
    states = through_a_file(scheduler.state_dict()), through_a_file(optimizer.state_dict())
    fresh = two_groups()
    fresh.load_state_dict(states[1])
    resumed = RandomAmplifyLR(fresh, **DOUBLE)
    resumed.load_state_dict(states[0])
    assert trace(fresh, resumed, first=7) == whole[7:]


@pytest.mark.parametrize(("last_epoch", "first"), [(-1, 0), (0, 1), (6, 7)])
def test_last_epoch_is_the_last_completed_step(last_epoch: int, first: int) -> None:
    optimizer = two_groups()
    scheduler = RandomAmplifyLR(optimizer, last_epoch=last_epoch, **ARGUMENTS)
    assert scheduler.last_epoch == first
    assert [row[0] for row in trace(optimizer, scheduler, last=9)] == [
        0.1 * f for f in expected_factors(first + 9)[first:]
    ]


def test_an_invalid_last_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="last_epoch = -2; allowed: an integer >= -1"):
        RandomAmplifyLR(two_groups(), last_epoch=-2, **ARGUMENTS)


def test_a_prefix_gives_independent_draws_for_the_same_seed() -> None:
    """For two wrappers in one run, such as a GAN's."""
    streams = [RandomAmplifyLR(two_groups(), probability=1.0, lower=1.0, upper=3.0, prefix=p).preview(200).factors
               for p in ("", "generator.", "discriminator.")]  # fmt: skip
    np.testing.assert_array_equal(streams[0], Amplification(1.0, 1.0, 3.0).factors(0, 0, 200))
    assert abs(np.corrcoef(streams)[np.triu_indices(3, 1)]).max() < 0.2


@pytest.mark.parametrize("name", BASES)
def test_a_preview_predicts_the_rates_and_changes_nothing(name: str) -> None:
    optimizer, scheduler = amplified(BASES[name])
    trace(optimizer, scheduler, last=5)
    losses = [1 / (1 + min(index, 4)) for index in range(5, STEPS)]
    preview = scheduler.preview(STEPS - 5, metrics=losses if name == "plateau" else None)
    assert preview.steps.tolist() == list(range(5, STEPS))
    assert preview.factors.tolist() == expected_factors()[5:]
    np.testing.assert_allclose(preview.base * preview.factors[:, None], preview.rates, rtol=1e-15)
    assert preview.rates.tolist() == trace(optimizer, scheduler, first=5)


def test_a_preview_of_a_tensor_rate_does_not_change_the_tensor() -> None:
    tensors = [torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.02, dtype=torch.float64)]
    optimizer, scheduler = amplified(BASES["cosine"], two_groups(*tensors))
    before = rates(optimizer)
    preview = scheduler.preview(9)
    assert rates(optimizer) == before
    np.testing.assert_allclose(preview.rates, trace(optimizer, scheduler, last=9), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("step", {"steps": 0}, "steps = 0; allowed: an integer >= 1"),
        ("step", {"steps": 2.5}, "steps = 2.5"),
        (
            "plateau",
            {"steps": 3},
            "metrics = None; allowed: one value for each step, because ReduceLROnPlateau needs it",
        ),
        ("plateau", {"steps": 3, "metrics": [1.0]}, "metrics = '1 values'; allowed: one for each step, 3"),
    ],
)
def test_invalid_arguments_of_preview_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        amplified(BASES[name])[1].preview(**arguments)


class CountedByTheCaller:
    """A scheduler like timm's: not a torch scheduler, stepped to the epoch or update that the caller passes."""

    def __init__(self, optimizer: Optimizer, t_in_epochs: bool = True) -> None:
        self.optimizer = optimizer
        self.t_in_epochs = t_in_epochs
        self.base_values = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self._write(0, True)

    def step(self, epoch: int, metric: float | None = None) -> None:
        self._write(epoch, self.t_in_epochs)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        self._write(num_updates, not self.t_in_epochs)

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def _write(self, t: int, due: bool) -> None:
        for group, value in zip(self.optimizer.param_groups, self.base_values, strict=True):
            group["lr"] = value / (2 + t) if due else group["lr"]


@pytest.mark.parametrize("t_in_epochs", [True, False])
def test_a_timm_scheduler_can_be_the_base(t_in_epochs: bool) -> None:
    """In timm's loop: step_update after each update, step after each epoch of two; one of them changes the rate."""

    def run(optimizer: Optimizer, scheduler: Any, first: int = 0) -> list[float]:
        rows = []
        for epoch in range(first, 6):
            for update in (2 * epoch, 2 * epoch + 1):
                rows.append(rates(optimizer)[0])
                optimizer.step()
                scheduler.step_update(num_updates=update + 1)
            scheduler.step(epoch + 1, metric=0.5)
        return rows

    optimizer = two_groups()
    scheduler = RandomAmplifyLR(optimizer, CountedByTheCaller(optimizer, t_in_epochs), **ARGUMENTS)
    whole = run(optimizer, scheduler)
    times = [index // 2 if t_in_epochs else index for index in range(12)]
    assert whole == [0.1 / (2 + t) * expected_factors(12)[t] for t in times]

    optimizer = two_groups()
    scheduler = RandomAmplifyLR(optimizer, CountedByTheCaller(optimizer, t_in_epochs), **DOUBLE)
    scheduler = RandomAmplifyLR(optimizer, CountedByTheCaller(optimizer, t_in_epochs), **ARGUMENTS)
    preview = scheduler.preview(6 if t_in_epochs else 12)
    assert preview.rates[:, 0].tolist() == whole[:: 2 if t_in_epochs else 1]
    (scheduler.step if t_in_epochs else scheduler.step_update)(4)  # as timm resumes: nothing but the count
    assert run(optimizer, scheduler, first=4 if t_in_epochs else 2) == whole[8 if t_in_epochs else 4 :]


def test_a_torch_base_has_no_step_update() -> None:
    with pytest.raises(AttributeError, match="step_update"):
        amplified(BASES["step"])[1].step_update(3)


# Optimizers that wrap others


class Prepared(Optimizer):
    """Like an optimizer prepared by accelerate: the inner one's groups, and no hooks of its own."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)  # type: ignore[assignment]
    state = property(lambda self: self.optimizer.state)  # type: ignore[assignment]

    def step(self, closure: Any = None) -> None:
        self.optimizer.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)


class Thin:
    """Like an optimizer prepared by Fabric: a dynamic class; other attributes are read from the inner one."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.__class__ = type("Thin", (Thin, type(optimizer)), {"state_dict": Thin.state_dict, "step": Thin.step})

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state_dict)

    def step(self, closure: Any = None) -> None:
        self._optimizer.step(closure)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


class Lookahead(Optimizer):
    """Like timm's: shares the groups and the state of the inner optimizer."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self._base_optimizer = optimizer
        self.param_groups, self.defaults, self.state = optimizer.param_groups, optimizer.defaults, defaultdict(dict)

    def step(self, closure: Any = None) -> None:
        self._base_optimizer.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self._base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._base_optimizer.load_state_dict(state_dict)
        self.param_groups = self._base_optimizer.param_groups


class SharpnessAware(Optimizer):
    """Like the usual SAM: a separate optimizer that shares its groups with an inner one."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer.param_groups, {"rho": 0.05})
        self.base_optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def step(self, closure: Any = None) -> None:
        self.base_optimizer.step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups


@pytest.mark.parametrize("base_on", ["outer", "inner"])
@pytest.mark.parametrize("wrapper_on", ["outer", "inner"])
@pytest.mark.parametrize("kind", [Prepared, Thin, Lookahead, SharpnessAware])
def test_base_and_wrapper_may_be_on_different_levels_of_one_optimizer(kind: Any, base_on: str, wrapper_on: str) -> None:
    def made() -> tuple[Optimizer, RandomAmplifyLR]:
        inner = two_groups()
        level = {"inner": inner, "outer": kind(inner)}
        base = torchs.CosineAnnealingLR(level[base_on], 10, 1e-4)
        return level["outer"], RandomAmplifyLR(level[wrapper_on], base, **ARGUMENTS)

    whole = trace(*amplified(BASES["cosine"]))
    outer, scheduler = made()
    assert trace(outer, scheduler, last=7) == whole[:7]
    saved = through_a_file(outer.state_dict())
    assert [group["lr"] for group in saved["param_groups"]] == scheduler.get_base_lr()
    states = saved, through_a_file(scheduler.state_dict())
    outer, scheduler = made()
    outer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert trace(outer, scheduler, first=7) == whole[7:]


@pytest.mark.parametrize("optimizer", [None, "SGD", torchs.StepLR(two_groups(), 5), SGD])
def test_an_object_that_is_no_optimizer_is_refused(optimizer: Any) -> None:
    with pytest.raises(ValueError, match=r"optimizer = .*allowed: a torch optimizer"):
        RandomAmplifyLR(optimizer, **ARGUMENTS)


def test_a_scheduler_prepared_by_accelerate_is_refused() -> None:
    class AcceleratedScheduler:
        scheduler = torchs.StepLR(two_groups(), 5)

    with pytest.raises(ValueError, match="allowed: a torch or timm scheduler of this optimizer, not yet prepared"):
        RandomAmplifyLR(two_groups(), AcceleratedScheduler(), **ARGUMENTS)


# Compiled


@pytest.mark.parametrize("tensor", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_compiled_step_of_both_builds_no_more_graphs_than_without_a_wrapper(tensor: bool) -> None:
    from torch._dynamo.testing import CompileCounter

    def graphs(wrapped: bool) -> tuple[int, list[float]]:
        torch._dynamo.reset()
        counter, parameter = CompileCounter(), Parameter(torch.zeros(3))
        optimizer = SGD([parameter], lr=torch.tensor(0.1) if tensor else 0.1)
        scheduler: LRScheduler = torchs.CosineAnnealingLR(optimizer, 10, 1e-4)
        scheduler = RandomAmplifyLR(optimizer, scheduler, **ARGUMENTS) if wrapped else scheduler
        parameter.grad = torch.ones(3)

        @torch.compile(backend=counter)
        def step() -> None:
            optimizer.step()
            scheduler.step()

        found = []
        for _ in range(8):
            found += rates(optimizer)
            step()
        return counter.frame_count, found

    (without, _), (count, found) = graphs(False), graphs(True)
    assert count == without <= (1 if tensor else 2)  # a rate that is no tensor is compiled in, once more as a variable
    expected = [row[0] for row in trace(*amplified(BASES["cosine"]), last=8)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
