"""The pairs that a study trains and judges with, checked; and the table of them (records.Inventory).

Training pairs with an empty or over-long side are skipped and counted. Validation and test stay whole, since a score of
a part of them cannot be compared with others: an empty side there is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ralr_tune.errors import DataError
from ralr_tune.kinds.translation.files import SPLITS, Pairs, SplitName, files_of, listed, read_pairs
from ralr_tune.kinds.translation.languages import looks_swapped, swapped_against
from ralr_tune.kinds.translation.section import TextData, TranslationSection
from ralr_tune.records import Duplicates, Inventory, Skipped, SplitInventory
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.problems import cut, one_line

MAX_EXAMPLES = 3
SHOWN = 60
"""Characters of a sentence in the table."""
UNTRANSLATED = 0.5
"""Share of pairs with equal sides from which they are not a translation (our choice)."""


@dataclass(frozen=True)
class Corpus:
    """The pairs of one split, and what was left out of them."""

    pairs: Pairs
    skipped: tuple[Skipped, ...] = ()


def read_corpus(data: TextData, languages: tuple[str, str], split: SplitName, *, seed: int) -> Corpus:
    """The pairs of a split as they are used; `seed` draws the subset of `data.limit`. Raises DataError."""
    pairs = read_pairs(data, split, languages)
    _check_languages(pairs, split, languages)
    if split != "train":
        _check_not_empty(pairs, split)
        return Corpus(pairs)
    kept, skipped = _usable(pairs, data)
    return Corpus(pairs.take(_limited(kept, data.limit, seed)), skipped)


def _check_languages(pairs: Pairs, split: SplitName, languages: tuple[str, str]) -> None:
    one, other = languages
    if looks_swapped(pairs.sources, pairs.targets, languages):
        raise DataError(
            f"{pairs.origin}: the source side of {split} reads like {other} and the target side like {one}; swap "
            "task.languages, the files, or data.columns"
        )
    equal = sum(source == target for source, target in zip(pairs.sources, pairs.targets, strict=True))
    if len(pairs) > 1 and equal > UNTRANSLATED * len(pairs):
        raise DataError(f"{pairs.origin}: {equal:,} of {len(pairs):,} {split} pairs have two equal sides")


def check_same_direction(train: Pairs, other: Pairs, split: SplitName) -> None:
    """Raises DataError if the sides of a split are those of train the other way round."""
    if swapped_against(other.sources, other.targets, (train.sources, train.targets)):
        raise DataError(f"{other.origin}: the two sides of {split} are swapped: its source reads like train's target")


def _check_not_empty(pairs: Pairs, split: SplitName) -> None:
    for side, lines in (("source", pairs.sources), ("target", pairs.targets)):
        empty = [number for number, line in enumerate(lines, 1) if not line]
        if empty:
            raise DataError(f"{pairs.origin}, {listed(empty)}: the {side} side of {split} is empty there")


def _usable(pairs: Pairs, data: TextData) -> tuple[list[int], tuple[Skipped, ...]]:
    """The rows of the training pairs that are used, and the others by reason."""
    kept, empty, long = [], [], []
    for row, (source, target) in enumerate(zip(pairs.sources, pairs.targets, strict=True)):
        if not source or not target:
            empty.append(row + 1)
        elif max(len(source), len(target)) > data.max_length:
            long.append(row + 1)
        else:
            kept.append(row)
    reasons = (("an empty side", empty), (f"a side of more than {data.max_length} characters", long))
    skipped = tuple(Skipped("train", "", f"pairs ({listed(rows)})", why, len(rows)) for why, rows in reasons if rows)
    if not kept:
        why = "; ".join(f"{each.why} ({each.count:,})" for each in skipped)
        raise DataError(f"{pairs.origin}: of {len(pairs):,} training pairs none is left: {why}")
    return kept, skipped


def _limited(rows: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """A seeded subset, in the order of the file. A larger limit contains the pairs of a smaller one."""
    if limit is None or limit >= len(rows):
        return list(rows)
    order = np.random.Generator(np.random.PCG64(derive_seed("limit", seed))).permutation(len(rows))
    return [rows[place] for place in np.sort(order[:limit])]


# ---------------------------------------------------------------- the table


def take_inventory(section: TranslationSection, corpora: Mapping[SplitName, Corpus]) -> Inventory:
    """Pairs of each split, what was skipped, and source sentences of one split that occur in another."""
    one, other = section.languages
    return Inventory(
        source=one_line(f"{section.data.source} {section.data.path}"),
        classes=(f"{one}-{other}",),
        splits=tuple(_split_inventory(name, corpus) for name, corpus in corpora.items()),
        skipped=tuple(skipped for corpus in corpora.values() for skipped in corpus.skipped),
        duplicates=tuple(_duplicates({name: corpus.pairs for name, corpus in corpora.items()})),
        verified=len(corpora["test"].pairs) if "test" in corpora else 0,
        unit="pairs",
    )


def read_all(data: TextData, languages: tuple[str, str], *, seed: int) -> dict[SplitName, Corpus]:
    """Every split, checked. Raises DataError."""
    corpora = {split: read_corpus(data, languages, split, seed=seed) for split in SPLITS}
    for split in SPLITS[1:]:
        check_same_direction(corpora["train"].pairs, corpora[split].pairs, split)
    return corpora


def stamp_of(section: TranslationSection) -> str:
    """Names, sizes and modification times of all files: equal while nothing changed. Raises DataError."""
    total = hashlib.sha256()
    for split in SPLITS:
        for path in (path for files in files_of(section.data, split, section.languages) for path in files):
            found = path.stat()
            total.update(f"{split}|{path}|{found.st_size}|{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def digest_of(pairs: Pairs) -> str:
    total = hashlib.sha256()
    for source, target in _both(pairs):
        total.update(f"{source}\t{target}\n".encode())
    return total.hexdigest()


def _split_inventory(name: str, corpus: Corpus) -> SplitInventory:
    return SplitInventory(name, one_line(corpus.pairs.origin), (len(corpus.pairs),), digest=digest_of(corpus.pairs))


def _duplicates(splits: Mapping[SplitName, Pairs]) -> Iterator[Duplicates]:
    """Pairs of a split that occur in an earlier one: the network would be judged on what it was trained on."""
    names = list(splits)
    places = {name: {pair: place for place, pair in enumerate(_both(splits[name]), 1)} for name in names}
    for index, name in enumerate(names):
        for earlier in names[:index]:
            known = places[earlier]
            copies = [(place, pair) for place, pair in enumerate(_both(splits[name]), 1) if pair in known]
            if copies:
                examples = tuple(
                    (f"{name} pair {place}, {cut(one_line(pair[0]), SHOWN)}", f"{earlier} pair {known[pair]}")
                    for place, pair in copies[:MAX_EXAMPLES]
                )
                yield Duplicates(name, earlier, len(copies), examples)


def _both(pairs: Pairs) -> Iterator[tuple[str, str]]:
    return zip(pairs.sources, pairs.targets, strict=True)
