from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from sqlalchemy.engine import make_url

from ralr_tune.errors import StorageError
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address, sqlite_url
from ralr_tune.store.database import open_storage
from ralr_tune.store.file import is_writable, network_file_system, refuse_network
from tests.metrics import ACCURACY


def database_file(url: str) -> Path:
    return Path(make_url(url).database or "")


def test_a_database_that_is_deleted_in_use_is_detected_at_once(sqlite_url: str) -> None:
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


# ---------------------------------------------------------------- a file that cannot be written to


@pytest.fixture
def registered(new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with one study, on a mount that is read-only from now on (to root, every file is writable)."""
    url = new_database("sqlite")
    storage = open_storage(url)
    studies.register(storage, name="one", text="# \U0001f680", fingerprint="x")
    storage.dispose()
    for module in ("file", "database", "connections"):
        monkeypatch.setattr(f"ralr_tune.store.{module}.is_writable", lambda file: False)
    return database_file(url)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_read_only_database_is_read_and_no_file_is_created_next_to_it(registered: Path) -> None:
    before = files(registered.parent)
    storage = open_storage(sqlite_url(registered))
    assert studies.stored(storage, "one").text == "# \U0001f680"
    with pytest.raises(StorageError, match="attempt to write a readonly database"):
        studies.register(storage, name="two", text="", fingerprint="x")
    assert files(registered.parent) == before
    storage.dispose()


@pytest.mark.parametrize("has_index", [True, False])
def test_unfinished_writes_of_a_killed_process_are_read_too(registered: Path, tmp_path: Path, has_index: bool) -> None:
    """A copy made while the writer still has it open is what a killed one leaves behind."""
    with closing(sqlite3.connect(registered)) as writer:
        writer.execute("UPDATE ralr_tune_studies SET text = 'later'")
        writer.commit()
        for path in registered.parent.iterdir():
            if has_index or not path.name.endswith("-shm"):
                shutil.copy(path, tmp_path)
    before = files(tmp_path)
    assert f"{registered.name}-wal" in before
    storage = open_storage(sqlite_url(tmp_path / registered.name))
    assert studies.stored(storage, "one").text == "later"
    with pytest.raises(StorageError, match="readonly database"):
        studies.update_text(storage, "one", text="", fingerprint="x")
    storage.dispose()
    assert {name: data for name, data in files(tmp_path).items() if not name.endswith("-shm")} == {
        name: data for name, data in before.items() if not name.endswith("-shm")
    }


def test_no_study_starts_in_a_database_that_cannot_be_written_to(registered: Path) -> None:
    with pytest.raises(StorageError, match=r"is read-only, .*make both writable, or copy"):
        open_storage(sqlite_url(registered), create=True)


def test_writable_means_file_and_folder(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.touch()
    assert is_writable(file)
    if os.geteuid() == 0:
        pytest.skip("to root, every file is writable")
    for path in (file, tmp_path):
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        assert not is_writable(file)
        path.chmod(mode)


@pytest.mark.parametrize("name", ["caf\udce9", "50% é?"])
def test_a_folder_of_any_name_holds_a_database(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / name / "study.db"
    storage = open_storage(sqlite_url(file), create=True)
    studies.register(storage, name="one", text="", fingerprint="x")
    storage.dispose()
    monkeypatch.setattr("ralr_tune.store.database.is_writable", lambda file: False)
    storage = open_storage(sqlite_url(file))
    assert studies.names(storage) == ["one"]
    storage.dispose()
