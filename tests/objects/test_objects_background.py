"""Logs reach the store by themselves, whole and with their latest content, and neither wait for it nor fail with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ralr_tune.objects import background
from ralr_tune.objects.background import BackgroundWriter
from ralr_tune.objects.stores import FolderStore, StoreError
from tests.waiting import until

Make = Callable[..., BackgroundWriter]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "store")
    made.create()
    return made


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(background, "PERIOD_S", 0.02)
    monkeypatch.setattr(background, "wait_s", lambda failures: 0.01)
    made = []

    def writer(store: Any) -> BackgroundWriter:
        made.append(BackgroundWriter(store, "here"))
        return made[-1]

    yield writer
    for each in made:
        each.close()


def test_an_object_follows_its_source_until_that_ends(make: Make, store: FolderStore, tmp_path: Path) -> None:
    log, writer = tmp_path / "log", make(store)
    writer.follow("row1/1.log", lambda: log.read_bytes() if log.exists() else None)
    log.write_bytes(b"one\n")
    until(lambda: store.sizes() == {"row1/1.log": 4}, "the log is written")
    log.write_bytes(b"one\ntwo\n")
    writer.finish("row1/1.log")
    log.unlink()
    until(lambda: store.get("row1/1.log") == b"one\ntwo\n", "its end is written")
    until(lambda: not writer.follows("row1/1.log"), "nothing of it is kept in memory")


def test_what_has_not_changed_is_not_written_again(make: Make, store: FolderStore, monkeypatch: Any) -> None:
    written: list[str] = []
    monkeypatch.setattr(store, "put", lambda name, content: written.append(name))
    reads: list[int] = []
    make(store).follow("logs/a.log", lambda: (reads.append(1), b"the same")[1])
    until(lambda: len(reads) > 3, "it is inspected several times")
    assert written == ["logs/a.log"]


def test_a_store_that_is_away_gets_the_latest_content_when_it_is_back(
    make: Make, store: FolderStore, tmp_path: Path
) -> None:
    content, reads = [b"first"], []
    (tmp_path / "store").rename(tmp_path / "unmounted")
    make(store).follow("logs/a.log", lambda: (reads.append(1), content[0])[1])
    until(lambda: len(reads) > 2, "it is tried again")
    content[0] = b"second"
    (tmp_path / "unmounted").rename(tmp_path / "store")
    until(lambda: "logs/a.log" in store.sizes(), "it is written")
    assert store.get("logs/a.log") == b"second"


def test_closing_writes_the_rest_and_waits_for_a_bounded_time(
    make: Make, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PERIOD_S", 3600.0)
    writer, failures = make(store), [StoreError("no answer"), StoreError("no answer")]
    put = store.put

    def failing(name: str, content: bytes) -> None:
        if failures:
            raise failures.pop()
        put(name, content)

    monkeypatch.setattr(store, "put", failing)
    writer.follow("logs/a.log", lambda: b"the end")
    writer.close()
    assert store.get("logs/a.log") == b"the end"
    stuck, answer = make(store), Event()
    monkeypatch.setattr(store, "put", lambda name, content: answer.wait())
    stuck.write("logs/b.log", b"never")
    stuck.close(timeout_s=0.05)  # returns
    answer.set()


def test_a_log_that_is_forgotten_while_it_is_written_does_not_come_back(
    make: Make, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that finishes a row removes its objects; it does not wait for an upload."""
    writing, go_on, put, writer = Event(), Event(), store.put, make(store)

    def slow(name: str, content: bytes) -> None:
        writing.set()
        go_on.wait()
        put(name, content)

    monkeypatch.setattr(store, "put", slow)
    writer.follow("row1/1.log", lambda: b"x")
    writer.follow("row11/1.log", lambda: b"y")
    assert writing.wait(60)
    writer.forget("row1")
    go_on.set()
    writer.close()
    assert set(store.sizes()) == {"row11/1.log"}
