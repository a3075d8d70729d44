"""Batches of tensors with one row per sample; this determines everything that `Batch` requires."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, Self

from torch import Tensor

from ralr_tune.tasks.base import tensor_signature


@dataclass(frozen=True)
class TensorBatch:
    """A Batch (see tasks.base). A subclass is a frozen dataclass whose fields are tensors (N, ...) on one device."""

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def __len__(self) -> int:
        return len(self._tensors()[0])

    @property
    def weight(self) -> float:
        """Samples: the loss is their mean."""
        return len(self)

    @property
    def signature(self) -> Hashable:
        return tensor_signature(*self._tensors())

    def split(self, parts: int) -> list[Self]:
        """In order; their lengths differ by at most one."""
        pieces = zip(*(tensor.tensor_split(parts) for tensor in self._tensors()), strict=True)
        return [type(self)(*piece) for piece in pieces]

    def clone(self) -> Self:
        return type(self)(*(tensor.clone() for tensor in self._tensors()))

    def take(self, other: Any) -> None:
        for own, new in zip(self._tensors(), other._tensors(), strict=True):
            own.copy_(new)
