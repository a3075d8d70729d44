"""What a trial keeps from one epoch to the next: the states of its objects, and all random states, in one file.

Written by torch.save and read with `weights_only`, so that a checkpoint cannot execute anything. In distributed
training, the objects of rank 0 are saved and every rank gets them back; random states are those of each rank.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralr_tune.own import distributed, random_states

FILE = "kept.pt"


class KeptObjects:
    """Objects by name, with their checkpoint."""

    def __init__(self, folder: Path, checkpoint: Path | None) -> None:
        """`checkpoint`: what `save` wrote in an earlier attempt; None at the start, or if the code has its own."""
        self._folder, self._checkpoint = folder, checkpoint
        self._objects: dict[str, Any] = {}
        self._found: dict[str, Any] | None = None
        self._verified = False

    def __bool__(self) -> bool:
        return bool(self._objects)

    def add(self, objects: Mapping[str, Any]) -> None:
        """Keeps these objects as well, and restores them if there is a checkpoint.

        Raises TypeError for an object without a state, ValueError for a checkpoint without one of them.
        """
        for name, each in objects.items():
            _state(name, each)
        if self._checkpoint is not None:
            found = self._loaded()["objects"]
            for name, each in objects.items():
                if name not in found:
                    raise ValueError(f"keep({name}=...): the checkpoint {self._checkpoint} has {', '.join(found)} only")
                _restore(each, found[name])
        self._objects.update(objects)

    def restore_random(self) -> None:
        """Restores the random states of this process, if there is a checkpoint."""
        if self._checkpoint is not None and self._objects:
            states = self._loaded()["random"]
            random_states.restore(states[min(distributed.rank(), len(states) - 1)])

    def save(self) -> Path:
        """Writes the checkpoint atomically, and returns its path. All ranks call it."""
        import torch

        states = distributed.gathered(random_states.states())
        path = self._folder / FILE
        if distributed.rank() == 0:
            content = {"objects": {name: _state(name, each) for name, each in self._objects.items()}, "random": states}
            temporary = path.with_suffix(".tmp")
            torch.save(content, temporary)
            if not self._verified:
                self._verify(temporary)
            temporary.replace(path)
        return path

    def _loaded(self) -> dict[str, Any]:
        if self._found is None:
            assert self._checkpoint is not None
            self._found = _read(self._checkpoint)
        return self._found

    def _verify(self, path: Path) -> None:
        """Once a trial, so that a state which cannot be read again is found in the first epoch, not at a resume."""
        try:
            _read(path)
        except Exception as error:
            raise TypeError(
                f"keep({', '.join(f'{name}=...' for name in self._objects)}): one of the states cannot be read back "
                f"without executing code: {error}; states may hold tensors, NumPy arrays and Python's own types"
            ) from error
        self._verified = True


def _read(path: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    functions: list[Any] = [
        np.zeros(1).__reduce__()[0],
        np.float64(0).__reduce__()[0],
    ]  # their modules differ by release
    types = {type(np.dtype(code)) for code in np.typecodes["All"]}
    with torch.serialization.safe_globals([np.ndarray, np.dtype, *functions, *types]):
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def _state(name: str, each: Any) -> Any:
    """The state of one object. Raises TypeError if it has none."""
    if hasattr(each, "state_dict") and hasattr(each, "load_state_dict"):
        return each.state_dict()
    if hasattr(each, "bit_generator"):  # a numpy.random.Generator
        return each.bit_generator.state
    if isinstance(each, random.Random):
        version, words, gauss = each.getstate()
        return [version, list(words), gauss]
    if hasattr(each, "get_state") and hasattr(each, "set_state"):  # a torch.Generator
        return each.get_state()
    raise TypeError(f"keep({name}={type(each).__name__}): has no state; allowed: objects with state_dict, generators")


def _restore(each: Any, state: Any) -> None:
    if hasattr(each, "load_state_dict"):
        each.load_state_dict(state)
    elif hasattr(each, "bit_generator"):
        each.bit_generator.state = state
    elif isinstance(each, random.Random):
        version, words, gauss = state
        each.setstate((version, tuple(words), gauss))
    else:
        each.set_state(state)
