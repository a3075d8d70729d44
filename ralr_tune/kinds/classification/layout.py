"""What names of files and folders mean: the splits by their usual names, and what systems leave between images.

Pure text; the reader of folders and the one of arrays share it.
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
"""Usual names of the splits, in lower case and without what `FILLING` holds."""

UNCLEAR_WORDS = frozenset({"eval", "evaluation", "evaluate", "heldout", "holdout", "pred", "predict", "trainval"})
"""Names of splits that may mean one or another: a reader that guessed would sometimes guess wrong."""

FILLING = frozenset(
    {"data", "dataset", "file", "files", "folder", "image", "images", "img", "imgs", "photos", "pictures", "set",
     "sets", "split"}
)  # fmt: skip
"""Words around a split's name that say nothing: train_images, Test-Set."""

SYSTEM_NAMES = frozenset(
    {"#recycle", "$recycle.bin", "@eadir", "@recycle", "@sharebin", "@tmp", "__macosx", "__pycache__", "desktop.ini",
     "ehthumbs.db", "lost+found", "system volume information", "thumbs.db"}
)  # fmt: skip
"""What systems and network disks put between files, in lower case; what begins with a dot is theirs, too."""

USUAL_NAMES = (
    "train, training; val, valid, validation, dev; test, testing; in any case, also as train_images or TestSet"
)
"""For messages."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's or hidden: no part of the data, whatever it holds."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def split_of(name: str) -> SplitName | None:
    """The split that a folder's or an array's name says; None if it says none, or none for certain."""
    return SPLIT_WORDS.get("".join(word for word in _words_of(name) if word not in FILLING))


def names_a_split(name: str) -> bool:
    """Whether all that a name says is a split, known or not: train, eval, test2, val_2017."""
    words = [word for word in _words_of(name) if word not in FILLING and not word.isdigit()]
    return _is_of_split("".join(words)) or (bool(words) and all(map(_is_of_split, words)))


def mentions_split(name: str) -> bool:
    """Whether a word of a name is a split's: seg_train, but also bullet_train."""
    return any(_is_of_split(word) for word in _words_of(name))


def mentioned_splits(names: Sequence[str]) -> set[SplitName]:
    """The splits that the words of some names mention."""
    return {SPLIT_WORDS[word] for name in names for word in _words_of(name) if word in SPLIT_WORDS}


def _is_of_split(word: str) -> bool:
    return word in SPLIT_WORDS or word in UNCLEAR_WORDS


def _words_of(name: str) -> list[str]:
    """Words and numbers of a name in lower case, split at case, too: TestSet2 is test, set, 2."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+", name)]
