"""Meaning of file, folder and array names: usual names of splits, and names of hidden and system files.

Works on text alone. The folder reader and the array reader share it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

SplitName = Literal["train", "validation", "test"]

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "trainingset": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "valset": "validation",
    "validationset": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "devset": "validation",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "testingset": "test",
}
"""Usual names of the splits, in lower case and without `FILLER_WORDS`."""

UNCLEAR_WORDS = frozenset({"eval", "evaluation", "evaluate", "heldout", "holdout", "pred", "predict", "trainval"})
"""Ambiguous names of splits. They are refused: a guess would sometimes be wrong."""

FILLER_WORDS = frozenset(
    {"data", "dataset", "file", "files", "folder", "image", "images", "img", "imgs", "photos", "pictures", "set",
     "sets", "split"}
)  # fmt: skip
"""Words next to a split's name that carry no meaning: train_images, Test-Set."""

SYSTEM_NAMES = frozenset(
    {"#recycle", "$recycle.bin", "@eadir", "@recycle", "@sharebin", "@tmp", "__macosx", "__pycache__", "desktop.ini",
     "ehthumbs.db", "lost+found", "system volume information", "thumbs.db"}
)  # fmt: skip
"""What operating systems and network disks create, in lower case. Names that start with a dot are treated the same."""

USUAL_NAMES = (
    "train, training; val, valid, validation, dev; test, testing; in any case, also as train_images or TestSet"
)
"""The usual names, as shown in messages."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or a system's, and therefore not part of the data, whatever its contents."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def split_of(name: str) -> SplitName | None:
    """The split that a folder or array name denotes; None if it denotes none or is ambiguous."""
    return SPLIT_WORDS.get("".join(word for word in _words_in(name) if word not in FILLER_WORDS))


def names_a_split(name: str) -> bool:
    """Whether a name is only a split's name, possibly ambiguous, with or without numbers: train, eval, val_2017."""
    words = [word for word in _words_in(name) if word not in FILLER_WORDS and not word.isdigit()]
    return _denotes_split("".join(words)) or (bool(words) and all(map(_denotes_split, words)))


def mentions_split(name: str) -> bool:
    """Whether any word of a name denotes a split: seg_train, but also bullet_train."""
    return any(_denotes_split(word) for word in _words_in(name))


def mentioned_splits(names: Sequence[str]) -> set[SplitName]:
    """The splits that the words of some names mention."""
    return {SPLIT_WORDS[word] for name in names for word in _words_in(name) if word in SPLIT_WORDS}


def _denotes_split(word: str) -> bool:
    return word in SPLIT_WORDS or word in UNCLEAR_WORDS


def _words_in(name: str) -> list[str]:
    """Words and numbers of a name in lower case. Case changes separate words too: TestSet2 is test, set, 2."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+", name)]
