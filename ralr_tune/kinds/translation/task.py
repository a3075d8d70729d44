"""Translation as a TorchTask: pieces stay in memory, batches are padded and moved to the device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.errors import DataError
from ralr_tune.kinds.translation.batches import (
    Accumulated,
    Ints,
    TranslationBatch,
    cut_by_tokens,
    epoch_rows,
    grouped,
)
from ralr_tune.kinds.translation.corpus import digest_of
from ralr_tune.kinds.translation.decoding import GREEDY
from ralr_tune.kinds.translation.encoded import EncodedSplit, hypotheses_at_once, search_of, summed_loss, translations
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.kinds.translation.options import TranslationOptions
from ralr_tune.kinds.translation.scores import Scorer
from ralr_tune.kinds.translation.translator import Translator
from ralr_tune.kinds.translation.vocabulary import Vocabulary
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Autocast, Batch, Capabilities, Split

LOSS_TOKENS = 12
"""Tokens at once when the loss is computed, for each hypothesis at once when sentences are translated (our choice): the
logits of all of them are in memory together."""
PLAIN = TranslationOptions()


@dataclass(frozen=True)
class Rules:
    """How batches are combined, and translations made and scored."""

    accumulate: int
    """Batches whose gradients are added up for one step of the optimizer."""
    scorer: Scorer
    beam: int
    penalty: float


class TranslationTask:
    """The TorchTask of parallel text (see tasks.base). `batch_size` counts tokens (see batches.py)."""

    capabilities = Capabilities(measures=True, matrix_products=True)
    input_shape: tuple[int, ...] = ()

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        read_test: Callable[[], Pairs],
        *,
        vocabulary: Vocabulary,
        build: Callable[[int, int], Translator],
        rules: Rules,
        metric: Metric,
        seed: int,
        device: str,
        identity: str,
        origin: object = None,
        inventory: Inventory | None = None,
    ) -> None:
        """`pairs`: of train and validation. `build`: the network from the number of pieces and the id of padding, with
        weights from torch's global generator. `origin`: tasks with equal origins can share data."""
        self.metric, self.device, self.identity, self.origin = metric, device, identity, origin
        self.vocabulary, self.rules, self.inventory = vocabulary, rules, inventory
        self._build, self._read_test, self._seed = build, read_test, seed
        self._splits = {split: EncodedSplit.of(some, vocabulary) for split, some in pairs.items()}

    def with_network(self, build: Callable[[int, int], Translator], identity: str, rules: Rules) -> TranslationTask:
        """A task with another network that shares the data of this one."""
        other = copy.copy(self)
        other._build, other.identity, other.rules = build, identity, rules
        return other

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("init", seed))
            return self._build(self.vocabulary.size, self.vocabulary.pad)

    def size(self, split: Split) -> int:
        return len(self.split(split))

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        batches = epoch_rows(self.split(split).lengths, batch_size, seed=seed, epoch=epoch)
        return -(-len(batches) // self.rules.accumulate)

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable = PLAIN
    ) -> Iterator[TranslationBatch | Accumulated]:
        accumulate = self.rules.accumulate
        rows = epoch_rows(self.split(split).lengths, batch_size, seed=seed, epoch=epoch)
        for some in grouped(rows, accumulate):
            parts = [self._batch(split, each) for each in some]
            yield parts[0] if accumulate == 1 else Accumulated(parts)

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable = PLAIN) -> Tensor:
        batch, smoothing = cast(TranslationBatch, batch), _checked(options).label_smoothing
        return summed_loss(cast(Translator, model), batch, smoothing) / batch.weight

    @property
    def evaluation_batch(self) -> int:
        return hypotheses_at_once(self.device)

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric (see metrics.py), of greedy translations. Leaves the model in evaluation mode."""
        if self.metric.name == "loss":
            return self.mean_loss(model, split, batch_size=batch_size, autocast=autocast)
        outputs = self.translations(model, split, GREEDY, batch_size=batch_size, autocast=autocast)
        return self.score(split, outputs)

    def measure(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> Mapping[str, float]:
        """The loss and, unless it is the metric, BLEU and chrF of greedy translations."""
        loss = self.mean_loss(model, split, batch_size=batch_size, autocast=autocast)
        if self.metric.name == "loss":
            return {"loss": loss}
        outputs = None
        if math.isfinite(loss):
            outputs = self.translations(model, split, GREEDY, batch_size=batch_size, autocast=autocast)
        return {"loss": loss, **self.scores(split, outputs)}

    @torch.no_grad()
    def mean_loss(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """Per piece, without label smoothing; NaN if it is not finite."""
        model.eval()
        some, autocast = self.split(split), autocast or nullcontext
        total, weight = torch.zeros((), device=self.device, dtype=torch.float64), 0.0
        tokens = LOSS_TOKENS * (batch_size or self.evaluation_batch)
        for rows in cut_by_tokens(np.argsort(some.lengths, kind="stable"), some.lengths, tokens):
            batch = self._batch(split, rows)
            with autocast():
                total += summed_loss(cast(Translator, model), batch, 0.0)
            weight += batch.weight
        mean = total.item() / weight
        return mean if math.isfinite(mean) else math.nan

    def translations(
        self,
        model: nn.Module,
        split: Split,
        beam: int,
        *,
        batch_size: int | None = None,
        autocast: Autocast | None = None,
    ) -> list[str] | None:
        """A translation of every source of the split, in order; None if the network's outputs are not finite."""
        return translations(
            cast(Translator, model.eval()),
            self.split(split),
            self.vocabulary,
            search_of(self.vocabulary, beam=beam, penalty=self.rules.penalty),
            hypotheses=batch_size or self.evaluation_batch,
            device=self.device,
            autocast=autocast or nullcontext,
        )

    def score(self, split: Split, outputs: Sequence[str] | None) -> float:
        """The metric of translations of the whole split, which is BLEU or chrF; NaN without translations."""
        return self.scores(split, outputs)[self.metric.name]

    def scores(self, split: Split, outputs: Sequence[str] | None) -> dict[str, float]:
        if outputs is None:
            return {"bleu": math.nan, "chrf": math.nan}
        return self.rules.scorer.scores(outputs, self.split(split).pairs.targets)

    def split(self, split: Split) -> EncodedSplit:
        """The pairs of a split; test data are read when they are first asked for."""
        if split not in self._splits:
            self._splits[split] = EncodedSplit.of(self._pairs(split), self.vocabulary)
        return self._splits[split]

    def _pairs(self, split: Split) -> Pairs:
        if split == "test":
            return self._test()
        train, validation = (self._splits[name].pairs for name in ("train", "validation"))
        if split == "train+validation":
            sources, targets = [*train.sources, *validation.sources], [*train.targets, *validation.targets]
            return Pairs(sources, targets, f"{train.origin} and {validation.origin}")
        generator = np.random.Generator(np.random.PCG64(derive_seed("probe", self._seed)))
        return train.take(np.sort(generator.permutation(len(train))[: len(validation)]).tolist())

    def _test(self) -> Pairs:
        pairs = self._read_test()
        known = {split.name: split.digest for split in self.inventory.splits} if self.inventory else {}
        if known.get("test", digest_of(pairs)) != digest_of(pairs):
            raise DataError(f"{pairs.origin}: the test pairs changed since this process verified them")
        return pairs

    def _batch(self, split: Split, rows: Ints) -> TranslationBatch:
        return self.split(split).batch(rows, pad=self.vocabulary.pad, device=self.device)


def _checked(options: Hashable) -> TranslationOptions:
    assert isinstance(options, TranslationOptions), options
    return options
