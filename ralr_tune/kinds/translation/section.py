"""The [task] table of kind "translation", and its keys of [training]."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.studyfile.values import (
    Choosable,
    Count,
    Frozen,
    NonNegative,
    Searchable,
    SearchableOptions,
    one_of,
    problem,
    within,
)

Unicode = Literal["nfc", "nfkc", "none"]


class _Text(Frozen):
    path: str = "."
    """The folder of the files, relative to where the command runs."""
    limit: Count | None = None
    """Train on only this many pairs (a seeded subset); validation and test stay whole."""
    unicode: Unicode = "nfc"
    """Unicode normalisation of both sides, references included; nothing else is changed in the text."""
    max_length: Count = 500
    """Longest side of a training pair, in characters: longer ones are skipped and counted."""


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise problem(f"{name!r} is there twice; must be different files")
    return names


def _two_columns(columns: tuple[int, int]) -> tuple[int, int]:
    if columns[0] == columns[1]:
        raise problem(f"both are {columns[0]}; must be two different ones")
    return columns


Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_different)]


class FilesData(_Text):
    """One file for each language and split, line by line: PREFIX.LANGUAGE, also as .gz or .zst."""

    source: Literal["files"]
    """Line-aligned files."""
    train: Names
    """The prefixes of the training files below `path`; several are joined."""
    validation: str
    """The prefix of the validation files."""
    test: str
    """The prefix of the test files."""


class TsvData(_Text):
    """Files with one pair on a line, in two columns that a tab separates, also as .gz or .zst."""

    source: Literal["tsv"]
    """Tab-separated files."""
    train: Names
    """The training files below `path`; several are joined."""
    validation: str
    """The validation file."""
    test: str
    """The test file."""
    columns: Annotated[tuple[Count, Count], Field(strict=False), AfterValidator(_two_columns)] | None = None
    """The columns of the source and of the target, from 1. Without it, files must have exactly these two."""
    header: bool = False
    """Whether the first line of every file holds names and no pair."""


class FolderData(_Text):
    """A folder with train/, validation/ (or valid/, val/, dev/) and test/, each with files NAME.LANGUAGE[.gz|.zst]."""

    source: Literal["folder"]
    """A folder for each split."""


TextData: TypeAlias = Annotated[FilesData | TsvData | FolderData, Field(discriminator="source")]


class VocabularyTable(Frozen):
    """The pieces that both languages share."""

    size: Searchable[Annotated[int, Field(ge=8, lt=10**6)]] = 6000
    """Pieces of the joint byte-pair encoding, which is trained on the train split."""
    model: str | None = None
    """An existing sentencepiece model in place of a trained one; `size` then has no effect."""


_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}")


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise problem("not a valid language: letters, digits, '-' and '_', as in the files' names")
    return value


Language = Annotated[str, AfterValidator(_language)]

NETWORKS = ("transformer_tiny", "transformer_small", "transformer_base", "lstm")
"""Listed here so that a study file can be checked without importing torch; a test compares them with networks.py."""
NETWORK_OPTIONS = {"layers": int, "width": int, "heads": int, "feedforward": int, "norm": str}


def _network(value: str) -> str:
    if value not in NETWORKS:
        raise problem(f"unknown network; {one_of(NETWORKS, value)}")
    return value


def _network_options(table: dict[str, Any]) -> dict[str, Any]:
    for name in table:
        if name not in NETWORK_OPTIONS:
            raise problem(f"{name}: not an option of these networks; {one_of(NETWORK_OPTIONS, name)}")
    return table


class TranslationSection(TaskSection):
    """[task] kind = "translation"."""

    languages: Annotated[tuple[Language, Language], Field(strict=False)]
    """The language of the source and that of the target, as in the files' names."""
    data: TextData
    """Where the pairs come from: one of the tables below."""
    vocabulary: VocabularyTable = VocabularyTable()
    """The pieces of the text."""
    model: Choosable[Annotated[str, AfterValidator(_network)]] = "transformer_tiny"
    """transformer_tiny, transformer_small, transformer_base, or lstm (with attention)."""
    model_options: Annotated[SearchableOptions, AfterValidator(_network_options)] = {}
    """Changes of the network: layers, width, heads, feedforward, norm ("pre" or "post"); may be searched."""
    dropout: Searchable[Annotated[float, within("task.dropout")]] = 0.1
    """Probability that dropout sets a number to zero."""
    accumulate: Searchable[Annotated[int, within("task.accumulate")]] = 1
    """Batches whose gradients are added up for one step."""
    beam: Annotated[int, Field(ge=1, le=100)] = 5
    """Hypotheses that the search keeps, at the last epoch of confirm and on the test split; other epochs translate
    greedily."""
    length_penalty: NonNegative = 0.6
    """Exponent of the length by which beam search divides (arXiv 1609.08144, equation 14); 0: none."""
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """sacrebleu's tokenisation for BLEU."""
    lowercase: bool = False
    """Whether BLEU ignores the case."""

    @model_validator(mode="after")
    def _two_languages(self) -> TranslationSection:
        if self.languages[0] == self.languages[1]:
            raise problem(f"languages: both are {self.languages[0]}; must be two different ones")
        return self


class TranslationTraining(Frozen):
    """Keys of [training] for translation; `batch_size` counts the pieces of a batch's longer side, padding included."""

    label_smoothing: Searchable[Annotated[float, within("label_smoothing")]] = 0.0
