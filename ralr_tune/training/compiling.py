"""Whether a network is compiled, and what of its work then is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

WORTHWHILE_STEPS = 10_000
"""Steps of a trial from which on a GPU's compilation pays (ours, not measured on one): about a minute against a few
milliseconds a step. Later trials of the same process use the code again."""


@dataclass(frozen=True)
class Compilation:
    """A choice and its reason, for the log."""

    wanted: bool
    reason: str


def choose_compilation(wanted: bool | Literal["auto"], *, device: str, steps: int) -> Compilation:
    """`wanted` as asked; "auto" by device and number of steps of the whole trial, so that a resumed one chooses alike.

    On a CPU never: ResNet-20 was 0 to 5% faster per epoch and took 22 s of a core to compile (6 s from the compiler's
    own cache), small_cnn on 8x8 images 10 to 15% and 5 s (1 s), which are 1,000 of its epochs (measured, torch 2.14).
    """
    if wanted != "auto":
        return Compilation(wanted, "as asked")
    if torch.device(device).type != "cuda":
        return Compilation(False, "eager: on this kind of device compiling costs more than it gives")
    if find_spec("triton") is None:
        return Compilation(False, "eager: there is no Triton to compile with")
    if steps < WORTHWHILE_STEPS:
        return Compilation(False, f"eager: {steps} steps are too few, below {WORTHWHILE_STEPS}")
    return Compilation(True, f"compiled: {steps} steps, at least {WORTHWHILE_STEPS}")


class Network:
    """A network as the steps of training call it: compiled for batches of one size, and as it is for all others.

    Every shape would be compiled anew, at the cost of the first; a shorter last batch and evaluations are not worth it.
    The optimizer's step is not in the code, so a rate that changes recompiles nothing.
    """

    def __init__(self, model: nn.Module, *, batch_size: int, compilation: Compilation) -> None:
        self._model, self._batch_size = model, batch_size
        # static shapes: the code for a batch must not depend on which sizes were seen before it, or a resumed trial
        # would compute with other code than an uninterrupted one
        self._compiled = torch.compile(model, dynamic=False) if compilation.wanted else model

    def taking(self, samples: int) -> nn.Module:
        """What a batch of so many samples goes through."""
        network = self._compiled if samples == self._batch_size else self._model
        assert isinstance(network, nn.Module)
        return network
