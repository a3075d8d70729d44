"""`gc`: list or remove files that are no longer needed.

These are checkpoints and weights of finished trials, files that a killed process left partly written, and decoded
images that no worker has opened recently (workers decode them again if needed). Files for users stay: report, figures,
logs, best configurations, the database. The logs in a store of artifacts go with a study that is done.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ralr_tune.commands.locate import locate, naming
from ralr_tune.errors import RalrTuneError, StudyFileError, UsageError
from ralr_tune.objects.opening import reached
from ralr_tune.objects.stores import StoreError
from ralr_tune.report.words import size
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.published import Published
from ralr_tune.store import artifacts, generations, studies
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.location import DATABASE, given_url
from ralr_tune.studyfile import StudySpec, parse_study, registry

IDLE_S = 3600.0
"""No process is writing to a file that has not changed for this long."""

_TEMPORARY = re.compile(r"\..+\.\d+|\.images-\w+")
"""Temporary files that `machine.files.replacing` and `report.images` leave if they are killed."""
_ARTIFACT = re.compile(r"\.?(.+)-(?:row\d+\.\d+|final-[0-9a-f-]+)\.(?:ckpt|safetensors)(?:\.\d+)?")
"""The file name of a checkpoint or weights, with the study's name (see `search.artifacts`)."""
_FOLDERS_WITH_TEMPORARY = (".", "best", "figures", "data")


@dataclass(frozen=True)
class Leftover:
    """A file that is no longer needed."""

    path: str
    bytes: int
    why: str


@dataclass
class Garbage:
    """The files found in one or more folders, removed unless `dry_run`."""

    dry_run: bool
    files: list[Leftover] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What could not be inspected or removed, and why."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def as_text(self) -> str:
        action = "would be removed" if self.dry_run else "removed"
        lines = [f"{file.path}  {size(file.bytes)}  {file.why}" for file in self.files]
        total = f"{counted(len(self.files), 'file')}, {size(self.bytes)}, {action}" if lines else "nothing to remove"
        return "\n".join([*lines, *(f"left: {line}" for line in self.left), total])

    def as_json(self) -> dict[str, Any]:
        return {"dry_run": self.dry_run, "bytes": self.bytes, "files": [asdict(file) for file in self.files]} | {
            "left": self.left
        }


def collect_garbage(
    study: str | None = None, *, storage: str | None = None, out: Path | None = None, dry_run: bool = False
) -> Garbage:
    """Search the out folder of a study or, without STUDY, of every study stored here.

    Raises UsageError and StorageError for STUDY, as the other commands do; without STUDY, errors of one study go to
    `left`.
    """
    found = Garbage(dry_run)
    if study is not None:
        where = locate(study, storage=storage, out=out)
        with naming(where.command):
            _collect_from(where.storage_url, where.out, found)
        return found
    for url, folder in _stored_here(given_url(storage), out):
        try:
            _collect_from(url, folder, found)
        except RalrTuneError as error:
            found.left.append(str(error))
    return found


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _stored_here(url: str | None, out: Path | None) -> Iterator[tuple[str, Path]]:
    """(storage URL, out folder) of every stored study."""
    if url is not None:
        storage = open_storage(url)
        names = studies.names(storage)
        storage.dispose()
        yield from ((url, folder) for folder in ([out] if out else [Path("runs") / name for name in names]))
        return
    files = [out / DATABASE] if out else sorted(Path("runs").glob(f"*/{DATABASE}"))
    if not files or not files[0].exists():
        raise UsageError(f"gc: no study is stored in {out or 'runs/'}; give STUDY, --storage or --out")
    yield from ((sqlite_url(file.absolute()), file.parent) for file in files)


def _collect_from(url: str, out: Path, found: Garbage) -> None:
    storage = open_storage(url)
    try:
        for path, why in [*_finished_files(storage, out, found), *_temporary_files(out), *_unused_caches(out)]:
            _remove(path, why, found)
        for name in studies.names(storage):
            _collect_objects(storage, name, out, found)
    finally:
        storage.dispose()


