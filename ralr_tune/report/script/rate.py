"""The learning-rate part of a script: torch's own scheduler for the base curve, `RandomAmplifyLR` around it.

Before it stand `optimizer`, EPOCHS, LR and STEPS (an epoch). The curve moves once an epoch or once a step, and so does
the perturbation. Where both keep the same pace, one scheduler holds both. Where not, and for noise, the curve has an
optimizer of its own to write to, and the script sets the product of both before each step.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.report.script.parts import Part, literal
from ralr_tune.schedules import curves
from ralr_tune.schedules.curves import SLACK, Curve
from ralr_tune.schedules.perturbation import Granularity
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration
from ralr_tune.studyfile.configuration import AmplifyConfig, NoiseConfig

_MATH = "import math"
_RANDOM_AMPLIFY = "from ralr_tune import RandomAmplifyLR"
_WIDTH = 110


@dataclass(frozen=True)
class RatePart:
    """Source before the loop, and lines inside of it."""

    setup: Part
    before_step: tuple[str, ...] = ()
    after_step: tuple[str, ...] = ()
    after_epoch: tuple[str, ...] = ()

    def stepping(self, pace: Granularity, *lines: str) -> RatePart:
        """The same with `lines` after every epoch or step."""
        after_step = (*self.after_step, *lines) if pace == "step" else self.after_step
        after_epoch = (*self.after_epoch, *lines) if pace == "epoch" else self.after_epoch
        return RatePart(self.setup, self.before_step, after_step, after_epoch)


def rate_part(configuration: Configuration, seed: int) -> RatePart:
    """The rates of a run whose training seed is `seed`; draws included, they are the trial's own."""
    pace, epochs = configuration.schedule.granularity, configuration.training.epochs
    amplify, noise = configuration.amplify, configuration.noise
    draws = derive_seed("amplify", seed)
    if amplify is not None and not _is_empty(amplify, epochs):
        return _amplified(configuration, amplify, draws)
    if noise is not None and not _is_empty(noise, epochs):
        return _noisy(configuration, noise, draws)
    return RatePart(_base(configuration, "scheduler", "optimizer")).stepping(pace, "scheduler.step()")


def _amplified(configuration: Configuration, amplify: AmplifyConfig, draws: int) -> RatePart:
    pace, epochs = configuration.schedule.granularity, configuration.training.epochs
    if amplify.granularity == pace:
        base = _base(configuration, "base", "optimizer")
        setup = _joined(base, _random_amplify("scheduler", "base", amplify, epochs, draws))
        return RatePart(setup).stepping(pace, "scheduler.step()")
    base = _base(configuration, "base", "curve")
    constant = Part(
        "constant = ConstantLR(optimizer, factor=1.0)\n",
        frozenset({"from torch.optim.lr_scheduler import ConstantLR"}),
    )
    around = _random_amplify("amplify", "constant", amplify, epochs, draws)
    product = _product(_joined(base, constant, around), "amplify.factor")
    return product.stepping(pace, "curve.step()", "base.step()").stepping(amplify.granularity, "amplify.step()")


def _noisy(configuration: Configuration, noise: NoiseConfig, draws: int) -> RatePart:
    base = _base(configuration, "base", "curve")
    source = _noise_function(noise, configuration.training.epochs, draws)
    product = _product(_joined(base, source), "noise(index)")
    stepped = product.stepping(configuration.schedule.granularity, "curve.step()", "base.step()")
    return stepped.stepping(noise.granularity, "index += 1")


def _product(setup: Part, factor: str) -> RatePart:
    stand_in = (
        "curve = torch.optim.SGD([torch.zeros(1)], lr=LR)  # trains nothing: it holds the rate of the base curve\n"
    )
    setting = f'optimizer.param_groups[0]["lr"] = curve.param_groups[0]["lr"] * {factor}'
    return RatePart(_joined(Part(stand_in, frozenset({"import torch"})), setup), before_step=(setting,))


def _joined(*parts: Part) -> Part:
    return Part("".join(part.body for part in parts), frozenset().union(*(part.imports for part in parts)))


# ---------------------------------------------------------------- the perturbation


def _random_amplify(name: str, base: str, amplify: AmplifyConfig, epochs: int, draws: int) -> Part:
    arguments = {
        "probability": literal(amplify.probability),
        "lower": literal(amplify.lower),
        "upper": literal(amplify.upper),
        "law": literal(amplify.law),
        "window": _window(amplify, epochs),
        "seed": literal(draws),
    }
    given = [f"{key}={value}" for key, value in arguments.items() if value not in ("'uniform'", "None")]
    lines = [f"{name} = RandomAmplifyLR(", *(f"    {line}," for line in (f"optimizer, {base}", *given)), ")", ""]
    return Part("\n".join(lines), frozenset({_RANDOM_AMPLIFY, *_math_in(*given)}))


