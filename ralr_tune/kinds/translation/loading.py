"""Loads the translation task, and its data for the commands that only look at them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ralr_tune.kinds.translation.corpus import Corpus, read_all, read_corpus, stamp_of, take_inventory
from ralr_tune.kinds.translation.files import Pairs, SplitName
from ralr_tune.kinds.translation.networks import build
from ralr_tune.kinds.translation.scores import scorer_of
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.kinds.translation.task import Rules, TranslationTask
from ralr_tune.kinds.translation.vocabulary import (
    Vocabulary,
    cached_vocabulary,
    check_installed,
    read_vocabulary,
    train_vocabulary,
)
from ralr_tune.machine.locks import locked
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory
from ralr_tune.tasks.inventory import load as load_inventory
from ralr_tune.tasks.inventory import save as save_inventory

FORMAT = "translation 1"
"""Of the inventory that is kept."""
NETWORK_KEYS = ("model", "model_options", "dropout", "accumulate", "beam", "length_penalty", "tokenize", "lowercase")
"""Keys of [task] that change neither the data nor the vocabulary."""


def load_task(
    section: TranslationSection,
    *,
    metric: Metric,
    seed: int,
    device: str,
    identity: str,
    cache: Path | None,
    like: object,
) -> TranslationTask:
    """See `studyfile.kind.Kind.load`. The digest of the vocabulary is part of the task's identity."""
    check_installed()
    origin = (str(section.model_dump(exclude=set(NETWORK_KEYS))), seed, device)
    network, rules = partial(_network, section), _rules(section)
    if isinstance(like, TranslationTask) and like.origin == origin:
        return like.with_network(network, _identity(identity, like.vocabulary), rules)
    corpora = read_all(
        section.data, section.languages, seed=seed
    )  # finds bad test data before any training; the test pairs are dropped again
    words = vocabulary_of(section, corpora["train"].pairs, cache)
    return TranslationTask(
        {split: corpora[split].pairs for split in ("train", "validation")},
        partial(_test_pairs, section, seed),
        vocabulary=words,
        build=network,
        rules=rules,
        metric=metric,
        seed=seed,
        device=device,
        identity=_identity(identity, words),
        origin=origin,
        inventory=None if cache is None else _inventory(section, seed, cache, corpora),
    )


def inventory_of_section(section: TranslationSection, *, seed: int, cache: Path | None) -> Inventory:
    """The table of the data; from the folder `cache` if the files have not changed. Raises DataError."""
    return _inventory(section, seed, cache, None)


def vocabulary_of(section: TranslationSection, train: Pairs, cache: Path | None) -> Vocabulary:
    """Raises DataError."""
    given = section.vocabulary
    if given.model is not None:
        return read_vocabulary(Path(given.model))
    assert isinstance(given.size, int)  # resolved: one value
    return train_vocabulary(train, given.size) if cache is None else cached_vocabulary(train, given.size, cache)


def _inventory(
    section: TranslationSection, seed: int, cache: Path | None, corpora: Mapping[SplitName, Corpus] | None
) -> Inventory:
    stamp = hashlib.sha256(f"{FORMAT}|{seed}|{_read_keys(section)}|{stamp_of(section)}".encode()).hexdigest()
    with ExitStack() as stack:
        if cache is not None and cache.parent.is_dir():
            with suppress(OSError):  # a read-only folder, or a network file system without locks
                stack.enter_context(locked(cache.parent / ".inventory.lock"))
        found = None if cache is None else load_inventory(cache, stamp)
        if found is None:
            found = take_inventory(section, corpora or read_all(section.data, section.languages, seed=seed))
            if cache is not None:
                save_inventory(found, cache, stamp)
    return found


def _read_keys(section: TranslationSection) -> Mapping[str, Any]:
    return section.model_dump(include={"languages", "data"})


def _identity(identity: str, words: Vocabulary) -> str:
    return hashlib.sha256(f"{identity}|{words.digest}".encode()).hexdigest()


def _network(section: TranslationSection, pieces: int, pad: int) -> Any:
    return build(section, pieces=pieces, pad=pad)


def _rules(section: TranslationSection) -> Rules:
    assert isinstance(section.accumulate, int)  # resolved: one value
    return Rules(section.accumulate, scorer_of(section), section.beam, section.length_penalty)


def _test_pairs(section: TranslationSection, seed: int) -> Pairs:
    return read_corpus(section.data, section.languages, "test", seed=seed).pairs