def _finished_files(storage: Storage, out: Path, found: Garbage) -> Iterator[tuple[Path, str]]:
    """Files of every study in the storage: several studies may share a folder."""
    names = studies.names(storage)
    found.left += _unknown_studies(out / "checkpoints", names)
    for name in names:
        try:
            spec = parse_study(studies.stored(storage, name).text, source=f"{name} (as stored)")
        except StudyFileError as error:
            found.left.append(f"files of study {name}, whose study file this version cannot read: {error.problems[0]}")
            continue
        ledger = Ledger(storage, name)
        yield from leftovers(ledger, ArtifactStore(out / "checkpoints", spec, ledger.key))
        for number in range(1, ledger.generation):
            earlier = ArtifactStore(out / "checkpoints", spec, generations.key(name, number))
            yield from ((path, "of an earlier generation") for path in earlier.leftovers(list))


def _collect_objects(storage: Storage, name: str, out: Path, found: Garbage) -> None:
    """Objects in the store of a study's artifacts; a store that does not answer is left."""
    place = artifacts.place_of(storage, name)
    spec = _readable(storage, name)
    if place is None or spec is None:
        return
    ledger = Ledger(storage, name)
    try:
        published = Published(storage, ArtifactStore(out / "checkpoints", spec, ledger.key), place)
        listings = {
            "of a finished trial": published.unneeded,
            "log of a worker of a finished study": published.finished_logs,
        }
        for why, listing in listings.items():
            for each, count in reached(partial(listing, partial(ledger.rows, curves=False))).items():
                if not found.dry_run:
                    published.remove(each)
                found.files.append(Leftover(f"{published.shown}/{each}", count, why))
    except (StoreError, UsageError) as error:
        found.left.append(f"artifacts of study {name} in {place.url}: {error}")


def _readable(storage: Storage, name: str) -> StudySpec | None:
    """The stored study file; None if this version cannot read it."""
    try:
        return parse_study(studies.stored(storage, name).text, source=f"{name} (as stored)")
    except StudyFileError:
        return None


def _unknown_studies(folder: Path, names: list[str]) -> list[str]:
    """A line per study that has files here but is not in the storage: its workers may be running."""
    others: Counter[str] = Counter()
    for path in folder.glob("*"):
        if (match := _ARTIFACT.fullmatch(path.name)) and match[1].partition("@")[0] not in names:
            others[match[1]] += 1
    return [
        f"{counted(number, 'file')} of study {name} in {folder}: the study is not in this storage"
        for name, number in sorted(others.items())
    ]


def leftovers(ledger: Ledger, local: ArtifactStore) -> Iterator[tuple[Path, str]]:
    """Files of one study that are no longer needed, and why."""
    name = local.spec.name
    for path in local.leftovers(lambda: ledger.rows(curves=False)):
        yield path, "weights of no pending test" if path.name.endswith(".safetensors") else "of a finished trial"
    first_release = re.compile(rf"\.?{re.escape(name)}-(search|choose|judge|test)-\d+\.ckpt(\.\d+)?")
    yield from (
        (path, "checkpoint of release 0.1")
        for path in sorted(local.folder.glob("*"))
        if first_release.fullmatch(path.name)
    )


def _temporary_files(out: Path) -> Iterator[tuple[Path, str]]:
    for folder in _FOLDERS_WITH_TEMPORARY:
        for path in sorted((out / folder).glob(".*")):
            if _TEMPORARY.fullmatch(path.name) and _is_idle(path):
                yield path, "partly written"


def _unused_caches(out: Path) -> Iterator[tuple[Path, str]]:
    """Caches of all task kinds that no worker has used recently; they are rebuilt if needed."""
    for name in registry.names():
        with suppress(UsageError):  # a kind that cannot be imported has no recent cache
            yield from ((path, why) for path, why in registry.find(name).caches(out) if _is_idle(path))


def _is_idle(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > IDLE_S


def _remove(path: Path, why: str, found: Garbage) -> None:
    try:
        count = _bytes(path)
        if not found.dry_run:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except FileNotFoundError:
        return  # a worker has removed it first
    except OSError as error:
        found.left.append(f"{path}: cannot be removed: {error.strerror or error}")
        return
    found.files.append(Leftover(str(path), count, why))


def _bytes(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(part.lstat().st_size for part in parts)
