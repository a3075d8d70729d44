"""What the end of a run needs is imported while the workers train, and how long that took forecasts the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ralr_tune.commands import preloading, run
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Launcher
from ralr_tune.launch.local import LocalProcesses
from ralr_tune.search.forecast import REPORT_S


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_took_s", [])


def measure(monkeypatch: pytest.MonkeyPatch, seconds: float, cpu: float) -> float:
    """The forecast after imports of so many seconds, of which this process used so many."""
    walls, used = iter((10.0, 10.0 + seconds)), iter((1.0, 1.0 + cpu))
    clock = SimpleNamespace(monotonic=lambda: next(walls), thread_time=lambda: next(used))
    monkeypatch.setattr(preloading, "time", clock)
    monkeypatch.setattr(preloading, "MODULES", ("ralr_tune.never_imported",))
    monkeypatch.setattr(preloading, "import_module", lambda name: None)
    preloading.preload()
    return preloading.report_s()


@pytest.mark.parametrize(
    ("seconds", "cpu", "expected"),
    [
        (preloading.IMPORT_S, 2.0, REPORT_S),
        (preloading.IMPORT_S / 2, 1.0, REPORT_S / 2),
        (2 * preloading.IMPORT_S, 4.0, 2 * REPORT_S),
        (100.0, preloading.IMPORT_S / preloading.MAX_WAITING, REPORT_S),  # mostly a slow disk
        (1000.0, 1000.0, preloading.MAX_REPORT_S),
    ],
)
def test_a_machine_that_imports_slowly_reports_slowly(
    monkeypatch: pytest.MonkeyPatch, seconds: float, cpu: float, expected: float
) -> None:
    assert measure(monkeypatch, seconds, cpu) == pytest.approx(expected)


def test_imports_from_before_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "MODULES", ("sys", "math"))
    preloading.preload()
    assert preloading.report_s() == REPORT_S


@pytest.mark.parametrize(("launcher", "imported"), [(InProcess, 0), (LocalProcesses, 1), (None, 1)])
def test_only_threads_of_this_process_import_by_themselves(
    monkeypatch: pytest.MonkeyPatch, launcher: type[Launcher] | None, imported: int
) -> None:
    called = []
    monkeypatch.setattr(run, "preload", lambda: called.append("imports"))
    run._tick(launcher() if launcher else None, lambda: called.append("progress"))
    assert called == ["imports"] * imported + ["progress"]
