"""The benchmarks run, in their smallest form, so that they cannot rot. No figure of theirs is looked at."""

from __future__ import annotations

import pytest

from benchmarks import large, orchestration


def test_large_studies(capsys: pytest.CaptureFixture[str]) -> None:
    large.main(["--sizes", "10", "20", "--databases", "sqlite"])
    told = capsys.readouterr().out
    assert told.startswith("\nsqlite\n\n| | 10 trials | 20 trials | growth |\n")
    assert {"ask", "status", "report.html", "export", "study"} <= {line.split("|")[1].strip() for line in _rows(told)}


def test_orchestration(capsys: pytest.CaptureFixture[str]) -> None:
    orchestration.main(["--databases", "sqlite", "--trials", "2", "--repeats", "0"])
    assert len(_rows(capsys.readouterr().out)) == 4  # head, rule, short and long trials


@pytest.mark.slow
def test_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    start = orchestration.start_of_digits()
    assert start.rows < start.claim <= start.epoch


def _rows(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("|")]
