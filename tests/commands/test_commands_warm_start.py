"""`search.start_from`: taken once, the same in every arm, and never as a result of the new study."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.report import make_report
from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.commands.starting import start_lines
from ralr_tune.commands.status import study_status
from ralr_tune.errors import UsageError
from ralr_tune.records import Row, StudyRecord
from ralr_tune.store import starts, studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from tests.studies import simulated


def before(**changes: Any) -> StudySpec:
    return simulated(study={"name": "before"}, search={"trials": 3, "sampler": "random"} | changes)


def after(**search: Any) -> StudySpec:
    return simulated(search={"trials": 8, "sampler": "random", "start_from": "before"} | search)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends with a report; the one that a test reads is made by itself."""
    monkeypatch.setattr("ralr_tune.commands.report.make_report", lambda *_, **__: None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def opened(url: str) -> Any:
    storage = open_storage(url, create=True)
    yield storage
    storage.dispose()


def searched(spec: StudySpec, url: str, out: Path) -> None:
    run(spec, storage=url, out=out, workers=1, devices="cpu", launcher="inprocess", confirm=False)


def shared(row: Row) -> dict[str, Any]:
    return {name: row.params[name] for name in ("lr", "weight_decay")}


def of(record: StudyRecord, arm: str) -> list[Row]:
    return list(record.arms[arm].search())


def test_a_study_starts_from_the_best_trials_of_an_earlier_one(url: str, opened: Storage, tmp_path: Path) -> None:
    searched(before(), url, tmp_path / "before")
    searched(after(), url, tmp_path / "after")
    earlier, record = read_study(opened, "before"), read_study(opened, "sim")
    assert record.start is not None
    assert (record.start.study, len(record.start.trials)) == ("before", 2)
    best = max(of(earlier, "monotone"), key=lambda row: -1.0 if row.value is None else row.value)
    for arm in ("monotone", "ralr"):
        rows = of(record, arm)
        assert len(rows) == 8, "taken configurations are trials of the budget"
        assert shared(rows[0]) == shared(best)
        trials = studies.optuna_trials(opened, f"sim/{arm}")
        assert len(trials) == 8, "no trial of the earlier study is in this one"
    assert shared(of(record, "monotone")[1]) == shared(of(record, "ralr")[1])
    assert "Every arm first tries the same 2 configurations" in study_status(opened, "sim").as_text()
    make_report(opened, "sim", tmp_path / "after")
    page = (tmp_path / "after" / "report.html").read_text()
    assert "the best search trials of study before" in page


def test_what_was_taken_stays_when_the_earlier_study_grows(url: str, opened: Storage, tmp_path: Path) -> None:
    searched(before(), url, tmp_path / "before")
    options = RunOptions(storage=url, out=tmp_path / "after")
    init(after(), options)
    first = read_study(opened, "sim").start
    searched(before(trials=6), url, tmp_path / "before")
    init(after(trials=40, blocks=2), options)
    assert first is not None
    names = ["sim/monotone", "sim/ralr", "sim/monotone#2", "sim/ralr#2"]
    assert [starts.first(opened, [name]) for name in names] == [first] * 4


def test_several_processes_that_begin_a_study_take_the_same_once(url: str, opened: Storage, tmp_path: Path) -> None:
    searched(before(), url, tmp_path / "before")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: init(after(), RunOptions(storage=url, out=tmp_path / str(number))), range(4)))
    found = {str(starts.first(opened, [f"sim/{arm}"])) for arm in ("monotone", "ralr")}
    assert len(found) == 1
    assert "None" not in found


def test_an_unknown_study_is_refused_with_the_nearest_name_before_anything_is_created(url: str, tmp_path: Path) -> None:
    init(before(), RunOptions(storage=url, out=tmp_path / "before"))
    with pytest.raises(UsageError, match='did you mean "before"'):
        init(after(start_from="befor"), RunOptions(storage=url, out=tmp_path / "after"))
    assert not (tmp_path / "after").exists()


def test_a_study_without_storage_url_is_found_where_run_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    run(before(), workers=1, devices="cpu", launcher="inprocess", confirm=False)
    lines = start_lines(after(), f"sqlite:///{tmp_path}/runs/sim/study.db")
    assert lines[0].startswith("Every arm first tries the same 2 configurations")
    with pytest.raises(UsageError, match='did you mean "before"'):
        start_lines(after(start_from="befor"), f"sqlite:///{tmp_path}/runs/sim/study.db")
