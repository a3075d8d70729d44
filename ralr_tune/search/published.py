"""A study's objects in its store, from which workers on other machines resume.

    row12/3-5.ckpt      row 12 after epoch 5, written by its attempt 3: the file that this attempt has in its out folder
    row12/3-5.tar       the same of a program, with the checkpoint that the program reported
    row12/3-9.weights   the weights of a judged run, which wait for its test
    row12/3.log         what the program of row 12 printed in attempt 3; it goes with the row's other objects
    logs/...            the workers' logs (see search.logs), until `gc` removes those of a study that is done
    examples/row12.json what the report shows of the network of a judged run (see search.examples)
    marker              shows that the store is there: without it, a missing object is not lost but away

Logs and examples are written in the background (see objects.background): no trial waits for them.

A checkpoint is written before its epoch is recorded, under a key of its own. The transaction that records the epoch
names it, and then the one before is removed. So what the database names always exists, and what a killed worker left
unnamed is never read. Listings only serve to remove objects.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ralr_tune.errors import DiskError
from ralr_tune.machine.files import write, writing
from ralr_tune.objects.background import BackgroundWriter
from ralr_tune.objects.opening import open_store, reached, unusable
from ralr_tune.objects.patience import patiently
from ralr_tune.objects.stores import Missing, ObjectStore, StoreError
from ralr_tune.objects.url import parse_store
from ralr_tune.records import PAUSED, Row
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.logs import FOLDER, end_of, program_log
from ralr_tune.search.offline import Offline
from ralr_tune.search.stages import pending_stage
from ralr_tune.search.stopping import Stop
from ralr_tune.store import artifacts
from ralr_tune.store.artifacts import Artifact, StoredPlace
from ralr_tune.store.database import Storage
from ralr_tune.training.checkpoint import companion

log = logging.getLogger(__name__)

T = TypeVar("T")

MARKER = "marker"
MAX_BYTES = 4 * 2**30
"""Size of one object (our choice): it is held in memory while it is written."""
_READS = 3
"""Reads of an object whose content does not match its digest, before it counts as damaged."""
_NAME = re.compile(r"row(\d+)/\.?(\d+)-(\d+)\.(?:ckpt|tar|weights)(?:\.\d+)?")
"""(row, attempt, epoch) of an object; also of a file that a killed process left partly written in a folder."""
_PROGRAM_LOG = re.compile(r"row(\d+)/\.?\d+\.log(?:\.\d+)?")
_EXAMPLES = re.compile(r"examples/\.?row(\d+)\.json(?:\.\d+)?")
_CHECKPOINT, _FILES = "checkpoint", "files"
"""Members of a tar object."""


@dataclass(frozen=True)
class Waiting:
    """How the worker that holds a row waits for the store: asked to stop or without its lease, it stops waiting.

    Neither long transfers nor pauses hold a connection to the database's server.
    """

    published: Published
    stop: Stop
    check_lease: Callable[[], None]
    note: Callable[[str | None], None]

    def __call__(self, call: Callable[[], T]) -> T:
        def transfer() -> T:
            with self.published.transfers.stretch():
                return call()

        return patiently(transfer, self.published.shown, wait=self._wait, announce=self._announce)

    def _wait(self, seconds: float) -> None:
        self.check_lease()
        with self.published.storage.resting():
            self.stop.sleep(seconds)

    def _announce(self, reason: str | None) -> None:
        self.note(None if reason is None else f"{PAUSED}artifacts {self.published.shown}: {reason}")


class Published:
    """The objects of one study."""

    def __init__(self, storage: Storage, local: ArtifactStore, place: StoredPlace) -> None:
        """`local`: the study's files in the out folder. Raises UsageError if a package is missing."""
        self.storage, self._local = storage, local
        self.transfers = Offline(storage)
        url = parse_store(place.url)
        self._url, self.shown = url, str(place)
        self._store: ObjectStore = open_store(url, place.folder)
        self.background = BackgroundWriter(self._store, self.shown)
        self._current: dict[int, Artifact] = {}
        """The valid object of each row that this process holds."""

    def check(self, stop: Stop) -> None:
        """Waits until the store answers. Raises UsageError if this machine cannot use it, Interrupted on a stop."""

        def marker() -> None:
            try:
                self._check_marker()
            except StoreError as error:
                if error.lasting:
                    raise unusable(self._url, error) from error
                raise

        patiently(marker, self.shown, wait=stop.sleep)

    def checkpoint(self, row: Row, epoch: int, kept: Path | None, waiting: Waiting) -> Artifact:
        """Writes the attempt's checkpoint; it is valid once `Ledger.progress` has recorded it.

        `kept`: the file or folder that belongs to it, if a program reported one. Raises DiskError.
        """
        path = self._local.checkpoint(row)
        with writing(path):
            content = path.read_bytes() if kept is None else _packed(path, kept)
        return self._put(row, epoch, "ckpt" if kept is None else "tar", content, waiting)

    def weights(self, row: Row, epoch: int, waiting: Waiting) -> Artifact:
        """Writes the attempt's weights; they are valid once `Ledger.finish` has recorded them."""
        path = self._local.draft(row)
        with writing(path):
            content = path.read_bytes()
        return self._put(row, epoch, "weights", content, waiting)

    def settle(self, row: Row, artifact: Artifact) -> None:
        """`artifact` has become the row's valid object: removes the one before."""
        before, self._current[row.id] = self._current.get(row.id), artifact
        if before is not None and before.name != artifact.name:
            self._remove([before.name])

    def fetch(self, row: Row, waiting: Waiting, *, own: bool = True) -> list[Path]:
        """The row's valid checkpoint as a file of the attempt that wrote it; none if there is none, or it is lost.

        `own`: whether this process holds the row.
        """
        artifact = artifacts.valid_of(self.storage, row.id)
        if artifact is None or artifact.name.endswith(".weights"):
            return []
        if own:
            self._current[row.id] = artifact
        path = self._local.checkpoint_of(row.id, _parts(artifact.name)[1])
        packed = artifact.name.endswith(".tar")
        if not packed and _sha256(path) == artifact.sha256:
            return [path]
        content = self._get(artifact, waiting)
        if content is None:
            return []
        _unpack(content, path) if packed else write(path, content)
        return [path]

    def fetch_weights(self, row: Row, waiting: Waiting) -> None:
        """Brings the weights of a judge row to where its test looks for them, unless they are there."""
        path = self._local.weights(row)
        artifact = None if path.exists() else artifacts.valid_of(self.storage, row.id)
        if artifact is not None and artifact.name.endswith(".weights"):
            content = self._get(artifact, waiting)
            if content is not None:
                write(path, content)

    def follow_log(self, row: Row, file: Path) -> None:
        """From now on, `file` is what the row's program prints in this attempt."""
        self.background.follow(program_log(row), end_of(file))

    def end_log(self, row: Row) -> None:
        """The attempt has ended, so that the file may be removed."""
        self.background.finish(program_log(row))

    def shown_log(self, row: Row) -> str | None:
        """Where people find what the row's program prints in this attempt; None: it prints nothing."""
        name = program_log(row)
        return f"{self.shown}/{name}" if self.background.follows(name) else None

    def forget(self, row: Row) -> None:
        """Removes all objects of a row that is done, as far as the store answers; `tidy` removes the others."""
        self._current.pop(row.id, None)
        self.background.forget(_group(row))
        artifacts.forget(self.storage, [row.id])
        self._remove_all(row, None)

    def keep_only(self, row: Row, artifact: Artifact) -> None:
        """Removes all objects of a row but one."""
        self._current.pop(row.id, None)
        self.background.forget(_group(row))
        self._remove_all(row, artifact.name)

    def unneeded(self, read: Callable[[], Sequence[Row]]) -> Mapping[str, int]:
        """Bytes of each object that no worker will read, by name; `read` returns all rows of the ledger.

        Objects are listed before rows and valid objects are read: what is written in between is not in the list. Raises
        StoreError.
        """
        sizes = self._store.sizes()
        if not sizes.keys() - {MARKER}:
            return {}
        rows = read()
        in_use = self._local.in_use(rows)
        attempts = {row.id: row.attempt for row in rows if row.id in in_use}
        valid = artifacts.valid(self.storage, self._local.spec.name)
        ids = {row.id for row in rows}
        return {
            name: size
            for name, size in sizes.items()
            if _is_unneeded(name, attempts, valid)
            or _is_of_others(name, _PROGRAM_LOG, in_use)
            or _is_of_others(name, _EXAMPLES, ids)
        }

    def finished_logs(self, read: Callable[[], Sequence[Row]]) -> Mapping[str, int]:
        """Bytes of each worker's log, by name, if the study is done; `read` and errors as for `unneeded`."""
        sizes = self._store.sizes(FOLDER)
        return sizes if sizes and pending_stage(self._local.spec, read()) is None else {}

    def remove(self, name: str) -> None:
        """Removes one object. Raises StoreError."""
        self._store.remove(name)

    def tidy(self, read: Callable[[], Sequence[Row]]) -> None:
        """Removes what no worker will read, as far as the store answers."""
        recorded = artifacts.valid(self.storage, self._local.spec.name)  # before the rows: each of its rows is in them
        artifacts.forget(self.storage, recorded.keys() - self._local.in_use(read()) if recorded else ())
        try:
            self._remove(self.unneeded(read))
        except StoreError as error:
            log.info("artifacts %s: not tidied: %s", self.shown, error)

    def _put(self, row: Row, epoch: int, suffix: str, content: bytes, waiting: Waiting) -> Artifact:
        if len(content) > MAX_BYTES:
            raise DiskError(
                f"artifacts {self.shown}: the checkpoint of row {row.id} has {len(content):,} bytes; allowed: at most "
                f"{MAX_BYTES:,}; save less, or run the study without --artifacts"
            )
        name = f"{_group(row)}/{row.attempt}-{epoch}.{suffix}"
        waiting(lambda: self._store.put(name, content))
        return Artifact(name, epoch, hashlib.sha256(content).hexdigest(), len(content))

    def _get(self, artifact: Artifact, waiting: Waiting) -> bytes | None:
        """The content of an object; None, with a warning, if it is lost or damaged."""
        for _ in range(_READS):
            content = waiting(lambda: self._found(artifact.name))
            if content is not None and hashlib.sha256(content).hexdigest() == artifact.sha256:
                return content
        log.warning("artifacts %s: %s is missing or damaged", self.shown, artifact.name)
        return None

    def _found(self, name: str) -> bytes | None:
        try:
            return self._store.get(name)
        except Missing:
            self._check_marker()
            return None

    def _check_marker(self) -> None:
        try:
            self._store.get(MARKER)
        except Missing:
            raise StoreError(f"{MARKER} is missing: the objects of this study are gone", lasting=True) from None

    def _remove_all(self, row: Row, but: str | None) -> None:
        try:
            self._remove(name for name in self._store.sizes(_group(row)) if name != but)
        except StoreError as error:
            log.info("artifacts %s: row %d: not removed yet: %s", self.shown, row.id, error)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._store.remove(name)
            except StoreError as error:
                log.info("artifacts %s: %s: not removed yet: %s", self.shown, name, error)
                return


def open_published(storage: Storage, local: ArtifactStore) -> Published | None:
    """The objects of a study; None if its artifacts stay in the out folder."""
    place = artifacts.place_of(storage, local.spec.name)
    return None if place is None else Published(storage, local, place)


def check_marker(place: StoredPlace) -> None:
    """Checks, for a few seconds, that a study's objects can be reached. Raises UsageError."""
    url = parse_store(place.url)
    store = open_store(url, place.folder)
    try:
        reached(lambda: store.get(MARKER))
    except Missing:
        gone = StoreError(f"there is no {place.folder}/{MARKER}: the objects of this study are gone", lasting=True)
        raise unusable(url, gone) from None
    except StoreError as error:
        raise unusable(url, error) from error


def _group(row: Row) -> str:
    return f"row{row.id}"


def _is_of_others(name: str, pattern: re.Pattern[str], rows: Collection[int]) -> bool:
    """Whether a name of this pattern belongs to none of these rows."""
    found = pattern.fullmatch(name)
    return found is not None and int(found[1]) not in rows


def _is_unneeded(name: str, attempts: Mapping[int, int], valid: Mapping[int, Artifact]) -> bool:
    """`attempts`: of the rows that are in use, read before `valid`: an earlier attempt makes nothing valid any more."""
    if _NAME.fullmatch(name) is None:
        return False
    row, attempt, epoch = _parts(name)
    if row not in attempts:
        return True
    current = valid.get(row)
    if current is not None and name == current.name:
        return False
    behind = current is not None and (attempt, epoch) < _parts(current.name)[1:]
    return behind or attempt < attempts[row]


def _parts(name: str) -> tuple[int, int, int]:
    """(row, attempt, epoch) of an object's name."""
    found = _NAME.fullmatch(name)
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _packed(path: Path, kept: Path) -> bytes:
    """A checkpoint file, and the file or folder of its program, as one tar archive."""
    size = sum(part.lstat().st_size for part in ([kept, *kept.rglob("*")] if kept.is_dir() else [kept]))
    if size > MAX_BYTES:
        raise DiskError(
            f"{kept}: {size:,} bytes; allowed with --artifacts: at most {MAX_BYTES:,}; save less, or run the study "
            "without --artifacts"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(path, _CHECKPOINT)
        archive.add(kept, f"{_FILES}/{kept.name}")
    return buffer.getvalue()


def _unpack(content: bytes, path: Path) -> None:
    """The reverse of `_packed`: `path` is written last, when all that it refers to is there. Raises DiskError."""
    folder = companion(path)
    with writing(path), tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            inside = member.name.removeprefix(f"{_FILES}/")
            if inside != member.name:
                folder.mkdir(parents=True, exist_ok=True)
                archive.extract(member.replace(name=inside, deep=False), folder, filter="data")
        file: Any = archive.extractfile(_CHECKPOINT)
        write(path, file.read())
