"""The pieces of the text: a joint byte-pair encoding, trained on the train split alone, or an existing model.

The trained model is the same to the byte on every machine: one thread, no sampling, no shuffling, and no normalisation
of sentencepiece's own (files.py normalises). Its digest is part of the task's identity.

vocabulary-HASH.model    one for each training text and size, which all workers of an out folder share
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError, UsageError
from ralr_tune.invocation import install
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.machine.files import write
from ralr_tune.machine.locks import locked

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

logger = logging.getLogger(__name__)

PAD, UNKNOWN, BEGIN, END = range(4)
"""Ids of the special pieces of a trained model. An existing one may have others."""
SPECIAL = {"pad_id": PAD, "unk_id": UNKNOWN, "bos_id": BEGIN, "eos_id": END}
TRAINING: dict[str, Any] = {
    "model_type": "bpe",
    "num_threads": 1,
    "input_sentence_size": 0,  # all sentences: otherwise it draws some, seeded by the machine
    "shuffle_input_sentence": False,
    "normalization_rule_name": "identity",
    "character_coverage": 1.0,
    "max_sentence_length": 2**20,  # longer ones would be left out silently
    "minloglevel": 2,
    **SPECIAL,
}
"""Options of sentencepiece's trainer, apart from the size."""

NEEDS = 'task.kind = "translation": needs sentencepiece and sacrebleu; type: '


@dataclass(frozen=True)
class Vocabulary:
    """A sentencepiece model."""

    model: bytes

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        """Raises RuntimeError if the bytes are not a model."""
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self.model)

    @property
    def size(self) -> int:
        """Number of pieces; one more than the model's if that has none for padding."""
        return int(self.processor.get_piece_size()) + (self.processor.pad_id() < 0)

    @property
    def pad(self) -> int:
        found = int(self.processor.pad_id())
        return found if found >= 0 else self.size - 1

    @property
    def begin(self) -> int:
        return int(self.processor.bos_id())

    @property
    def end(self) -> int:
        return int(self.processor.eos_id())

    def encode(self, lines: Sequence[str]) -> list[NDArray[np.int32]]:
        """The pieces of each line, without special ones."""
        found = self.processor.encode(list(lines), num_threads=1)
        return [np.asarray(pieces, dtype=np.int32) for pieces in found]

    def decode(self, pieces: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sentence, on one line: an existing model may have a piece for the byte of a line feed."""
        limit = int(self.processor.get_piece_size())
        lines = (self.processor.decode([piece for piece in line if piece < limit]) for line in pieces)
        return [str(line).replace("\n", " ") for line in lines]


def check_installed() -> None:
    """Raises UsageError if the packages for translation are missing."""
    try:
        import sacrebleu  # noqa: F401
        import sentencepiece  # noqa: F401
    except ImportError:
        raise UsageError(NEEDS + install("translation")) from None


def read_vocabulary(path: Path) -> Vocabulary:
    """An existing model. Raises DataError if it cannot be read or lacks pieces that translation needs."""
    name = f"task.vocabulary.model = {str(path)!r}"
    try:
        found = Vocabulary(path.expanduser().read_bytes())
        size = found.processor.get_piece_size() if found.model else 0
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error
    except RuntimeError:  # its message names a line of sentencepiece's source
        size = 0
    if not size:
        raise DataError(f"{name}: not a sentencepiece model")
    if min(found.begin, found.end) < 0:
        raise DataError(f"{name}: has no piece for the beginning or the end of a sentence")
    return found


def train_vocabulary(pairs: Pairs, size: int) -> Vocabulary:
    """The model of both sides of this text, of `size` pieces. Raises DataError if the text is too small for them."""
    import sentencepiece

    model = io.BytesIO()
    lines = iter([*pairs.sources, *pairs.targets])
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, vocab_size=size, **TRAINING
        )
    except RuntimeError as error:
        raise DataError(f"task.vocabulary.size = {size}: {_reason(str(error))}") from error
    return Vocabulary(model.getvalue())


def cached_vocabulary(pairs: Pairs, size: int, cache: Path) -> Vocabulary:
    """`train_vocabulary`, from the folder `cache` if it is there, otherwise also written to it."""
    path = cache / f"vocabulary-{_key(pairs, size)[:32]}.model"
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only folder, or a network file system without locks
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(cache / ".vocabulary.lock"))
        with suppress(OSError):
            return Vocabulary(path.read_bytes())
        found = train_vocabulary(pairs, size)
        try:
            write(path, found.model)
        except Exception as error:
            logger.info("%s: cannot be written (%s): every process trains the vocabulary", path, error)
        return found


def _key(pairs: Pairs, size: int) -> str:
    import sentencepiece

    total = hashlib.sha256(f"{sentencepiece.__version__}|{size}|{sorted(TRAINING.items())}".encode())
    for line in (*pairs.sources, *pairs.targets):
        total.update(f"{line}\n".encode())
    return total.hexdigest()


def _reason(message: str) -> str:
    """sentencepiece's errors for a size that does not fit the text, in our words."""
    if too_large := re.search(r"too high \(\d+\).*?<= (\d+)", message):
        return f"this text has fewer different pieces; allowed: at most {too_large[1]}"
    if too_small := re.search(r"smaller than required_chars.*?(\d+) vs (\d+)", message):
        return f"this text has {too_small[2]} different characters; allowed: more than that"
    return message.partition("\n")[0]
