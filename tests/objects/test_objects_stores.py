"""Every store writes whole objects, tells a missing one from a store that is away, and lists what is there now."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from ralr_tune.errors import DiskError, Interrupted, UsageError
from ralr_tune.objects import opening
from ralr_tune.objects.opening import check_store, create_store, open_store
from ralr_tune.objects.patience import MAX_PAUSE_S, QUIET_FAILURES, patiently, wait_s
from ralr_tune.objects.stores import FolderStore, FsspecStore, Missing, ObjectStore, StoreError
from ralr_tune.objects.url import StoreUrl
from tests.engines.object_server import BUCKET, ObjectServer, obstacle

Make = Callable[[], ObjectStore]


def folder_store(tmp_path: Path) -> ObjectStore:
    made = FolderStore(tmp_path / "store" / "study")
    made.create()
    return made


def memory_store() -> ObjectStore:
    return FsspecStore(fsspec.filesystem("memory"), f"{uuid4().hex}/study")


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    made = ObjectServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        made.client().create_bucket(Bucket=BUCKET)
        yield made
    made.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same objects again, as another process does."""
    if request.param == "folder":
        folder_store(tmp_path)
        return lambda: FolderStore(tmp_path / "store" / "study")
    if request.param == "memory":
        same = memory_store()
        return lambda: same
    request.getfixturevalue("server")
    name = uuid4().hex
    return lambda: open_store(StoreUrl("s3", f"{BUCKET}/team"), name)


def test_what_is_written_is_read_listed_and_removed(make: Make) -> None:
    one, other = make(), make()
    assert dict(one.sizes()) == {}
    one.put("marker", b"m")
    one.put("row1/1-1.ckpt", b"\0" * 3_000_000)
    one.put("row1/1-2.ckpt", b"two")
    one.put("row12/1-1.ckpt", b"")
    assert other.get("row1/1-1.ckpt") == b"\0" * 3_000_000
    assert other.get("row12/1-1.ckpt") == b""
    assert dict(other.sizes("row1")) == {"row1/1-1.ckpt": 3_000_000, "row1/1-2.ckpt": 3}
    one.put("marker", b"another")
    assert other.get("marker") == b"another"
    one.remove("row1/1-1.ckpt")
    one.remove("row1/1-1.ckpt")
    assert dict(other.sizes("row1")) == {"row1/1-2.ckpt": 3}
    assert dict(other.sizes()) == {"marker": 7, "row1/1-2.ckpt": 3, "row12/1-1.ckpt": 0}
    with pytest.raises(Missing):
        other.get("row1/1-1.ckpt")
    with pytest.raises(Missing):
        other.get("row7/1-1.ckpt")
    assert dict(other.sizes("row7")) == {}


def test_a_folder_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    """A file system that is not mounted must not be replaced by the local disk."""
    store = folder_store(tmp_path)
    (tmp_path / "store").rename(tmp_path / "unmounted")
    (tmp_path / "store").mkdir()
    for call in (lambda: store.put("row1/1-1.ckpt", b"x"), lambda: store.get("marker"), store.sizes):
        with pytest.raises(StoreError, match="there is no folder"):
            call()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_file_is_whole_or_absent_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder_store(tmp_path)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left") as raised:
        store.put("row1/1-1.ckpt", b"x")
    assert not raised.value.lasting
    assert dict(store.sizes()) == {}


class _Broken:
    """A client whose every call fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            raise self._error

        return call


class NoCredentialsError(Exception):
    """Named like botocore's, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "lasting", "reason"),
    [
        (PermissionError("Access\nDenied"), True, "access is refused: Access Denied"),
        (NoCredentialsError("Unable to locate credentials"), True, "Unable to locate credentials"),
        (ConnectionError("Could not connect"), False, "Could not connect"),
        (RuntimeError(), False, "RuntimeError"),
        (TimeoutError("x" * 1000), False, "x" * 200 + "..."),
        (OSError("postgresql://me:secret@h/d"), False, "postgresql://me:***@h/d"),
    ],
)
def test_every_error_of_a_client_is_one_line(error: Exception, lasting: bool, reason: str) -> None:
    store = FsspecStore(_Broken(error), "bucket/p")
    for call in (lambda: store.put("a", b""), lambda: store.get("a"), store.sizes, lambda: store.remove("a")):
        with pytest.raises(StoreError) as raised:
            call()
        assert (str(raised.value), raised.value.lasting) == (reason, lasting)


