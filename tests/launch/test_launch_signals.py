"""A signal requests a stop; quick repeats count as the same request; a later signal is a second request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ralr_tune.launch import signals
from ralr_tune.launch.supervisor import signals_as_interrupt
from ralr_tune.launch.worker import stop_on_signals
from ralr_tune.search.stopping import Stop


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_worker_counts_repeats_as_one_request(exits: list[int]) -> None:
    stop = Stop()
    with stop_on_signals(stop):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
    assert stop.requested
    assert exits == []


def test_an_engine_may_announce_its_time_limit_by_another_signal(exits: list[int]) -> None:
    stop = Stop()
    with stop_on_signals(stop, signal.SIGUSR1):
        send(signal.SIGUSR1)
        send(signal.SIGTERM)  # which follows it
    assert stop.requested
    assert exits == []


def test_a_worker_exits_at_once_on_a_later_signal(exits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT_S", 0.0)
    stop = Stop()
    with stop_on_signals(stop):
        send(signal.SIGTERM)
        assert exits == []
        send(signal.SIGINT)
    assert exits == [130]


def test_a_run_counts_repeats_as_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with signals_as_interrupt():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        send(signal.SIGTERM)  # while it stops its workers
        send(signal.SIGHUP)
        monkeypatch.setattr(signals, "REPEAT_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_an_interrupt_within_exec_leaves_the_exit_code_alone() -> None:
    """Importing a named tuple executes text: with a plain KeyboardInterrupt there, Python would end by SIGINT."""
    script = """
import os, signal, sys
from ralr_tune.launch.supervisor import signals_as_interrupt
try:
    with signals_as_interrupt():
        exec("os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass")
except KeyboardInterrupt:
    sys.exit(130)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 130
