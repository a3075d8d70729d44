"""What a kind keeps of the winners for the report, from the judged run to the page."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from ralr_tune import run
from ralr_tune.commands.report import make_report
from ralr_tune.errors import DataError
from ralr_tune.kinds.simulated.kind import SimulatedKind
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.search import examples
from ralr_tune.search.examples import load_examples
from ralr_tune.store.database import open_storage
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec, registry
from ralr_tune.tasks.examples import Examples, ExampleTable
from tests.studies import simulated

SMALL: dict[str, Any] = {"training": {"epochs": 2}, "search": {"trials": 2}, "confirm": {"top": 1, "seeds": 2}}


class ShowingKind(SimulatedKind):
    """Shows the number of epochs of each arm's network."""

    def examples(self, task: SimulatedTask, trial: SimulatedTrial) -> Mapping[str, Any]:
        assert trial.finished
        return {"epochs": len(trial.curve), "value": trial.evaluate("validation")}

    def shown_examples(self, section: Any, by_arm: Mapping[str, Mapping[str, Any]]) -> Examples:
        if any("epochs" not in content for content in by_arm.values()):
            raise DataError("no epochs")
        rows = tuple((arm, str(content["epochs"])) for arm, content in by_arm.items())
        return Examples("Networks <and> their epochs.", (ExampleTable("All.", ("arm", "epochs"), rows),))


class FailingKind(SimulatedKind):
    """Cannot make examples."""

    def examples(self, task: SimulatedTask, trial: SimulatedTrial) -> Mapping[str, Any]:
        raise ValueError("no idea")


def showing(kind: type[SimulatedKind] = ShowingKind) -> StudySpec:
    return replace(simulated(**SMALL), kind=kind())


@pytest.fixture
def through_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report reads the study file again, and finds the kind by its name."""
    monkeypatch.setattr(registry, "find", lambda name: ShowingKind())


@pytest.mark.usefixtures("through_the_report")
def test_the_examples_of_all_winners_are_on_the_page(tmp_path: Path) -> None:
    report = run(showing(), workers=1, launcher="inprocess", out=tmp_path)
    page = report.page.read_text()
    assert "Networks &lt;and&gt; their epochs." in page
    assert [path.name for path in sorted(tmp_path.rglob("examples/*/*.json"))] == ["monotone.json", "ralr.json"]
    for path in tmp_path.rglob("examples/*/*.json"):
        path.write_text('{"seed": 1')
    assert "their epochs" not in run(showing(), workers=1, launcher="inprocess", out=tmp_path).page.read_text()


@pytest.mark.usefixtures("through_the_report")
def test_only_the_current_winner_is_shown(tmp_path: Path) -> None:
    report = run(showing(), workers=1, launcher="inprocess", out=tmp_path)
    assert report.address is not None
    rows = read_study(open_storage(report.address.plain), "sim").rows()
    (key,) = {path.parent.name for path in tmp_path.rglob("examples/*/*.json")}
    assert load_examples(tmp_path, key, rows).keys() == {"monotone", "ralr"}
    others = [replace(row, source=(row.source or 0) + 1) for row in rows if row.arm == "ralr"]
    assert load_examples(tmp_path, key, others) == {}


@pytest.mark.usefixtures("through_the_report")
def test_a_report_on_another_machine_brings_the_examples_from_the_store(tmp_path: Path) -> None:
    report = run(showing(), workers=1, launcher="inprocess", out=tmp_path / "here", artifacts=tmp_path / "store")
    assert report.address is not None
    assert len(list(tmp_path.glob("store/*/examples/*.json"))) == 2
    storage = open_storage(report.address.plain)
    for _ in range(2):  # the second time from its own folder
        page = make_report(storage, "sim", tmp_path / "elsewhere").page.read_text()
        assert "Networks &lt;and&gt; their epochs." in page
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    assert "their epochs" not in make_report(storage, "sim", tmp_path / "third").page.read_text()


def test_other_metrics_of_the_test_split_are_a_table_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a kind whose evaluation measures more than the study's metric: shares, such as its own metric "error", in
    percent, and numbers of which it says nothing."""
    spec = simulated(**SMALL)

    def measured(self: SimulatedTrial, split: Any) -> Mapping[str, float]:
        value = self.evaluate(split)
        return {spec.metric.name: value, "twice": 2 * value, "none": math.nan, "error": 1 - value}

    monkeypatch.setattr(SimulatedTrial, "evaluate_all", measured, raising=False)
    report = run(spec, workers=1, launcher="inprocess", out=tmp_path)
    page = report.page.read_text()
    page = page[page.index("Other metrics on the test split") :]
    for arm in report.facts.arms.values():
        for label, one in ((arm.name, arm.confirm), (f"{arm.name}, twin", arm.twin)):
            if one is not None:
                assert one.split == "test"
                values = one.values
                error = f"{100 * (1 - fmean(values)):.2f}% ± {100 * stdev(values):.2f}"
                twice = f"{2 * fmean(values):.4g} ± {2 * stdev(values):.4g}"
                assert f">{label}</td><td>{error}</td><td>–</td><td>{twice}</td>" in page


@pytest.mark.parametrize("case", ["raises", "too large", "no folder"])
def test_a_study_does_not_fail_for_its_examples(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind = FailingKind() if case == "raises" else ShowingKind()
    monkeypatch.setattr(registry, "find", lambda name: kind)
    if case == "too large":
        monkeypatch.setattr(examples, "MAX_BYTES", 10)
    if case == "no folder":
        (tmp_path / "examples").write_text("in the way")
    report = run(showing(type(kind)), workers=1, launcher="inprocess", out=tmp_path)
    assert report.facts.arms["ralr"].confirm is not None
    assert "no examples for the report" in caplog.text
    assert list(tmp_path.rglob("examples/*/*.json")) == []
