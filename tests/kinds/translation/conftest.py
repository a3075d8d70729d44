"""A tiny language: every word has one translation, and the target has its words in the opposite order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ralr_tune.studyfile import StudySpec, parse_study

WORDS = {
    "dog": "hund", "cat": "katze", "man": "mann", "red": "rot", "blue": "blau", "house": "haus", "tree": "baum",
    "runs": "läuft", "eats": "isst", "sees": "sieht",
}  # fmt: skip
MakeText = Callable[..., Path]
MakeStudy = Callable[..., StudySpec]


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    generator = random.Random(seed)
    found = []
    for _ in range(count):
        words = [generator.choice(list(WORDS)) for _ in range(generator.randint(2, 7))]
        found.append((" ".join(words), " ".join(WORDS[word] for word in reversed(words))))
    return found


def write_sides(folder: Path, name: str, some: Sequence[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for side, language in enumerate(("xx", "yy")):
        (folder / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in some), encoding="utf-8")


@pytest.fixture
def make_text(tmp_path: Path) -> MakeText:
    """Line-aligned files train, val and test of the tiny language, and their folder."""

    def make(*, train: int = 60, held_out: int = 12) -> Path:
        folder = tmp_path / "text"
        for seed, (name, count) in enumerate({"train": train, "val": held_out, "test": held_out}.items()):
            write_sides(folder, name, pairs(count, seed))
        return folder

    return make


def tables(folder: Path, **changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A study of the tiny language; keys of `changes` replace keys of the table of that name."""
    files = {"source": "files", "path": str(folder), "train": ["train"], "validation": "val", "test": "test"}
    shape = {"layers": 1, "width": 16, "heads": 2, "feedforward": 32}
    base: dict[str, dict[str, Any]] = {
        "study": {"name": "tiny", "baseline": "monotone", "metric": "bleu"},
        "task": {
            "kind": "translation",
            "languages": ["xx", "yy"],
            "data": files,
            "vocabulary": {"size": 48},
            "model_options": shape,
            "dropout": 0.0,
            "beam": 2,
        },
        "training": {
            "epochs": 2,
            "batch_size": 120,
            "optimizer": "adam",
            "lr": {"low": 1e-3, "high": 1e-2, "log": True},
            "precision": "float32",  # the same on every CPU, and sums can be compared
        },
        "schedule": {"name": "inverse_sqrt", "warmup": 0.25, "granularity": "step"},
        "arms": {"monotone": {}, "ralr": {"amplify": {"probability": 0.5, "width": {"low": 0.5, "high": 2.0}}}},
        "search": {"trials": 2},
        "confirm": {"top": 1, "seeds": 2},
    }
    return {name: table | changes.get(name, {}) for name, table in base.items()}


@pytest.fixture
def make_study(make_text: MakeText) -> MakeStudy:
    def make(folder: Path | None = None, **changes: dict[str, Any]) -> StudySpec:
        return parse_study(tomli_w.dumps(tables(folder or make_text(), **changes)))

    return make
