"""The data tables of a study in an exported script.

Scripts include this source in place of section.py, whose classes check study files and need pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ralr_tune.kinds.translation.section import Unicode


@dataclass(frozen=True, kw_only=True)
class _Text:
    path: str
    limit: int | None = None
    unicode: Unicode = "nfc"
    max_length: int = 500
    """In characters."""


@dataclass(frozen=True, kw_only=True)
class FilesData(_Text):
    """See section.FilesData."""

    train: tuple[str, ...]
    validation: str
    test: str


@dataclass(frozen=True, kw_only=True)
class TsvData(_Text):
    """See section.TsvData."""

    train: tuple[str, ...]
    validation: str
    test: str
    columns: tuple[int, int] | None = None
    header: bool = False


@dataclass(frozen=True, kw_only=True)
class FolderData(_Text):
    """See section.FolderData."""


TextData: TypeAlias = FilesData | TsvData | FolderData


def install(extra: str) -> str:
    """The command that installs what compressed text needs: a script has no extras."""
    return "pip install zstandard"
