"""A trial of the translation task: greedy translations in the search, beam search where it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.kinds.translation.shown import kept_examples
from ralr_tune.kinds.translation.task import TranslationTask
from ralr_tune.tasks.base import Split
from ralr_tune.tasks.trial import TrainingSplit, TrialStage
from ralr_tune.training.loop import TorchTrial

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration


class TranslationTrial(TorchTrial):
    """A TorchTrial whose translations depend on what it is for.

    In the search they are greedy, which is quick and orders configurations well. Elsewhere, those of the last epoch and
    everything that is evaluated after it come from beam search.
    """

    def __init__(
        self,
        task: TranslationTask,
        configuration: Configuration,
        *,
        stage: TrialStage,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> None:
        super().__init__(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)
        self._text, self._judged_by_text = task, stage != "search" and task.metric.name != "loss"
        self._outputs: list[str] | None = None
        """Of the validation split, after the last epoch."""

    def measure(self, split: Split, epoch: int) -> Mapping[str, float]:
        if not self._beam_after(epoch):
            return super().measure(split, epoch)
        loss = self.in_batches(split, self._loss)
        outputs = self.in_batches(split, self._translations)
        self._outputs = outputs if split == "validation" else None
        return {"loss": loss, **self._text.scores(split, outputs)}

    def evaluate_unaveraged(self, split: Split, epoch: int) -> float:
        if not self._beam_after(epoch):
            return super().evaluate_unaveraged(split, epoch)
        return self._text.score(split, self.in_batches(split, partial(self._translations, averaged=False)))

    def _beam_after(self, epoch: int) -> bool:
        """Whether the scores after this epoch (0-based) are those of beam search."""
        return self._judged_by_text and epoch + 1 >= self.configuration.training.epochs

    def evaluate(self, split: Split) -> float:
        if not self._judged_by_text:
            return super().evaluate(split)
        return self._text.score(split, self.in_batches(split, self._translations))

    def evaluate_all(self, split: Split) -> Mapping[str, float]:
        if not self._judged_by_text:
            return super().evaluate_all(split)
        outputs = self.in_batches(split, self._translations)
        return {"loss": self.in_batches(split, self._loss), **self._text.scores(split, outputs)}

    def examples(self) -> Mapping[str, Any] | None:
        """The translations of the validation split (see shown.py); None if the network's outputs are not finite."""
        outputs = self._outputs or self.in_batches("validation", self._translations)
        pairs = self._text.split("validation").pairs
        return None if outputs is None else kept_examples(pairs, outputs, self._text.rules.scorer)

    def _loss(self, split: Split, batch_size: int) -> float:
        return self._text.mean_loss(self.state.judged, split, batch_size=batch_size, autocast=self._autocast)

    def _translations(self, split: Split, batch_size: int, *, averaged: bool = True) -> list[str] | None:
        model, beam = self.state.judged if averaged else self.state.model, self._text.rules.beam
        return self._text.translations(model, split, beam, batch_size=batch_size, autocast=self._autocast)

    def _autocast(self) -> AbstractContextManager[object]:
        return self.state.precision.autocast(self.task.device)
