"""The file of a SQLite database: problems with it that SQLite itself does not notice."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from ralr_tune.errors import StorageError
from ralr_tune.store.address import Address

_KINDS = ("9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "davfs", "gcsfuse", "glusterfs", "gpfs", "juicefs", "lustre")
_MORE = ("ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "rclone", "s3fs", "smb2", "smb3", "smbfs", "sshfs", "virtiofs")
_NETWORK = frozenset({*_KINDS, *_MORE})
"""File systems that other machines may write to (as Linux and macOS name them)."""


class WatchedFile:
    """A database file that must remain the file that was opened.

    After it is deleted or replaced, an open connection continues to write to a file that no process can open any more,
    and a new connection creates an empty database.
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


def network_file_system(path: Path) -> str | None:
    """The network file system that a path lies on; None if it lies on a local disk."""
    target = path.resolve()
    kinds = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((kinds[folder] for folder in (target, *target.parents) if folder in kinds), "")
    return kind if kind.lower().removeprefix("fuse.") in _NETWORK else None


def refuse_network(address: Address) -> None:
    """StorageError if a SQLite file lies where its locks are unreliable (https://www.sqlite.org/useovernet.html)."""
    if trouble := network_trouble(address):
        raise StorageError(f"{trouble}; use a local disk, PostgreSQL or MariaDB, or add --force")


def network_trouble(address: Address) -> str:
    """What is wrong with the location of a SQLite file; "" if nothing is."""
    kind = network_file_system(address.file) if address.file else None
    where = f"{address}: lies on a network file system ({kind})"
    trouble = "where SQLite's locks do not work between machines and the database may be corrupted"
    return f"{where}, {trouble}" if kind else ""