_NOISE = '''\
index = 0


def noise(index):
    """timm's learning-rate noise: a factor within +-{amplitude} of 1, a pure function of the index."""{outside}
    word = int(np.random.Philox(key={draws}, counter=index).random_raw(4)[0])
    share = ((word >> 12) + 0.5) * 2.0**-52
{law}
'''
_UNIFORM = "    return 1 + {amplitude} * (2 * share - 1)\n"
_NORMAL = """\
    normal = NormalDist(sigma={std})
    low, high = normal.cdf(-{amplitude}), normal.cdf({amplitude})
    return 1 + normal.inv_cdf(low + (high - low) * share)
"""
_OUTSIDE = """
    first, last = {window}
    if not first <= index < last:
        return 1.0"""


def _noise_function(noise: NoiseConfig, epochs: int, draws: int) -> Part:
    amplitude, window = literal(noise.amplitude), _window(noise, epochs)
    law = (_NORMAL if noise.law == "normal" else _UNIFORM).format(std=literal(noise.std), amplitude=amplitude)
    outside = "" if window == "None" else _OUTSIDE.format(window=window)
    body = _NOISE.format(amplitude=amplitude, outside=outside, draws=literal(draws), law=law)
    distribution = {"from statistics import NormalDist"} if noise.law == "normal" else set()
    return Part(body, frozenset({"import numpy as np", *distribution, *_math_in(window)}))


def _is_empty(perturbation: AmplifyConfig | NoiseConfig, epochs: int) -> bool:
    """Whether no epoch begins within the window, so that nothing is ever drawn."""
    first, last = (math.ceil(share * epochs - SLACK) for share in perturbation.window)
    return perturbation.granularity == "epoch" and first == last


def _window(perturbation: AmplifyConfig | NoiseConfig, epochs: int) -> str:
    """(first, last) in draws; "None" for the whole run."""
    if perturbation.window == (0.0, 1.0):
        return "None"
    first, last = (_position(round(share * epochs, 9), perturbation.granularity) for share in perturbation.window)
    return f"({first}, {last})"


# ---------------------------------------------------------------- the base curve


@dataclass(frozen=True)
class _Times:
    """Lengths of a curve as source, in epochs or steps, whichever the curve moves in."""

    curve: Curve
    pace: Granularity

    def epochs(self, value: float) -> float:
        """In epochs what is given as a share of the run (below 1) or in epochs."""
        return value if value >= 1 else round(value * self.curve.epochs, 9)

    @property
    def warmup(self) -> str:
        return self.length(self.curve.warmup)

    @property
    def span(self) -> str:
        """What the warm-up leaves of the run."""
        return ("EPOCHS * STEPS" if self.pace == "step" else "EPOCHS") + self._less_warmup()

    def length(self, value: float) -> str:
        epochs = self.epochs(value)
        if self.pace == "step" and epochs != int(epochs):
            return f"max(1, round({epochs!r} * STEPS))"
        return _position(epochs, self.pace)

    def position(self, value: float) -> str:
        """Counted from the end of the warm-up."""
        return _position(self.epochs(value), self.pace) + self._less_warmup()

    def exactly(self, value: float) -> str:
        """The same, between two moves if need be."""
        return f"{self.epochs(value)!r}{' * STEPS' if self.pace == 'step' else ''}" + self._less_warmup()

    def per_move(self, gamma: float) -> str:
        """What is multiplied with at every move to get `gamma` in an epoch."""
        return f"{gamma!r} ** (1 / STEPS)" if self.pace == "step" else repr(gamma)

    def _less_warmup(self) -> str:
        return " - warmup" if self.curve.warmup else ""


def _position(epochs: float, pace: Granularity) -> str:
    """The first epoch, or step, at or after `epochs`."""
    if pace == "epoch":
        return str(math.ceil(epochs - SLACK))
    return f"{int(epochs)} * STEPS" if epochs == int(epochs) else f"math.ceil({epochs!r} * STEPS - 1e-6)"


def _base(configuration: Configuration, name: str, optimizer: str) -> Part:
    """The base curve as a scheduler of torch on `optimizer`."""
    curve = configuration.curve()
    times = _Times(curve, configuration.schedule.granularity)
    if times.pace == "epoch" and not _is_whole(times):
        return _table(curve, name, optimizer)
    kind, arguments = _TORCH[type(curve)](curve, times)
    lines = [f"{name} = {kind}({', '.join([optimizer, *arguments])})"]
    kinds = [kind]
    if curve.warmup:
        rising = f"LinearLR({optimizer}, start_factor={curve.warmup_factor!r}, total_iters=warmup)"
        lines = [
            f"warmup = {times.warmup}",
            *lines,
            f"{name} = SequentialLR({optimizer}, [{rising}, {name}], milestones=[warmup])",
        ]
        kinds += ["LinearLR", "SequentialLR"]
    imports = {f"from torch.optim.lr_scheduler import {kind}" for kind in kinds}
    return Part("\n".join([*lines, ""]), frozenset(imports | set(_math_in(*lines))))


