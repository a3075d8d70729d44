"""Text as pieces, and what is done with it: batches, their loss, and translations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ralr_tune.kinds.translation.batches import Ints, Side, TranslationBatch, to_device
from ralr_tune.kinds.translation.decoding import Search, translate
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.kinds.translation.translator import Translator
from ralr_tune.kinds.translation.vocabulary import Vocabulary


@dataclass(frozen=True)
class EncodedSplit:
    """The pairs of a split as text and as pieces."""

    pairs: Pairs
    sources: Side
    """With the end piece."""
    targets: Side
    """With the begin and the end piece."""

    @classmethod
    def of(cls, pairs: Pairs, vocabulary: Vocabulary) -> EncodedSplit:
        begin, end = ([np.int32(piece)] for piece in (vocabulary.begin, vocabulary.end))
        sources = [np.concatenate([line, end]) for line in vocabulary.encode(pairs.sources)]
        targets = [np.concatenate([begin, line, end]) for line in vocabulary.encode(pairs.targets)]
        return cls(pairs, Side.of(sources), Side.of(targets))

    @cached_property
    def lengths(self) -> Ints:
        """(pairs,): pieces of the longer side of each that a batch counts."""
        return np.maximum(self.sources.lengths, self.targets.lengths - 1)

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, rows: Ints, *, pad: int, device: str) -> TranslationBatch:
        """The pairs of these rows, padded."""
        return TranslationBatch(
            to_device(self.sources.padded(rows, pad), device),
            to_device(self.targets.padded(rows, pad), device),
            tuple((self.targets.lengths[rows] - 1).tolist()),
        )


def summed_loss(model: Translator, batch: TranslationBatch, smoothing: float) -> Tensor:
    """The cross-entropy of all real pieces of the targets, float32, in nats; `smoothing`: of the labels.

    Logits are computed of real pieces only: they are most of the work.
    """
    states = model.states(model.encode(batch.sources), batch.targets[:, :-1]).flatten(0, 1)
    real = to_device(batch.real_places(), str(states.device))
    logits = model.logits(states.index_select(0, real)).float()
    wanted = batch.targets[:, 1:].flatten().index_select(0, real)
    return F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="sum")


def hypotheses_at_once(device: str) -> int:
    """Hypotheses that are extended together by default: sentences in greedy decoding."""
    return 512 if torch.device(device).type == "cuda" else 256


def search_of(vocabulary: Vocabulary, *, beam: int, penalty: float) -> Search:
    """How to translate with the special pieces of this vocabulary."""
    return Search(beam, penalty, vocabulary.begin, vocabulary.end, vocabulary.pad)


def translations(
    model: Translator,
    split: EncodedSplit,
    vocabulary: Vocabulary,
    search: Search,
    *,
    hypotheses: int,
    device: str,
    autocast: Callable[[], AbstractContextManager[object]],
) -> list[str] | None:
    """A translation of every source of the split, in order; None if the network's outputs are not finite.

    `hypotheses`: how many are extended at once. The model must be in evaluation mode.
    """
    size = max(1, hypotheses // search.beam)
    found: dict[int, list[int]] = {}
    order = np.argsort(split.sources.lengths, kind="stable")
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        pieces = translate(model, to_device(split.sources.padded(rows, search.pad), device), search, autocast)
        if pieces is None:
            return None
        found.update(zip(rows.tolist(), pieces, strict=True))
    return vocabulary.decode([found[row] for row in range(len(order))])
