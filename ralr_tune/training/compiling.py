"""Chooses whether steps are compiled or recorded as CUDA graphs, and which calls of the network then are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

from ralr_tune.training.kernels.joining import joined
from ralr_tune.training.kernels.library import Unavailable, kernels

MIN_STEPS_TO_COMPILE = 60_000
"""Steps of a trial from which compilation pays off on a GPU: for ResNet-20 on an H100 it takes 27 s and saves 0.5 ms of
a recorded step's 2.3 ms. Later trials of the same process reuse the code."""


@dataclass(frozen=True)
class Compilation:
    """A choice and its reason, for the log."""

    wanted: bool
    recorded: bool
    """As a CUDA graph (see training.recording)."""
    reason: str
    kernels: bool = False
    """Normalisation, sum and ReLU in one kernel on a CPU (see training.kernels)."""


def choose_compilation(
    wanted: bool | Literal["auto"], *, device: str, steps: int, obstacle: str | None = None
) -> Compilation:
    """As configured in `wanted`; "auto" depends on the device and on the number of steps of the whole trial, so that a
    resumed trial makes the same choice.

    `obstacle`: why steps must not be recorded or, on a CPU, the network must not be rewritten (see training.recording).
    """
    if wanted is False:
        return Compilation(False, False, "eager, as configured")
    kind = torch.device(device).type
    if kind == "cuda":
        return _choose_on_gpu(wanted is True, steps, obstacle)
    if wanted is True:
        return Compilation(True, False, "compiled, as configured")
    if kind == "cpu":
        return _choose_on_cpu(obstacle)
    return Compilation(False, False, "eager: on this kind of device compiling costs more than it gains")


def _choose_on_gpu(compiled: bool, steps: int, obstacle: str | None) -> Compilation:
    """Recorded if possible. If not, "auto" does not compile either: a step of ResNet-20 took 11.9 ms compiled and
    8.2 ms eager (H100). `compiled`: the user asked for compilation."""
    if obstacle:
        how = "compiled, as configured" if compiled else "eager"
        return Compilation(compiled, False, f"{how}, not recorded: {obstacle}")
    if compiled:
        return Compilation(True, True, "compiled, as configured, and recorded as CUDA graphs")
    if find_spec("triton") is None:
        return Compilation(False, True, "recorded as CUDA graphs: not compiled, since Triton is not installed")
    if steps < MIN_STEPS_TO_COMPILE:
        return Compilation(
            False, True, f"recorded as CUDA graphs: {steps} steps, below {MIN_STEPS_TO_COMPILE} to compile"
        )
    return Compilation(True, True, f"compiled, recorded as CUDA graphs: {steps} steps, at least {MIN_STEPS_TO_COMPILE}")


def _choose_on_cpu(obstacle: str | None) -> Compilation:
    """Never compiled: for ResNet-20 that took 22 s of one core (6 s with the compiler's cache) and saved 0 to 14% of a
    step; for small_cnn 5 to 9 s and 10 to 24% (measured, torch 2.14). Building the kernels takes 2 s, once."""
    try:
        if not obstacle:
            kernels()
    except Unavailable as reason:
        obstacle = str(reason)
    if obstacle:
        return Compilation(False, False, f"eager, normalisation by torch: {obstacle}")
    return Compilation(
        False,
        False,
        "eager; with channels last, normalisation, sum and ReLU by this package's kernel",
        kernels=True,
    )


class Network:
    """A network as training and evaluation call it: with this package's kernels, or compiled for batches of one size
    and eager for all others.

    Every further shape would have to be compiled at the same cost, which does not pay off for a shorter last batch and
    for evaluations. The optimizer's step is not compiled, so a changed learning rate does not cause a recompilation.
    """

    def __init__(self, model: nn.Module, *, batch_size: int, compilation: Compilation) -> None:
        self._model, self._batch_size = model, batch_size
        # static shapes: the code for a batch must not depend on earlier batch sizes; otherwise a resumed trial
        # would run other code than an uninterrupted one
        self._compiled = torch.compile(model, dynamic=False) if compilation.wanted else model
        self._kernels = compilation.kernels

    def for_batch(self, samples: int) -> nn.Module:
        """The network to call for a training batch of this size."""
        if self._kernels:
            return self._training
        network = self._compiled if samples == self._batch_size else self._model
        assert isinstance(network, nn.Module)
        return network

    def for_evaluation(self) -> nn.Module:
        """The network to call for evaluation, in evaluation mode."""
        self._model.eval()
        return self._evaluation if self._kernels else self._model

    # created lazily: trials in slots do not use their own networks

    @cached_property
    def _training(self) -> nn.Module:
        return joined(self._model)

    @cached_property
    def _evaluation(self) -> nn.Module:
        return joined(self._model)
