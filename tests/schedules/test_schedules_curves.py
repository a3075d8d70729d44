"""Every curve against torch's scheduler, and what torch does not have: shares, boundaries, impossible options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as torchs
from torch.optim.lr_scheduler import LRScheduler

from ralr_tune.schedules.curves import CURVES, OPTIONS, make_curve
from ralr_tune.schedules.rate import LearningRate

LR = 0.3
EPOCHS = 40

# (name, our options, torch's scheduler over `span` epochs of `n` steps each, `late` epochs after the run's start)
Factory = Callable[[Optimizer, int, int, int], LRScheduler]
CASES: list[tuple[str, dict[str, Any], Factory]] = [
    ("constant", {}, lambda o, span, n, late: torchs.ConstantLR(o, 1.0, span * n)),
    ("linear", {}, lambda o, span, n, late: torchs.LinearLR(o, 1.0, 0.0, span * n)),
    ("linear", {"end_factor": 0.2}, lambda o, span, n, late: torchs.LinearLR(o, 1.0, 0.2, span * n)),
    ("step", {"step_size": 7, "gamma": 0.3}, lambda o, span, n, late: torchs.StepLR(o, 7 * n, 0.3)),
    (
        "multistep",
        {"milestones": [20, 30]},
        lambda o, span, n, late: torchs.MultiStepLR(o, [(20 - late) * n, (30 - late) * n]),
    ),
    ("exponential", {"gamma": 0.9}, lambda o, span, n, late: torchs.ExponentialLR(o, 0.9 ** (1 / n))),
    ("polynomial", {}, lambda o, span, n, late: torchs.PolynomialLR(o, span * n)),
    ("polynomial", {"power": 2.5}, lambda o, span, n, late: torchs.PolynomialLR(o, span * n, 2.5)),
    ("cosine", {}, lambda o, span, n, late: torchs.CosineAnnealingLR(o, span * n)),
    ("cosine", {"end_factor": 0.1}, lambda o, span, n, late: torchs.CosineAnnealingLR(o, span * n, 0.1 * LR)),
    ("sgdr", {}, lambda o, span, n, late: torchs.CosineAnnealingWarmRestarts(o, 10 * n)),
    (
        "sgdr",
        {"period": 3, "multiplier": 2, "end_factor": 0.05},
        lambda o, span, n, late: torchs.CosineAnnealingWarmRestarts(o, 3 * n, 2, 0.05 * LR),
    ),
    (
        "cyclic",
        {"period": 8},
        lambda o, span, n, late: torchs.CyclicLR(o, 0.1 * LR, LR, 4 * n, cycle_momentum=False),
    ),
    (
        "cyclic",
        {"period": 8, "low_factor": 0.3, "mode": "triangular2"},
        lambda o, span, n, late: torchs.CyclicLR(o, 0.3 * LR, LR, 4 * n, mode="triangular2", cycle_momentum=False),
    ),
    (
        "cyclic",
        {"period": 8, "mode": "exp_range", "gamma": 0.97},
        lambda o, span, n, late: torchs.CyclicLR(
            o, 0.1 * LR, LR, 4 * n, mode="exp_range", gamma=0.97 ** (1 / n), cycle_momentum=False
        ),
    ),
    (
        "one_cycle",
        {"peak_at": 12, "div_factor": 20.0, "final_div_factor": 100.0},
        lambda o, span, n, late: torchs.OneCycleLR(
            o,
            LR,
            total_steps=span * n + 1,
            pct_start=((12 - late) * n + 1) / (span * n + 1),
            div_factor=20.0,
            final_div_factor=100.0,
            cycle_momentum=False,
        ),
    ),
]


def torch_rates(make: Factory, warmup: int, n: int) -> np.ndarray[Any, Any]:
    """The rates of a run of EPOCHS * n steps under torch's own scheduler, after a LinearLR if there is a warm-up."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer, EPOCHS - warmup, n, warmup)
    if warmup:
        first = torchs.LinearLR(optimizer, 0.1, 1.0, warmup * n)
        scheduler = torchs.SequentialLR(optimizer, [first, scheduler], [warmup * n])
    rates = []
    for _ in range(EPOCHS * n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def our_rates(name: str, options: dict[str, Any], warmup: float, n: int) -> np.ndarray[Any, Any]:
    curve = make_curve(name, epochs=EPOCHS, warmup=warmup, **options)
    return LearningRate(LR, curve, EPOCHS, n, None, 0, "epoch" if n == 1 else "step").trace().ravel()


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_equals_torch_over_a_whole_run(
    name: str, options: dict[str, Any], make: Factory, warmup: int, steps_per_epoch: int
) -> None:
    expected = torch_rates(make, warmup, steps_per_epoch)
    np.testing.assert_allclose(our_rates(name, options, warmup, steps_per_epoch), expected, rtol=1e-9, atol=0)


def test_every_curve_is_compared_with_torch() -> None:
    own = {"inverse_sqrt"}  # not in torch: compared with its paper
    assert {name for name, _, _ in CASES} | own == set(CURVES) == set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "share", "epochs"),
    [
        ("step", {"step_size": 0.25}, {"step_size": 10}),
        ("multistep", {"milestones": [0.5, 0.75]}, {"milestones": [20, 30]}),
        ("multistep", {}, {"milestones": [20, 30]}),
        ("sgdr", {"period": 0.2}, {"period": 8}),
        ("cyclic", {"period": 0.1}, {"period": 4}),
        ("one_cycle", {}, {"peak_at": 12}),
    ],
)
@pytest.mark.parametrize("warmup", [(0, 0), (0.1, 4)])
def test_a_length_below_1_is_a_share_of_the_whole_run(
    name: str, share: dict[str, Any], epochs: dict[str, Any], warmup: tuple[float, float]
) -> None:
    np.testing.assert_array_equal(our_rates(name, share, warmup[0], 5), our_rates(name, epochs, warmup[1], 5))


