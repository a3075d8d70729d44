from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from sqlalchemy.engine import make_url

from ralr_tune.errors import StorageError
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import open_storage
from ralr_tune.store.file import network_file_system, refuse_network
from tests.metrics import ACCURACY


def database_file(url: str) -> Path:
    return Path(make_url(url).database or "")


def test_a_database_that_is_deleted_in_use_is_noticed_at_once(sqlite_url: str) -> None:
    storage = open_storage(sqlite_url)
    assert studies.names(storage) == []
    database_file(sqlite_url).unlink()
    with pytest.raises(StorageError, match="was deleted while it was in use"):
        studies.names(storage)
    with pytest.raises(StorageError, match="was deleted while it was in use"):
        studies.optuna_study(storage, "s/a", metric=ACCURACY)
    assert not database_file(sqlite_url).exists()  # no empty file was created in its place
    storage.dispose()


def test_a_database_that_is_replaced_in_use_is_refused(sqlite_url: str) -> None:
    file = database_file(sqlite_url)
    storage = open_storage(sqlite_url)
    shutil.copy(file, file.with_name("copy.db"))
    file.with_name("copy.db").replace(file)
    with pytest.raises(StorageError, match="was replaced by another file"):
        studies.names(storage)
    storage.dispose()


@pytest.mark.parametrize(
    ("kind", "where", "expected"),
    [
        ("nfs4", "", "nfs4"),
        ("fuse.sshfs", "", "fuse.sshfs"),
        ("CIFS", "", "CIFS"),
        ("ext4", "", None),
        ("tmpfs", "", None),
        ("nfs4", "elsewhere", None),
    ],
)
def test_network_file_systems_are_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str, expected: str | None
) -> None:
    parts = [SimpleNamespace(mountpoint="/", fstype="overlay")]
    parts.append(SimpleNamespace(mountpoint=str(tmp_path.resolve() / where), fstype=kind))
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert network_file_system(tmp_path / "not" / "there" / "study.db") == expected


def test_sqlite_on_a_network_file_system_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype="nfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    with pytest.raises(StorageError, match=r"network file system \(nfs\).*locks.*--force"):
        refuse_network(parse_address(f"sqlite:///{tmp_path}/study.db"))
    refuse_network(parse_address("postgresql://me@db/tuning"))
