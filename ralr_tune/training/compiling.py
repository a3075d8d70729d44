"""Whether steps are compiled, or recorded as CUDA graphs, and what of a network's work then is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

from ralr_tune.training.kernels.joining import joined
from ralr_tune.training.kernels.library import Unavailable, kernels

WORTHWHILE_STEPS = 60_000
"""Steps of a trial from which on compilation pays on a GPU: 27 s for ResNet-20 on an H100, against 0.5 ms of a recorded
step of 2.3. Later trials of the same process use the code again."""


@dataclass(frozen=True)
class Compilation:
    """A choice and its reason, for the log."""

    wanted: bool
    recorded: bool
    """As a CUDA graph (see training.recording)."""
    reason: str
    kernels: bool = False
    """Normalisation, sum and ReLU as one (see training.kernels), on a CPU."""


def choose_compilation(
    wanted: bool | Literal["auto"], *, device: str, steps: int, obstacle: str | None = None
) -> Compilation:
    """`wanted` as asked; "auto" by device and number of steps of the whole trial, so that a resumed one chooses alike.

    `obstacle`: why steps must not be recorded or, on a CPU, the network not be taken apart (see training.recording).
    """
    if wanted is False:
        return Compilation(False, False, "eager, as asked")
    kind = torch.device(device).type
    if kind == "cuda":
        return _on_a_gpu(wanted is True, steps, obstacle)
    if wanted is True:
        return Compilation(True, False, "compiled, as asked")
    if kind == "cpu":
        return _on_a_cpu(obstacle)
    return Compilation(False, False, "eager: on this kind of device compiling costs more than it gives")


def _on_a_gpu(asked: bool, steps: int, obstacle: str | None) -> Compilation:
    """Recorded where that can be. What is not, "auto" does not compile either: a step of ResNet-20 took 11.9 ms
    compiled and 8.2 as it is (an H100)."""
    if obstacle:
        return Compilation(asked, False, f"{'compiled, as asked' if asked else 'eager'}, not recorded: {obstacle}")
    if asked:
        return Compilation(True, True, "compiled, as asked, and recorded as CUDA graphs")
    if find_spec("triton") is None:
        return Compilation(False, True, "recorded as CUDA graphs: there is no Triton to compile with")
    if steps < WORTHWHILE_STEPS:
        return Compilation(False, True, f"recorded as CUDA graphs: {steps} steps, below {WORTHWHILE_STEPS} to compile")
    return Compilation(True, True, f"compiled, recorded as CUDA graphs: {steps} steps, at least {WORTHWHILE_STEPS}")


def _on_a_cpu(obstacle: str | None) -> Compilation:
    """Never compiled: ResNet-20 took 22 s of a core for it (6 s from the compiler's own cache) and gained 0 to 14% a
    step, small_cnn 5 to 9 s and 10 to 24% (measured, torch 2.14). Our own kernels take 2 s, once."""
    try:
        if not obstacle:
            kernels()
    except Unavailable as reason:
        obstacle = str(reason)
    if obstacle:
        return Compilation(False, False, f"eager, normalisation as torch has it: {obstacle}")
    return Compilation(
        False,
        False,
        "eager, where channels come last normalisation with its sum and ReLU by a kernel of ours",
        kernels=True,
    )


class Network:
    """A network as training and evaluation call it: by our kernels, or compiled for batches of one size, and as it is
    for all others.

    Every shape would be compiled anew, at the cost of the first; a shorter last batch and evaluations are not worth it.
    The optimizer's step is not in the code, so a rate that changes recompiles nothing.
    """

    def __init__(self, model: nn.Module, *, batch_size: int, compilation: Compilation) -> None:
        self._model, self._batch_size = model, batch_size
        # static shapes: the code for a batch must not depend on which sizes were seen before it, or a resumed trial
        # would compute with other code than an uninterrupted one
        self._compiled = torch.compile(model, dynamic=False) if compilation.wanted else model
        self._kernels = compilation.kernels

    def taking(self, samples: int) -> nn.Module:
        """What a batch of so many samples goes through."""
        if self._kernels:
            return self._training
        network = self._compiled if samples == self._batch_size else self._model
        assert isinstance(network, nn.Module)
        return network

    def evaluating(self) -> nn.Module:
        """What an evaluation goes through, in evaluation mode."""
        self._model.eval()
        return self._evaluation if self._kernels else self._model

    # not made before they are needed: trials in slots train by none of their own

    @cached_property
    def _training(self) -> nn.Module:
        return joined(self._model)

    @cached_property
    def _evaluation(self) -> nn.Module:
        return joined(self._model)
