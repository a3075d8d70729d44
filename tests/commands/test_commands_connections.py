"""More workers than connections: said before anything is created, with both numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from ralr_tune.commands import connections
from ralr_tune.commands.connections import refuse_shortage, shortage_at
from ralr_tune.commands.plan import plan_study
from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import UsageError
from ralr_tune.store.probing import Connections
from tests.studies import simulated

BEHIND = "sqlite:///x.db"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server allows three connections, one of which is free."""
    monkeypatch.setattr(connections, "connections", lambda url: Connections(used=2, allowed=3))


@pytest.mark.parametrize("start", [run, init])
def test_more_workers_than_a_server_allows_are_refused_before_anything_is_created(
    start: Callable[..., object], few: None, tmp_path: Path
) -> None:
    options = RunOptions(storage=f"sqlite:///{tmp_path}/s.db", out=tmp_path / "out", workers=4, launcher="inprocess")
    with pytest.raises(UsageError, match=r"4 workers, and the database allows 3 connections: raise its"):
        start(simulated(), options)
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_are_free_now_are_a_warning(few: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        refuse_shortage(BEHIND, 2)
    (said,) = caplog.messages
    assert said.startswith("2 workers, and 1 of the database's 3 connections are free")
    refuse_shortage(BEHIND, 1)
    assert len(caplog.messages) == 1


def test_plan_says_both_numbers(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = simulated()
    (tmp_path / "few.toml").write_text(spec.text)
    advice = plan_study("few.toml", devices="cpu", workers=9).advice
    assert any("9 workers, and the database allows 3 connections" in each for each in advice)


def test_servers_are_asked_and_files_have_no_limit(server_url: str) -> None:
    assert "1000000 workers" in (shortage_at(server_url, 1_000_000) or "")
    assert shortage_at(server_url, 1) is None
    assert shortage_at(BEHIND, 1_000_000) is None


def test_a_server_that_does_not_answer_is_no_shortage() -> None:
    refuse_shortage("postgresql://me@127.0.0.1:1/db", 5)
    assert "were not compared" in (shortage_at("postgresql://me@127.0.0.1:1/db", 5) or "")
