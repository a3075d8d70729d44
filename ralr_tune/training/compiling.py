"""Whether steps are compiled, or recorded as CUDA graphs, and what of a network's work then is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

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


def choose_compilation(wanted: bool | Literal["auto"], *, device: str, steps: int) -> Compilation:
    """`wanted` as asked; "auto" by device and number of steps of the whole trial, so that a resumed one chooses alike.

    On a GPU steps are recorded unless `wanted` is False. On a CPU "auto" never compiles: ResNet-20 was 0 to 5% faster
    per epoch and took 22 s of a core to compile (6 s from the compiler's own cache), small_cnn on 8x8 images 10 to 15%
    and 5 s (1 s), which are 1,000 of its epochs (measured, torch 2.14).
    """
    cuda = torch.device(device).type == "cuda"
    if wanted != "auto":
        return Compilation(wanted, cuda and wanted, "compiled, as asked" if wanted else "eager, as asked")
    if not cuda:
        return Compilation(False, False, "eager: on this kind of device compiling costs more than it gives")
    if find_spec("triton") is None:
        return Compilation(False, True, "recorded as CUDA graphs: there is no Triton to compile with")
    if steps < WORTHWHILE_STEPS:
        return Compilation(False, True, f"recorded as CUDA graphs: {steps} steps, below {WORTHWHILE_STEPS} to compile")
    return Compilation(True, True, f"compiled, recorded as CUDA graphs: {steps} steps, at least {WORTHWHILE_STEPS}")


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
