"""Batches by tokens: pairs of similar length together, in a new order in every epoch.

A batch of at most `tokens` tokens has n pairs whose longest side has l pieces, with n * l <= tokens. Pairs are sorted
by their length plus a random part of it, drawn for each (seed, epoch), and cut in that order; then the order of the
batches is drawn. So the number of batches may differ between epochs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import tensor_signature

JITTER = 0.1
"""Largest random part of a length when pairs are sorted (our choice): without it, pairs would always meet the same
ones, with more of it batches would hold more padding."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """All sentences of one language of a split, as pieces."""

    pieces: NDArray[np.int32]
    """One after the other."""
    starts: Ints
    """(sentences + 1,): where each begins."""

    @classmethod
    def of(cls, lines: Sequence[NDArray[np.int32]]) -> Side:
        lengths = np.array([len(line) for line in lines], dtype=np.int64)
        return cls(np.concatenate([*lines, np.zeros(0, np.int32)]), np.concatenate([[0], np.cumsum(lengths)]))

    @cached_property
    def lengths(self) -> Ints:
        """(sentences,): pieces of each."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def padded(self, rows: Ints, pad: int) -> NDArray[np.int64]:
        """(rows, longest of them)."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=0))
        inside = columns < lengths[:, None]
        places = np.where(inside, self.starts[rows][:, None] + columns, 0)
        return np.where(inside, self.pieces[places] if len(self.pieces) else 0, pad).astype(np.int64)


@dataclass(frozen=True)
class TranslationBatch:
    """A Batch (see tasks.base): pieces of the sources (N, S) and of the targets (N, T), int64, padded on the right.

    Sources end with the end piece; targets begin with the begin piece and end with the end piece.
    """

    sources: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    """Pieces of each target without its first: those that the loss counts."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def weight(self) -> float:
        """Pieces that are predicted, without padding."""
        return sum(self.lengths)

    @property
    def signature(self) -> Hashable:
        return tensor_signature(self.sources, self.targets)

    def real_places(self) -> Ints:
        """The places of the pieces that are predicted among the N * (T - 1), row after row, (weight,)."""
        columns = np.arange(self.targets.shape[1] - 1)
        return np.flatnonzero(columns < np.array(self.lengths)[:, None])

    def split(self, parts: int) -> list[TranslationBatch]:
        pieces = zip(self.sources.tensor_split(parts), self.targets.tensor_split(parts), strict=True)
        found, first = [], 0
        for sources, targets in pieces:
            found.append(TranslationBatch(sources, targets, self.lengths[first : first + len(sources)]))
            first += len(sources)
        return found

    def clone(self) -> TranslationBatch:
        return TranslationBatch(self.sources.clone(), self.targets.clone(), self.lengths)

    def take(self, other: Any) -> None:
        self.sources.copy_(other.sources)
        self.targets.copy_(other.targets)


@dataclass(frozen=True)
class Accumulated:
    """Several batches whose gradients are added up for one step (see tasks.base.AccumulatedBatch)."""

    parts: Sequence[TranslationBatch]

    def accumulated(self) -> Sequence[TranslationBatch]:
        return self.parts

    def __len__(self) -> int:
        return max(map(len, self.parts))

    @property
    def weight(self) -> float:
        return sum(part.weight for part in self.parts)

    @property
    def signature(self) -> Hashable:
        return tuple(part.signature for part in self.parts)

    def split(self, parts: int) -> list[TranslationBatch]:
        """Never needed: the parts of `accumulated` are split instead."""
        return [piece for part in self.parts for piece in part.split(parts)]

    def clone(self) -> Accumulated:
        return Accumulated([part.clone() for part in self.parts])

    def take(self, other: Any) -> None:
        for own, new in zip(self.parts, other.parts, strict=True):
            own.take(new)


def epoch_rows(lengths: Ints, tokens: int, *, seed: int, epoch: int) -> list[Ints]:
    """The rows of each batch of an epoch; `lengths`: of the longer side of each pair, special pieces included."""
    generator = np.random.Generator(np.random.PCG64(derive_seed("order", seed, epoch)))
    shuffled = generator.permutation(len(lengths))
    noisy = lengths[shuffled] * (1 + JITTER * generator.random(len(lengths)))
    batches = cut_by_tokens(shuffled[np.argsort(noisy, kind="stable")], lengths, tokens)
    return [batches[place] for place in generator.permutation(len(batches))]


def cut_by_tokens(order: Ints, lengths: Ints, tokens: int) -> list[Ints]:
    """Consecutive rows of `order`, as many as fit; a pair that alone has more than `tokens` is a batch of its own."""
    ordered, found, first = lengths[order], [], 0
    while first < len(order):
        window = ordered[first : first + max(1, tokens // max(1, int(ordered[first])) + 1)]
        padded = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        count = max(1, int(np.searchsorted(padded, tokens, side="right")))
        found.append(order[first : first + count])
        first += count
    return found


def grouped(batches: Sequence[Ints], size: int) -> Iterator[Sequence[Ints]]:
    """`size` batches for each step; the last step may have fewer."""
    return (batches[first : first + size] for first in range(0, len(batches), size))


def to_device(array: NDArray[np.int64], device: str) -> Tensor:
    """From pinned memory, a GPU copies while the CPU gathers the next batch."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