def test_a_missing_bucket_is_not_a_missing_object() -> None:
    store = FsspecStore(_Broken(FileNotFoundError("NoSuchBucket")), "bucket/p")
    with pytest.raises(StoreError, match="there is no such bucket"):
        store.put("a", b"")
    with pytest.raises(Missing):
        store.get("a")


# ---------------------------------------------------------------- before a study depends on it


def test_checking_leaves_nothing_behind_and_creating_makes_one_folder(tmp_path: Path) -> None:
    url = StoreUrl("file", str(tmp_path / "store"))
    assert check_store(url) > 0
    assert list(tmp_path.iterdir()) == []
    create_store(url, "sim-1", "marker")
    assert open_store(url, "sim-1").get("marker") == b"sim-1"
    assert check_store(url) > 0
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["sim-1"]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, line in {
        tmp_path / "file": "not a folder",
        tmp_path / "none/store": f"there is no folder {tmp_path}/none; create it, or mount its file system",
        Path("/proc/store"): "cannot be written: No such file or directory; check that it exists",
    }.items():
        with pytest.raises(UsageError, match=f"--artifacts {path}: {line}"):
            check_store(StoreUrl("file", str(path)))


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_package_that_is_not_installed(protocol: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UsageError, match=rf"{package} is not installed; type: .* -m pip install 'ralr-tune\[{protocol}\]'"
    ):
        open_store(StoreUrl(protocol, "bucket/p"))


def test_a_bucket_that_cannot_be_used(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "CHECK_S", 0.5)
    bucket = StoreUrl("s3", f"{BUCKET}/team")
    assert check_store(bucket) > 0
    assert [key for key in server.objects() if "check" in key] == []
    with pytest.raises(
        UsageError, match="s3://no-such-bucket/p: cannot be written: there is no such bucket; check that"
    ):
        check_store(StoreUrl("s3", "no-such-bucket/p"))
    with (
        server.answering(403, "AccessDenied"),
        pytest.raises(UsageError, match=r"access is refused: for a while; .* credentials by AWS_ACCESS_KEY_ID"),
    ):
        check_store(bucket)
    with server.answering(500, "InternalError"), pytest.raises(UsageError, match="check that it can be reached"):
        check_store(bucket)
    with server.away(), pytest.raises(UsageError, match="check that it can be reached"):
        check_store(bucket)
    assert check_store(bucket) > 0


# ---------------------------------------------------------------- waiting


class _Away:
    """Fails so many times."""

    def __init__(self, failures: int) -> None:
        self.left, self.now = failures, 0.0
        self.said: list[str | None] = []

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise StoreError("no answer")
        return "found"

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def patiently(self) -> str:
        return patiently(self, "s3://b/p", wait=self.wait, announce=self.said.append, clock=lambda: self.now)


def test_a_short_failure_is_retried_quietly(caplog: pytest.LogCaptureFixture) -> None:
    away = _Away(QUIET_FAILURES - 1)
    assert away.patiently() == "found"
    assert (away.said, caplog.messages) == ([], [])


def test_a_long_one_pauses_with_one_line_until_the_store_is_back(caplog: pytest.LogCaptureFixture) -> None:
    away = _Away(100)
    assert away.patiently() == "found"
    assert away.said == ["no answer", None]
    paused, back = caplog.messages
    assert paused == "artifacts s3://b/p: no answer; paused: training goes on when it is back"
    assert back == f"artifacts s3://b/p: back after {away.now:.0f} s; training goes on"


def test_a_worker_does_not_wait_for_ever() -> None:
    away = _Away(10**9)
    with pytest.raises(DiskError, match=r"artifacts s3://b/p: away for 6 hours: no answer; run again: nothing is lost"):
        away.patiently()
    assert MAX_PAUSE_S <= away.now < MAX_PAUSE_S + 60


def test_waiting_ends_when_the_worker_is_asked_to_stop() -> None:
    def wait(seconds: float) -> None:
        raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        patiently(_Away(5), "s3://b/p", wait=wait)


def test_waits_grow_and_are_bounded() -> None:
    assert 0.1 <= wait_s(1) <= 0.25
    assert all(5.0 <= wait_s(failures) <= 10.0 for failures in (7, 20, 2000))


@pytest.mark.parametrize(("error", "kept"), [(ConnectionResetError(), False), (ValueError(), True), (None, True)])
def test_only_tracebacks_of_lost_connections_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception | None, kept: bool
) -> None:
    monkeypatch.setattr(opening, "_file_system", lambda url: fsspec.filesystem("memory"))
    open_store(StoreUrl("s3", "bucket/team"))
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)
    assert bool(caplog.records) == kept
