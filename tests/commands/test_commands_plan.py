"""The maximum time of a study: workers that share a device do not count as further devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.commands import plan
from ralr_tune.commands.plan import plan_study
from ralr_tune.report.words import duration
from ralr_tune.search.forecast import REPORT_S, START_S
from tests.studies import simulated_text


@pytest.fixture
def study(tmp_path: Path) -> str:
    file = tmp_path / "sim.toml"
    file.write_text(simulated_text(search={"trials": 8}))
    return str(file)


@pytest.mark.parametrize(
    ("devices", "workers", "at_once"),
    [
        ("cpu", 1, 1),
        ("cpu", 8, 2),  # two cores
        ("cuda:0,cuda:1", 2, 2),
        ("cuda:0", 4, 1),
        ("cuda:0,cuda:1", 3, 2),
        ("cuda:0,cpu", 2, 2),
    ],
)
def test_workers_that_share_count_once(
    study: str, monkeypatch: pytest.MonkeyPatch, devices: str, workers: int, at_once: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for module in ("ralr_tune.launch.devices", "ralr_tune.commands.plan"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 2)
    monkeypatch.setattr(plan, "seconds_per_epoch", lambda spec, place: 2.0)
    found = plan_study(study, devices=devices, workers=workers)
    assert (found.workers, found.at_once) == (workers, at_once)
    assert found.seconds == START_S + found.epochs * 2.0 / at_once + REPORT_S
    assert found.expected_seconds == START_S + found.expected_epochs * 2.0 / at_once + REPORT_S
    assert f"time: about {duration(found.expected_seconds)}, at most {duration(found.seconds)}, on" in found.as_text()
    assert found.expected_epochs < found.epochs  # three trials of each arm may be pruned
    shared = f"on {workers} workers, counted as {at_once} because they share devices ("
    assert (shared in found.as_text()) == (at_once < workers)
    assert found.as_json()["at_once"] == at_once
