"""Databases, checkpoints and exported files of the previous release: read, resumed and reported as before.

The fixture, and what that release came to from there, were made with its own code: tests/store/previous_release/.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.records import StudyRecord
from ralr_tune.store.database import open_storage
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile.exported import load_exported
from tests.commands.conftest import Cli
from tests.store.previous_release import restore
from tests.store.previous_release.answers import rows_of
from tests.store.previous_release.restore import Restored

EXACT_IN_TRAINING = (
    "arm", "stage", "block", "ordinal", "role", "source", "seed", "trial", "attempt", "state", "outcome", "failure",
    "epoch", "params",
)  # fmt: skip
"""Fields of a real network's rows that are the same on every processor; accuracies may differ."""
TOLERANCE = 0.1
"""Of an accuracy after a few epochs (our choice): sums differ from one processor to the next, and with them the classes
of a few images. Seeds, and what is pruned or chosen, are compared exactly."""
ROUNDING = {"rel": 1e-6, "abs": 1e-9}
"""Of every other number (our choice): exp and log of two processors differ in the last digit, and with them what a
sampler draws. Measured: 2e-16 of a learning rate between two processors of one make."""


@pytest.fixture
def old(bare_url: str, tmp_path: Path) -> Restored:
    """Both studies, interrupted, on each kind of server."""
    return restore.restore(bare_url, tmp_path / "old")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers compute with one thread, as those of the fixture did."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def record(old: Restored, study: str) -> StudyRecord:
    storage = open_storage(old.url)
    try:
        return read_study(storage, study)
    finally:
        storage.dispose()


def resumed(cli: Cli, old: Restored, study: str) -> Any:
    """`run --json` to the end of the study, with one worker, from the study's original file."""
    file = restore.HERE / f"{study}.toml"
    return cli("run", file, *old.place, "--workers", 1, "--devices", "cpu", "--json").json()


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Differences from the expected JSON. Additional keys do not count: later releases may add some."""
    if isinstance(expected, dict) and isinstance(found, dict):
        gone = [f"{path}.{key} is gone" for key in expected.keys() - found.keys()]
        both = [key for key in expected if key in found]
        return gone + [line for key in both for line in differences(expected[key], found[key], f"{path}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = zip(expected, found, strict=True)
        return [line for i, pair in enumerate(pairs) for line in differences(*pair, f"{path}[{i}]")]
    return [] if _same(expected, found) else [f"{path}: {found} instead of {expected}"]


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return found == pytest.approx(expected, **ROUNDING)
    return bool(expected == found)


def assert_resumed_from_checkpoints(old: Restored, study: str, kept: dict[int, list[float]]) -> None:
    """Epochs in a checkpoint were not trained again: they have the seconds that it recorded."""
    curves = {row.id: row.curve for arm in record(old, study).arms.values() for row in arm.rows}
    interrupted = [row_id for row_id, seconds in kept.items() if seconds]
    assert interrupted
    for row_id in interrupted:
        seconds = kept[row_id]
        assert [epoch.seconds for epoch in curves[row_id][: len(seconds)]] == seconds


def assert_exported(old: Restored, study: str) -> None:
    """best/ARM.toml are those of the previous release, except for date and versions."""
    for expected in (restore.HERE / "best" / study).iterdir():
        tables = [tomllib.loads(path.read_text()) for path in (expected, old.out / "best" / expected.name)]
        for table in tables:
            del table["provenance"]["created"], table["provenance"]["packages"]
        assert differences(*tables) == []


@pytest.mark.parametrize("study", restore.STUDIES)
def test_finished_work_is_shown(study: str, old: Restored, cli_inside: Cli) -> None:
    before = restore.answers(study)["before"]
    assert differences(before["status"], cli_inside("status", study, *old.place, "--json").json()) == []
    assert differences(before["rows"], rows_of(record(old, study))) == []


def test_a_simulated_study_gives_the_same_numbers(old: Restored, cli_inside: Cli) -> None:
    kept, expected = old.recorded_seconds("old-curves"), restore.answers("old-curves")
    report = resumed(cli_inside, old, "old-curves")
    found = rows_of(record(old, "old-curves"))
    assert differences(_with_twins_of(found, expected["rows"]), found) == []
    assert differences(_before_run_noise_counted_once(expected["report"]), _before_run_noise_counted_once(report)) == []
    assert_resumed_from_checkpoints(old, "old-curves", kept)
    assert_exported(old, "old-curves")


def test_a_real_network_gives_the_same_accuracies(old: Restored, cli: Cli, cli_inside: Cli) -> None:
    """Which trials are drawn, started, chosen and judged is exact; accuracies are as close as between two CPUs."""
    study, expected = "old-digits", restore.answers("old-digits")
    kept, file = old.recorded_seconds(study), restore.HERE / "old-digits.toml"
    assert "is ready" in cli_inside("run", file, *old.place, "--init").out
    assert cli("worker", study, *old.place, "--device", "cpu", "--threads", 1).code == 0
    report = cli_inside("run", file, *old.place, "--json").json()
    found = rows_of(record(old, study))
    assert differences(_named(expected["rows"], EXACT_IN_TRAINING), _named(found, EXACT_IN_TRAINING)) == []
    for then, now in zip(expected["rows"], found, strict=True):
        assert [now["value"], *now["curve"]] == pytest.approx([then["value"], *then["curve"]], abs=TOLERANCE)
    for arm, facts in expected["report"]["arms"].items():
        best, confirm = facts["best"], facts["confirm"]
        exact = {
            "best": {"trial": best["trial"], "params": best["params"]},
            "confirm": {"seeds": confirm["seeds"]},
        }
        assert differences(exact, report["arms"][arm]) == []
    assert_resumed_from_checkpoints(old, study, kept)


def test_an_exported_network_trains_to_the_same_score(tmp_path: Path, cli: Cli) -> None:
    config = shutil.copy(restore.HERE / "best" / "old-digits" / "ralr.toml", tmp_path)
    assert load_exported(config).provenance.study == "old-digits"
    assert cli("train", config, "--device", "cpu").code == 0
    score = json.loads((tmp_path / "ralr" / "score.json").read_text())
    assert score["value"] == pytest.approx(restore.answers("old-digits")["score"], abs=TOLERANCE)


def test_an_exported_simulated_configuration_has_the_same_score(tmp_path: Path, cli_inside: Cli) -> None:
    config = shutil.copy(restore.HERE / "best" / "old-curves" / "ralr.toml", tmp_path)
    cli_inside("train", config)
    score = json.loads((tmp_path / "ralr" / "score.json").read_text())
    assert score["value"] == restore.answers("old-curves")["score"]


def _with_twins_of(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Since 2026-11-30 only an arm's best winner has a twin; before, the winner of every block had one."""
    ((block, source),) = {(row["block"], row["source"]) for row in found if row["role"] == "twin"}
    return [row for row in expected if row["role"] != "twin" or (row["block"], row["source"]) == (block, source)]


def _before_run_noise_counted_once(report: dict[str, Any]) -> dict[str, Any]:
    """Without what the verdict over blocks gives otherwise since 2026-11-30: its interval, p-value and reach."""
    made = [
        {key: value for key, value in each.items() if each["what"] != "arm" or key in ("arm", "difference", "n")}
        for each in report["comparisons"]
    ]
    return report | {"comparisons": made, "reach": [each for each in report["reach"] if each["what"] != "arm"]}


def _named(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names} for row in rows]
