"""The progress that `run` shows when it is called from Python: in a notebook, on a terminal, or if asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ralr_tune import run
from ralr_tune.commands import watching
from tests.studies import simulated

SMALL: dict[str, dict[str, Any]] = {
    "training": {"epochs": 1},
    "search": {"trials": 1},
    "confirm": {"top": 1, "seeds": 2},
}


def kernel(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """As if IPython ran this code in a shell of this class."""
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=type(shell, (), {})))


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (None, False), (False, False)])
def test_progress_is_shown_where_it_is_asked_for(
    progress: bool | None, shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal it is shown as lines."""
    report = run(simulated(**SMALL), out=tmp_path, launcher="inprocess", workers=1, progress=progress)
    out, err = capsys.readouterr()
    assert ("sim: search" in err) is shown
    assert out == ""
    assert set(report.best) == set(report.files) == {"monotone", "ralr"}
    assert report.best["ralr"].command.endswith("best/ralr.toml")
    assert set(report.figures) >= {"scores", "differences"}
    assert len(report.trials()) == 2
    assert {type(each).__name__ for each in report.verdicts} == {"Comparison", "Twin", "Amplified"}


def test_a_terminal_or_a_notebook_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert not watching.is_watched()
    kernel(monkeypatch, "TerminalInteractiveShell")
    assert not watching.is_watched()
    kernel(monkeypatch, "ZMQInteractiveShell")
    assert watching.is_watched()
    monkeypatch.delitem(sys.modules, "ipykernel")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert watching.is_watched()


def test_a_notebook_without_ipywidgets_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, "ZMQInteractiveShell")
    monkeypatch.setattr(watching, "find_spec", lambda name: None)
    assert not watching.display()._console.is_terminal
    assert not watching.display()._console.is_jupyter