def _math_in(*lines: str) -> list[str]:
    return [_MATH] if any("math." in line for line in lines) else []


def _is_whole(times: _Times) -> bool:
    """Whether all lengths that torch counts in are whole epochs."""
    given = (times.curve.warmup, getattr(times.curve, "step_size", 1), getattr(times.curve, "period", 1))
    return all(epochs == int(epochs) for epochs in map(times.epochs, given))


def _table(curve: Curve, name: str, optimizer: str) -> Part:
    factors = textwrap.fill(", ".join(repr(curve.factor(epoch)) for epoch in range(curve.epochs)), _WIDTH)
    body = (
        f"# {type(curve).__name__} over lengths that are no whole epochs, which torch's own scheduler cannot count\n"
        f"factors = [\n{textwrap.indent(factors, '    ')}\n]\n"
        f"{name} = LambdaLR({optimizer}, lambda epoch: factors[min(epoch, EPOCHS - 1)])\n"
    )
    return Part(body, frozenset({"from torch.optim.lr_scheduler import LambdaLR"}))


Call = tuple[str, list[str]]
"""A scheduler's class and its arguments, the optimizer aside."""


def _constant(curve: curves.Constant, times: _Times) -> Call:
    return "ConstantLR", ["factor=1.0"]


def _linear(curve: curves.Linear, times: _Times) -> Call:
    return "LinearLR", ["start_factor=1.0", f"end_factor={curve.end_factor!r}", f"total_iters={times.span}"]


def _step(curve: curves.Step, times: _Times) -> Call:
    return "StepLR", [f"step_size={times.length(curve.step_size)}", f"gamma={curve.gamma!r}"]


def _multistep(curve: curves.MultiStep, times: _Times) -> Call:
    milestones = ", ".join(times.position(milestone) for milestone in curve.milestones)
    return "MultiStepLR", [f"milestones=[{milestones}]", f"gamma={curve.gamma!r}"]


def _exponential(curve: curves.Exponential, times: _Times) -> Call:
    return "ExponentialLR", [f"gamma={times.per_move(curve.gamma)}"]


def _polynomial(curve: curves.Polynomial, times: _Times) -> Call:
    return "PolynomialLR", [f"total_iters={times.span}", f"power={curve.power!r}"]


def _cosine(curve: curves.Cosine, times: _Times) -> Call:
    return "CosineAnnealingLR", [f"T_max={times.span}", *_eta_min(curve.end_factor)]


def _sgdr(curve: curves.Sgdr, times: _Times) -> Call:
    rounds = [f"T_0={times.length(curve.period)}", f"T_mult={curve.multiplier!r}"]
    return "CosineAnnealingWarmRestarts", [*rounds, *_eta_min(curve.end_factor)]


def _eta_min(end_factor: float) -> list[str]:
    return [f"eta_min={end_factor!r} * LR"] if end_factor else []


def _cyclic(curve: curves.Cyclic, times: _Times) -> Call:
    gamma = [] if curve.gamma is None else [f"gamma={times.per_move(curve.gamma)}"]
    height = [f"base_lr={curve.low_factor!r} * LR", "max_lr=LR", f"step_size_up={times.length(curve.period)} / 2"]
    return "CyclicLR", [*height, f"mode={literal(curve.mode)}", *gamma, "cycle_momentum=False"]


def _one_cycle(curve: curves.OneCycle, times: _Times) -> Call:
    # torch counts from the first index to the last one, the curve from the run's start to its end
    peak = f"pct_start=({times.exactly(curve.peak_at)} + 1) / ({times.span} + 1)"
    heights = [f"div_factor={curve.div_factor!r}", f"final_div_factor={curve.final_div_factor!r}"]
    return "OneCycleLR", ["max_lr=LR", f"total_steps={times.span} + 1", peak, *heights, "cycle_momentum=False"]


_TORCH: Mapping[type[Curve], Callable[[Any, _Times], Call]] = {
    curves.Constant: _constant,
    curves.Linear: _linear,
    curves.Step: _step,
    curves.MultiStep: _multistep,
    curves.Exponential: _exponential,
    curves.Polynomial: _polynomial,
    curves.Cosine: _cosine,
    curves.Sgdr: _sgdr,
    curves.Cyclic: _cyclic,
    curves.OneCycle: _one_cycle,
}