@given(epochs=st.integers(1, 400), percent=st.integers(1, 99))
def test_a_share_takes_effect_at_the_first_epoch_that_reaches_it(epochs: int, percent: int) -> None:
    curve = make_curve("multistep", epochs=epochs, milestones=[percent / 100])
    reached = -(-percent * epochs // 100)  # exact: 0.55 * 100 is 55.00000000000001 in floating point
    assert [curve.factor(t) < 1 for t in range(epochs)] == [t >= reached for t in range(epochs)]


@given(period=st.integers(2, 60), steps=st.integers(1, 60))
def test_restarts_occur_at_the_exact_step(period: int, steps: int) -> None:
    """Periods of `period` steps, with t = epoch + step / steps, which is rarely exact."""
    curve = make_curve("sgdr", epochs=50, period=period / steps if period >= steps else period / steps / 50)
    begins = [index for index in range(50 * steps) if curve.factor(index // steps + index % steps / steps) > 1 - 1e-6]
    assert begins == list(range(0, 50 * steps, period))


@given(st.sampled_from(sorted(CURVES)), st.floats(0, 0.2), st.floats(0, 60))
def test_a_factor_is_a_share_of_the_rate(name: str, warmup: float, t: float) -> None:
    needed = {"step": {"step_size": 3}, "cyclic": {"period": 3}}.get(name, {})
    warmup = warmup or (0.1 if name == "inverse_sqrt" else 0.0)
    assert 0 <= make_curve(name, epochs=50, warmup=warmup, **needed).factor(t) <= 1


@pytest.mark.parametrize("name", sorted(CURVES.keys() - {"sgdr", "cyclic", "one_cycle"}))
def test_monotone_curves_never_rise_after_the_warm_up(name: str) -> None:
    needed = {"step_size": 3} if name == "step" else {}
    rates = our_rates(name, needed, 4, 6)
    assert (np.diff(rates[: 4 * 6]) > 0).all()
    assert (np.diff(rates[4 * 6 :]) <= 1e-15).all()


@pytest.mark.parametrize("granularity_steps", [1, 7])
def test_the_inverse_square_root_is_that_of_the_transformers_paper(granularity_steps: int) -> None:
    """Vaswani et al. 2017, equation 3, divided by its value at the end of the warm-up."""
    n, warmup = granularity_steps, 4
    curve = make_curve("inverse_sqrt", epochs=20, warmup=warmup, warmup_factor=1e-9)
    for step in range(20 * n):
        paper = 0.0 if step == 0 else min(step**-0.5, step * (warmup * n) ** -1.5) / (warmup * n) ** -0.5
        assert curve.factor(step / n) == pytest.approx(paper, abs=1e-8)


@pytest.mark.parametrize("name", ["cyclic", "one_cycle"])
def test_warm_up_continues_into_a_low_start_without_a_jump(name: str) -> None:
    curve = make_curve(name, epochs=20, warmup=2, **({"period": 6} if name == "cyclic" else {}))
    assert curve.factor(1.999999) == pytest.approx(curve.factor(2.0), rel=1e-5)
    assert curve.factor(0) == pytest.approx(0.1 * curve.factor(2.0))


def test_after_the_run_a_curve_keeps_its_last_value() -> None:
    assert make_curve("cosine", epochs=10, end_factor=0.2).factor(17) == pytest.approx(0.2)
    assert make_curve("one_cycle", epochs=10).factor(11) == pytest.approx(1 / 25 / 1e4)


def test_equal_curves_are_equal_and_hashable_although_toml_gives_lists() -> None:
    listed = make_curve("multistep", epochs=9, milestones=[2, 5])
    assert listed == make_curve("multistep", epochs=9, milestones=(2, 5))
    assert len({listed, make_curve("multistep", epochs=9, milestones=(2, 5))}) == 1


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("cosin", {}, "name = 'cosin'; allowed: .*cosine"),
    ("cosine", {"gamma": 0.1}, "gamma = 0.1; allowed: end_factor"),
    ("constant", {"gamma": 0.1}, "gamma = 0.1; allowed: no options"),
    ("constant", {"epochs": 0}, "epochs = 0; allowed: an integer >= 1"),
    ("constant", {"epochs": 2.5}, "epochs = 2.5"),
    ("constant", {"epochs": True}, "epochs = True"),
    ("constant", {"warmup": 10}, r"warmup = 10; allowed: a number in \[0, 10\)"),
    ("constant", {"warmup": -1}, "warmup = -1"),
    ("constant", {"warmup": float("nan")}, "warmup = nan"),
    ("constant", {"warmup_factor": 0}, r"warmup_factor = 0; allowed: a number in \(0, 1\]"),
    ("linear", {"end_factor": 1.1}, r"end_factor = 1.1; allowed: a number in \[0, 1\]"),
    ("step", {}, "step_size is missing"),
    ("step", {"step_size": 0}, "step_size = 0"),
    ("step", {"step_size": 1e-12}, "step_size = 1e-12"),
    ("step", {"step_size": "3"}, "step_size = '3'"),
    ("step", {"step_size": 10**400}, "step_size = 1000"),
    ("step", {"step_size": 2, "gamma": 2}, r"gamma = 2; allowed: a number in \(0, 1\]"),
    ("multistep", {"milestones": 5}, "milestones = 5; allowed: a list"),
    ("multistep", {"milestones": [2.5]}, "milestones = 2.5; allowed: an integer"),
    ("multistep", {"milestones": [10]}, r"milestones = 10; allowed: a number in \(0, 10\)"),
    ("multistep", {"milestones": [0]}, "milestones = 0"),
    ("multistep", {"milestones": [0.2], "warmup": 3}, "milestones = 0.2; allowed: a position after the warm-up"),
    ("exponential", {"gamma": 0}, "gamma = 0"),
    ("polynomial", {"power": 0}, "power = 0"),
    ("cosine", {"end_factor": None}, "end_factor = None"),
    ("sgdr", {"period": -1}, "period = -1"),
    ("sgdr", {"multiplier": 1.5}, "multiplier = 1.5; allowed: an integer >= 1"),
    ("cyclic", {}, "period is missing"),
    ("cyclic", {"period": 4, "low_factor": 1.5}, "low_factor = 1.5"),
    ("cyclic", {"period": 4, "mode": "square"}, "mode = 'square'; allowed: triangular, triangular2, exp_range"),
    ("cyclic", {"period": 4, "mode": "exp_range"}, "gamma = None"),
    ("cyclic", {"period": 4, "gamma": 0.9}, "gamma = 0.9; allowed: no gamma, since mode is 'triangular'"),
    ("inverse_sqrt", {}, "warmup = 0.0; allowed: a warm-up above 0"),
    ("one_cycle", {"peak_at": 10}, "peak_at = 10"),
    ("one_cycle", {"peak_at": 0.3, "warmup": 5}, "peak_at = 0.3; allowed: a position after the warm-up"),
    ("one_cycle", {"div_factor": 0.5}, "div_factor = 0.5"),
    ("one_cycle", {"final_div_factor": float("inf")}, "final_div_factor = inf"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_impossible_options_are_refused_with_name_value_and_allowed_values(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_curve(name, **{"epochs": 10, **options})
