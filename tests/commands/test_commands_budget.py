"""`search.budget` through check, plan, run and report: chosen once, then the same for every worker and later run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.check import check_study
from ralr_tune.commands.plan import plan_study
from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.search.forecast import most_epochs
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from tests.commands.conftest import Cli
from tests.studies import budgeted_text

TIMED = {"task": {"data": {"optimum": 0.1, "seconds_per_epoch": 0.001}}}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def text(budget: str, **changes: Any) -> str:
        path = tmp_path / "sim.toml"
        path.write_text(budgeted_text(budget, **changes))
        return str(path)

    return text


def stored(out: Path) -> tuple[StudySpec, int]:
    """The study as workers read it, and its search rows."""
    opened = open_storage(f"sqlite:///{out}/study.db")
    try:
        spec = parse_study(studies.stored(opened, "sim").text)
        return spec, len(Ledger(opened, "sim").rows("search", curves=False))
    finally:
        opened.dispose()


def elsewhere(text: str, out: Path) -> str:
    return init(parse_study(text), RunOptions(out=out))


def test_check_states_the_split_or_the_least(write: Callable[..., str]) -> None:
    assert "budget of 300 epochs: 19 trials per arm, 6 seeds; at most 296 epochs" in check_study(write("300 epochs"))
    with pytest.raises(StudyFileError, match="too little for a verdict, which needs at least 112 epochs"):
        check_study(write("100 epochs"), fast=True)
    study = write("0.005 device minutes", **TIMED)
    assert "budget of 0.005 device minutes, about 300 epochs: 19 trials per arm" in check_study(study)
    assert "a budget of 0.005 device minutes, which was not split: that needs a timing" in check_study(study, fast=True)
    with pytest.raises(StudyFileError, match=r"needs at least 0.0019 device minutes \(112 epochs of 0.001 s\)"):
        check_study(write("0.001 device minutes", **TIMED))


def test_plan_states_the_split_and_what_it_sees(write: Callable[..., str], cli_inside: Cli) -> None:
    found = cli_inside("plan", write("1000 epochs"), "--json").json()
    assert found["budget"].startswith("budget of 1000 epochs: ")
    own, *others = found["outlook"]["answers"]
    assert (own["own"], own["what"], own["epochs"]) == (True, "configuration", found["epochs"])
    assert {other["what"] for other in others} == {"configuration", "arm"}
    assert all(other["epochs"] <= found["epochs"] and not other["own"] for other in others)
    assert 0 < found["outlook"]["error"] < 0.02
    text = plan_study(write("1000 epochs"), devices="cpu", workers=1).as_text()
    assert "\n  budget of 1000 epochs: " in text
    assert "one standard deviation between seeds (sd) is assumed to be the margin, 0.50 points:" in text
    assert f"{own['trials']} (this)" in text


def test_plan_takes_the_noise_of_the_judged_seeds(write: Callable[..., str], tmp_path: Path) -> None:
    study = write("400 epochs")
    run(study, out=tmp_path / "out", workers=1, devices="cpu", launcher="inprocess", progress=False)
    planned = plan_study(study, devices="cpu", workers=1, out=tmp_path / "out")
    assert planned.outlook is not None
    assert planned.outlook.measured
    assert "as its judged seeds show" in planned.as_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "400 epochs: " in page
    assert planned.budget is not None
    assert planned.budget.removeprefix("budget of ") in page


def test_the_split_is_stored_and_a_later_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = budgeted_text("300 epochs")
    elsewhere(text, tmp_path)
    spec, rows = stored(tmp_path)
    assert rows == 2 * spec.search.trials == 2 * 19
    assert most_epochs(spec) <= 300
    # another release may choose otherwise: a study that was started keeps its split
    monkeypatch.setattr("ralr_tune.search.budget.CONFIRM_SHARE", 0.1)
    elsewhere(text, tmp_path)
    assert stored(tmp_path) == (spec, rows)
    with caplog.at_level(logging.INFO):
        elsewhere(budgeted_text("500 epochs"), tmp_path)
    larger, more = stored(tmp_path)
    assert larger.file.split is not None
    assert (larger.file.split.epochs, more) == (500, 2 * larger.search.trials)
    assert 'study file changed: search.budget: "300 epochs" -> "500 epochs"' in caplog.text
    assert "budget of 500 epochs: " in caplog.text


def test_hours_are_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(budget: str) -> None:
        run(parse_study(budgeted_text(budget, **TIMED)), out=tmp_path, workers=1, devices="cpu", launcher="inprocess",
            confirm=False, hours=1e-9, progress=False)  # fmt: skip

    monkeypatch.setattr("ralr_tune.commands.report.make_report", lambda *_, **__: None)
    start("0.005 device minutes")
    spec, _ = stored(tmp_path)
    assert spec.file.split is not None
    assert spec.file.split.epochs == 300
    monkeypatch.setattr("ralr_tune.commands.run.refusals.measured_apart", lambda *_: pytest.fail("timed again"))
    start("0.005 device minutes")
    assert stored(tmp_path)[0] == spec
    start("0.01 device minutes")
    split = stored(tmp_path)[0].file.split
    assert split is not None
    assert split.epochs == 600
    elsewhere(budgeted_text("0.005 device minutes", **TIMED), tmp_path)  # it is known by now


def test_hours_need_workers_on_this_machine_and_a_kind_that_can_be_timed(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"the workers run on other machines, whose speed is not known here; give epoch"
    ):
        elsewhere(budgeted_text("1 device hours", **TIMED), tmp_path / "out")
    with pytest.raises(UsageError, match="how long an epoch takes is not known before the first trial; give epochs"):
        run(parse_study(budgeted_text("1 device hours")), out=tmp_path / "out", launcher="inprocess")
    assert not (tmp_path / "out").exists()
