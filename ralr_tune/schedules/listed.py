"""Factors that were drawn elsewhere, around any scheduler of torch or timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from ralr_tune.schedules.scheduler import RandomAmplifyLR
from ralr_tune.schedules.wrapper.draws import ListedFactors


class ListedAmplifyLR(RandomAmplifyLR):
    """Like RandomAmplifyLR, with the factor of every step given: those of a study's trial.

    After the last one, the factor is 1.
    """

    def __init__(self, optimizer: Optimizer, base_scheduler: Any = None, *, factors: Sequence[float]) -> None:
        self._wrap(optimizer, base_scheduler, ListedFactors(tuple(factors)), last_epoch=-1)

    _drawn = ()

    def _draws_of(self, state: Mapping[str, Any]) -> ListedFactors:
        """This trial's own: they do not change at a resume."""
        assert isinstance(self._draws, ListedFactors)
        return self._draws

    def __repr__(self) -> str:
        base = type(self.base_scheduler).__name__
        return f"ListedAmplifyLR({base}, last_epoch={self.last_epoch}, factor={self.factor:.6g})"
