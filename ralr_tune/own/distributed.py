"""Several processes that train one trial, as torchrun starts them: rank 0 talks to the study for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def rank() -> int:
    """0 in a process that trains alone. Raises RuntimeError in one of several that do not know each other yet."""
    if group := _group():
        return int(group.get_rank())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']}: one of several processes; call "
            "torch.distributed.init_process_group() before the trial is used"
        )
    return 0


def by_rank_0(action: Callable[[], T]) -> T:
    """What `action` returns, or raises, in rank 0, in every rank; the others do not call it."""
    group = _group()
    if rank() == 0:
        try:
            outcome: tuple[Any, Exception | None] = (action(), None)
        except Exception as error:
            outcome = (None, error)
    else:
        outcome = (None, None)
    if group:
        shared = [outcome]
        group.broadcast_object_list(shared, src=0)
        outcome = shared[0]
    value, failure = outcome
    if failure is not None:
        raise failure
    found: T = value
    return found


def gathered(own: T) -> list[T]:
    """The values of all ranks, in rank 0; elsewhere only this process's own."""
    group = _group()
    if group is None:
        return [own]
    found: list[Any] | None = [None] * group.get_world_size() if rank() == 0 else None
    group.gather_object(own, found, dst=0)
    return [own] if found is None else found


def _group() -> Any:
    """torch.distributed if a process group is initialized; None if torch is not even imported."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed
