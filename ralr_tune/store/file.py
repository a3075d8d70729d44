"""Problems with the file of a SQLite database that SQLite itself does not detect."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psutil

from ralr_tune.errors import StorageError
from ralr_tune.store.address import Address

_A_TO_L = ("9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "davfs", "gcsfuse", "glusterfs", "gpfs", "juicefs", "lustre")
_N_TO_Z = ("ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "rclone", "s3fs", "smb2", "smb3", "smbfs", "sshfs", "virtiofs")
_NETWORK = frozenset({*_A_TO_L, *_N_TO_Z})
"""File systems that other machines may write to (names of Linux and macOS)."""


class WatchedFile:
    """Detects that a database file was deleted or replaced after it was opened.

    An open connection would continue to write to a file that no process can open any more, and a new connection would
    create an empty database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: os.stat_result | None = None

    def check(self) -> None:
        """StorageError if the file was replaced or deleted since the first check."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            if self._opened is None:
                return
            raise StorageError(f"{self._path}: was deleted while it was in use; restore it from a copy") from None
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be reached: {error.strerror}") from error
        if self._opened is None:
            self._opened = now
        elif not os.path.samestat(now, self._opened):
            raise StorageError(f"{self._path}: was replaced by another file while it was in use")


def is_writable(file: Path) -> bool:
    """Whether a SQLite database can be opened for writing: SQLite also creates files in its folder."""
    return all(
        os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids) for path in (file, file.parent)
    )


def connect_read_only(file: Path) -> sqlite3.Connection:
    """A connection to a database that cannot be written to: on a read-only mount, in another user's folder.

    SQLite would create files alongside a database in WAL mode. Without unfinished writes (-wal, -journal), the database
    is opened as immutable. With them and the writing process's shared index (-shm), it is opened read-only, and SQLite
    bypasses the index. Without that index, no process has it open, and SQLite recovers a copy.
    """
    wal, shm, journal = (file.with_name(f"{file.name}{ending}") for ending in ("-wal", "-shm", "-journal"))
    if not any(part.exists() and part.stat().st_size for part in (wal, journal)):
        return _connect(f"{_uri(file)}?mode=ro&immutable=1")
    if shm.exists():
        return _connect(f"{_uri(file)}?mode=ro")
    with tempfile.TemporaryDirectory(prefix="ralr_tune-") as folder:
        for part in (file, wal, journal):
            if part.exists():
                shutil.copy(part, folder)
        with closing(_connect(_uri(Path(folder) / file.name))) as copy:
            found = _connect(":memory:")
            copy.backup(found)
    found.execute("PRAGMA query_only = ON")
    return found


def _uri(file: Path) -> str:
    return f"file:{quote(os.fsencode(file))}"


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, check_same_thread=False)  # SQLAlchemy's pool passes it between threads


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that a path is on; None on a local disk."""
    target = path.resolve()
    kinds = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((kinds[folder] for folder in (target, *target.parents) if folder in kinds), "")
    return kind if kind.lower().removeprefix("fuse.") in _NETWORK else None


def refuse_network(address: Address) -> None:
    """StorageError if a SQLite file is on a network file system (https://www.sqlite.org/useovernet.html)."""
    if problem := network_problem(address):
        raise StorageError(f"{problem}; use a local disk, PostgreSQL or MariaDB, or add --force")


def network_problem(address: Address) -> str:
    """A message if a SQLite file is on a network file system; otherwise ""."""
    kind = network_file_system(address.file) if address.file else None
    location = f"{address}: is on a network file system ({kind})"
    consequence = "where SQLite's locks do not work between machines and the database may be corrupted"
    return f"{location}, {consequence}" if kind else ""
