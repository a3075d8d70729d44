"""`gc`: files that nobody will read any more, listed or removed.

These are checkpoints and weights of trials that are done, what was half written when a process was killed, and decoded
images that no worker opened lately: they are made again where they are needed. What a person may want to read stays:
report, figures, logs, best configurations, the database.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ralr_tune.commands.locate import locate, naming
from ralr_tune.errors import RalrTuneError, StudyFileError, UsageError
from ralr_tune.report.words import size
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.store import studies
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.location import DATABASE, given_url
from ralr_tune.studyfile import parse_study, registry

QUIET_S = 3600.0
"""A file that nobody has written to for so long is not being written."""

_HALF_WRITTEN = re.compile(r"\..+\.\d+|\.images-\w+")
"""What `training.files.replacing` and `report.images` leave when they are killed."""
_KEPT = re.compile(r"\.?(.+)-(?:row\d+\.\d+|final-[0-9a-f-]+)\.(?:ckpt|safetensors)(?:\.\d+)?")
"""A file of a study's, by its name (see `search.artifacts`)."""
_WITH_HALVES = (".", "best", "figures", "data")


@dataclass(frozen=True)
class Leftover:
    """A file that nobody will read."""

    path: str
    bytes: int
    why: str


@dataclass
class Garbage:
    """What was found in one or more folders, and removed unless it was a rehearsal."""

    dry_run: bool
    files: list[Leftover] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What could not be looked at or removed, and why."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def as_text(self) -> str:
        did = "would be removed" if self.dry_run else "removed"
        lines = [f"{file.path}  {size(file.bytes)}  {file.why}" for file in self.files]
        total = f"{counted(len(self.files), 'file')}, {size(self.bytes)}, {did}" if lines else "nothing to remove"
        return "\n".join([*lines, *(f"left: {line}" for line in self.left), total])

    def as_json(self) -> dict[str, Any]:
        return {"dry_run": self.dry_run, "bytes": self.bytes, "files": [asdict(file) for file in self.files]} | {
            "left": self.left
        }


def collect_garbage(
    study: str | None = None, *, storage: str | None = None, out: Path | None = None, dry_run: bool = False
) -> Garbage:
    """Looks through the out folder of a study; without one, of every study that is kept here.

    Raises UsageError and StorageError as the other commands do, for the study that is asked for; what is wrong with one
    of many is said in `left`.
    """
    found = Garbage(dry_run)
    if study is not None:
        where = locate(study, storage=storage, out=out)
        with naming(where.command):
            _look_through(where.storage_url, where.out, found)
        return found
    for url, folder in _kept_here(given_url(storage), out):
        try:
            _look_through(url, folder, found)
        except RalrTuneError as error:
            found.left.append(str(error))
    return found


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _kept_here(url: str | None, out: Path | None) -> Iterator[tuple[str, Path]]:
    """(storage URL, out folder) of everything that is stored where no study is named."""
    if url is not None:
        storage = open_storage(url)
        names = studies.names(storage)
        storage.dispose()
        yield from ((url, folder) for folder in ([out] if out else [Path("runs") / name for name in names]))
        return
    files = [out / DATABASE] if out else sorted(Path("runs").glob(f"*/{DATABASE}"))
    if not files or not files[0].exists():
        raise UsageError(f"gc: nothing is stored in {out or 'runs/'}; give STUDY, --storage or --out")
    yield from ((sqlite_url(file.absolute()), file.parent) for file in files)


def _look_through(url: str, out: Path, found: Garbage) -> None:
    storage = open_storage(url)
    try:
        for path, why in [*_of_studies(storage, out, found), *_half_written(out), *_caches(out)]:
            _take(path, why, found)
    finally:
        storage.dispose()


def _of_studies(storage: Storage, out: Path, found: Garbage) -> Iterator[tuple[Path, str]]:
    """Of every study that the storage holds: several may share a folder."""
    names = studies.names(storage)
    found.left += _of_others(out / "checkpoints", names)
    for name in names:
        try:
            spec = parse_study(studies.stored(storage, name).text, source=f"{name} (as stored)")
        except StudyFileError as error:
            found.left.append(f"files of study {name}, whose file this program cannot read: {error.problems[0]}")
            continue
        yield from leftovers(storage, ArtifactStore(out / "checkpoints", spec))


def _of_others(folder: Path, names: list[str]) -> list[str]:
    """What is said of files of studies that the storage does not hold: theirs may be at work."""
    others: Counter[str] = Counter()
    for path in folder.glob("*"):
        if (of := _KEPT.fullmatch(path.name)) and of[1] not in names:
            others[of[1]] += 1
    return [
        f"{counted(number, 'file')} of study {name} in {folder}: it is not in this storage"
        for name, number in sorted(others.items())
    ]


def leftovers(storage: Storage, artifacts: ArtifactStore) -> Iterator[tuple[Path, str]]:
    """Files of one study that nobody will read, and why."""
    name = artifacts.spec.name
    for path in artifacts.leftovers(lambda: Ledger(storage, name).rows(curves=False)):
        yield path, "weights of a judged trial" if path.name.endswith(".safetensors") else "of a finished trial"
    first_release = re.compile(rf"\.?{re.escape(name)}-(search|choose|judge|test)-\d+\.ckpt(\.\d+)?")
    yield from (
        (path, "checkpoint of release 0.1")
        for path in sorted(artifacts.folder.glob("*"))
        if first_release.fullmatch(path.name)
    )


def _half_written(out: Path) -> Iterator[tuple[Path, str]]:
    for folder in _WITH_HALVES:
        for path in sorted((out / folder).glob(".*")):
            if _HALF_WRITTEN.fullmatch(path.name) and _is_quiet(path):
                yield path, "half written"


def _caches(out: Path) -> Iterator[tuple[Path, str]]:
    """What any kind of task prepared there and prepares again."""
    for name in registry.names():
        with suppress(UsageError):  # a kind that cannot be imported has prepared nothing lately
            yield from ((path, why) for path, why in registry.find(name).caches(out) if _is_quiet(path))


def _is_quiet(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > QUIET_S


def _take(path: Path, why: str, found: Garbage) -> None:
    try:
        count = _bytes(path)
        if not found.dry_run:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except FileNotFoundError:
        return  # its worker was quicker
    except OSError as error:
        found.left.append(f"{path}: cannot be removed: {error.strerror or error}")
        return
    found.files.append(Leftover(str(path), count, why))


def _bytes(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(part.lstat().st_size for part in parts)
