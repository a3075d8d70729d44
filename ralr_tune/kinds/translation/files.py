"""Reads parallel text: line-aligned files, tab-separated files, a folder for each split; plain, gzip or zstd.

A line ends at a line feed only: Python's `splitlines` would also split at characters such as U+2028, which occur inside
of sentences, and every later pair would be misaligned.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ralr_tune.errors import DataError
from ralr_tune.invocation import install
from ralr_tune.kinds.translation.section import FilesData, FolderData, TextData, TsvData, Unicode

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_FORMS: Mapping[str, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}
_PACKED = ("", ".gz", ".zst")
MAX_LINES = 5
"""Line numbers that a message lists."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of a split."""

    sources: Sequence[str]
    targets: Sequence[str]
    origin: str
    """The files, for display."""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: Sequence[int]) -> Pairs:
        return Pairs([self.sources[row] for row in rows], [self.targets[row] for row in rows], self.origin)


def read_pairs(data: TextData, split: SplitName, languages: tuple[str, str]) -> Pairs:
    """All pairs of a split, with Unicode normalised and surrounding white space removed.

    Raises DataError if a file is missing or cannot be read, or if the lines of the two languages do not correspond.
    """
    parts = list(_tsv_parts(data, split) if isinstance(data, TsvData) else _file_parts(data, split, languages))
    sources, targets = ([line for part in parts for line in getattr(part, side)] for side in ("sources", "targets"))
    if not sources:
        raise DataError(f"data: the {split} split has no pairs ({', '.join(part.origin for part in parts)})")
    return Pairs(sources, targets, ", ".join(part.origin for part in parts))


def files_of(data: TextData, split: SplitName, languages: tuple[str, str]) -> list[tuple[Path, ...]]:
    """The files of a split: pairs of files, or single files with two columns. Raises DataError for missing ones."""
    root = Path(data.path).expanduser()
    if isinstance(data, FolderData):
        return _paired(_split_folder(root, split), languages)
    names = data.train if split == "train" else (getattr(data, split),)
    if isinstance(data, TsvData):
        return [(_existing(root / name, f"data.{split}"),) for name in names]
    return [tuple(_existing(root / f"{name}.{language}", f"data.{split}") for language in languages) for name in names]


def listed(lines: Sequence[int]) -> str:
    """ "line 3" or "lines 3, 4, 9 and 12 more" """
    shown = ", ".join(f"{line:,}" for line in lines[:MAX_LINES])
    more = f" and {len(lines) - MAX_LINES:,} more" if len(lines) > MAX_LINES else ""
    return f"line{'' if len(lines) == 1 else 's'} {shown}{more}"


def _split_folder(root: Path, split: SplitName) -> Path:
    for name in _FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"data.path = {str(root)!r}: has no folder {' or '.join(f'{name}/' for name in _FOLDERS[split])}")


def _paired(folder: Path, languages: tuple[str, str]) -> list[tuple[Path, ...]]:
    """The files NAME.LANGUAGE of a folder, by name."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        name, _, language = _unpacked_name(path).rpartition(".")
        if language in languages:
            found.setdefault(name, {})[language] = path
    single = [f"{name}.{next(iter(paths))}" for name, paths in found.items() if len(paths) == 1]
    if single or not found:
        what = f"{single[0]} has no counterpart" if single else "has no such files"
        raise DataError(
            f"data: {folder}: {what}; needs NAME.{languages[0]} and NAME.{languages[1]}, also as .gz or .zst"
        )
    return [tuple(paths[language] for language in languages) for paths in found.values()]


def _unpacked_name(path: Path) -> str:
    return path.stem if path.suffix in _PACKED[1:] else path.name


def _existing(path: Path, key: str) -> Path:
    for suffix in _PACKED:
        if (packed := Path(f"{path}{suffix}")).is_file():
            return packed
    there = sorted(other.name for other in path.parent.glob(f"{glob.escape(path.stem)}.*")) if path.stem else []
    hint = f"; there are {', '.join(there[:MAX_LINES])}" if there else ""
    raise DataError(f"{key}: {path}: no such file, also not with .gz or .zst{hint}")


def _file_parts(data: FilesData | FolderData, split: SplitName, languages: tuple[str, str]) -> Iterator[Pairs]:
    for one, other in files_of(data, split, languages):
        sources, targets = read_lines(one, data.unicode), read_lines(other, data.unicode)
        if len(sources) != len(targets):
            counts = f"{one} has {len(sources):,} lines, {other} has {len(targets):,}"
            raise DataError(f"data: {counts}: line n of one must be the translation of line n of the other")
        yield Pairs(sources, targets, f"{one.name} and {other.name}")


def _tsv_parts(data: TsvData, split: SplitName) -> Iterator[Pairs]:
    first = 1 if data.header else 0
    for (path,) in files_of(data, split, ("", "")):
        rows = [line.split("\t") for line in read_lines(path, data.unicode)[first:]]
        _check_columns(path, rows, data)
        one, other = (column - 1 for column in data.columns or (1, 2))
        yield Pairs([row[one].strip() for row in rows], [row[other].strip() for row in rows], path.name)


def _check_columns(path: Path, rows: Sequence[Sequence[str]], data: TsvData) -> None:
    """Raises DataError for a tab too many or too few: the text after it would be another column's."""
    first = 2 if data.header else 1
    count = len(rows[0]) if rows else 2
    if count == 1:
        raise DataError(f"{path}, line {first}: no tab; must have a source and a target, separated by a tab")
    if data.columns is None and count != 2:
        raise DataError(f"{path}, line {first}: {count} columns, not 2; give data.columns, those of source and target")
    if data.columns and count < max(data.columns):
        raise DataError(f"{path}, line {first}: {count} columns; data.columns = {list(data.columns)}")
    others = [number for number, row in enumerate(rows, first) if len(row) != count]
    if others:
        raise DataError(f"{path}, {listed(others)}: not as many columns as line {first}, which has {count}")


def read_lines(path: Path, unicode: Unicode) -> list[str]:
    """The lines of a file. Raises DataError, with the line number if a line is not UTF-8."""
    try:
        content = _content(path)
    except (OSError, EOFError, zlib.error) as error:
        damaged = path.suffix in _PACKED[1:] and not getattr(error, "strerror", None)
        why = f"incomplete or damaged ({error})" if damaged else getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {why}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is UTF-16; must be UTF-8")
    if b"\r" in content and b"\n" not in content:
        raise DataError(f"{path}: its lines end with carriage returns; must end with line feeds")
    lines = content.split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()  # after the last line feed
    return [_decoded(path, number, line, unicode) for number, line in enumerate(lines, 1)]


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        return _zstd(path, content)
    return content


def _zstd(path: Path, content: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise DataError(f"{path}: needs the package zstandard; type: {install('translation')}") from None
    found = []
    while content:
        frame = zstandard.ZstdDecompressor().decompressobj()  # zstandard's readers end quietly within a frame
        try:
            found.append(frame.decompress(content))
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if not frame.eof:
            raise EOFError("ends within a frame")
        content = frame.unused_data
    return b"".join(found)


def _decoded(path: Path, number: int, line: bytes, unicode: Unicode) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number:,}: not UTF-8 (byte {error.start + 1})") from None
    if unicode != "none":
        text = unicodedata.normalize(_FORMS[unicode], text)
    return text.strip()
