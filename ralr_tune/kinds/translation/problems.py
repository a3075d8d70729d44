"""What is wrong with the text, the vocabulary and the networks of a study: all of it, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from ralr_tune.errors import DataError, UsageError
from ralr_tune.kinds.translation.corpus import check_same_direction, read_corpus
from ralr_tune.kinds.translation.files import SPLITS, Pairs, SplitName
from ralr_tune.kinds.translation.loading import vocabulary_of
from ralr_tune.kinds.translation.networks import shape_of
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.kinds.translation.vocabulary import check_installed
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Problem
from ralr_tune.studyfile.problems import KeyPath
from ralr_tune.studyfile.tasks import first_task, typical_tasks

Found = TypeVar("Found")

DATA: tuple[KeyPath, ...] = (("task", "data"), ("task", "languages"))
WORDS: tuple[KeyPath, ...] = (("task", "vocabulary"),)
NETWORK: tuple[KeyPath, ...] = (("task", "model"), ("task", "model_options"))
LARGE = 20_000_000
"""Characters of training text above which no vocabulary is trained for a check: it would take minutes."""


def study_problems(spec: StudySpec) -> Iterator[Problem]:
    """Each as one line."""
    found: list[Problem] = []
    section = first_task(spec)
    assert isinstance(section, TranslationSection)
    pairs = dict(_read_splits(section, spec.study.seed, found))
    for split in SPLITS[1:]:
        if "train" in pairs and split in pairs:
            _attempt(partial(check_same_direction, pairs["train"], pairs[split], split), DATA, found)
    _attempt(check_installed, (("task", "kind"),), found)
    if not found and _characters(pairs["train"]) <= LARGE:
        for each in typical_tasks(spec, "vocabulary.size"):
            assert isinstance(each, TranslationSection)
            _attempt(partial(vocabulary_of, each, pairs["train"], None), (*WORDS, *DATA), found)
            if each.vocabulary.model is not None:
                break
    for each in typical_tasks(spec, "model"):
        assert isinstance(each, TranslationSection)
        _attempt(partial(shape_of, each, pieces=8, pad=0), NETWORK, found)
    yield from {problem.line: problem for problem in found}.values()


def _read_splits(section: TranslationSection, seed: int, found: list[Problem]) -> Iterator[tuple[SplitName, Pairs]]:
    for split in SPLITS:
        corpus = _attempt(partial(read_corpus, section.data, section.languages, split, seed=seed), DATA, found)
        if corpus is not None:
            yield split, corpus.pairs


def _attempt(work: Callable[[], Found], paths: tuple[KeyPath, ...], found: list[Problem]) -> Found | None:
    """What `work` returns; if it fails, None, and one problem more."""
    try:
        return work()
    except (DataError, UsageError) as error:
        found.append(Problem(str(error), paths, of_data=isinstance(error, DataError)))
        return None


def _characters(pairs: Pairs) -> int:
    return sum(map(len, pairs.sources)) + sum(map(len, pairs.targets))
