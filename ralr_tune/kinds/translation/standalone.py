"""Parallel text in an exported script: the same pairs and pieces as in the task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ralr_tune.kinds.translation.corpus import read_all
from ralr_tune.kinds.translation.encoded import EncodedSplit
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.kinds.translation.section import TextData
from ralr_tune.kinds.translation.vocabulary import Vocabulary, read_vocabulary, train_vocabulary


@dataclass(frozen=True)
class EncodedText:
    """The training pairs include the validation pairs."""

    vocabulary: Vocabulary
    train: EncodedSplit
    test: EncodedSplit


def load_text(
    data: TextData, languages: tuple[str, str], *, study_seed: int, size: int | None = None, model: str | None = None
) -> EncodedText:
    """All pairs in pieces of the vocabulary file `model`, or of one of `size` pieces, trained on the train split alone.

    `study_seed` draws the training pairs if there is a limit. Raises DataError."""
    corpora = read_all(data, languages, seed=study_seed)
    train, validation, test = (corpora[split].pairs for split in ("train", "validation", "test"))
    words = read_vocabulary(Path(model)) if model is not None else train_vocabulary(train, size or 0)
    both = Pairs([*train.sources, *validation.sources], [*train.targets, *validation.targets], train.origin)
    return EncodedText(words, EncodedSplit.of(both, words), EncodedSplit.of(test, words))
