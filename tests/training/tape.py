"""Imitates a CUDA graph on a CPU: replays operations with the same tensors as during recording.

It does not read Python variables again, which may by then refer to other tensors or have other values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Operations in order, each with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        """The tensors that existed before, with their original values."""
        self._made: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, Tensor) and id(one) not in self._made | self._before.keys():
                self._before[id(one)] = one, one.clone()
        result = operation(*args, **kwargs)
        given = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        self._made |= {id(one) for one in given}
        self._operations.append((operation, args, kwargs, given))
        return result

    def rewind(self) -> None:
        """Restores all tensors that existed before."""
        for tensor, numbers in self._before.values():
            tensor.copy_(numbers)

    @torch.no_grad()
    def play(self) -> None:
        for operation, args, kwargs, given in self._operations:
            again = [one for one in tree_leaves(operation(*args, **kwargs)) if isinstance(one, Tensor)]
            for old, new in zip(given, again, strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(
    work: Callable[[], Tensor], stream: object, generators: Sequence[Generator]
) -> tuple[Tensor, Callable[[], object]]:
    """Like recording.record; it does not compute either."""
    states, own = [each.get_state() for each in generators], torch.get_rng_state()
    with Tape() as tape:
        output = work()
    with torch.no_grad():
        tape.rewind()
    torch.set_rng_state(own)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return output, tape.play
