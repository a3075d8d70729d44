"""A study that is resumed with a changed file: accepted changes are applied, refused ones change nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import DataError, TrialError, UsageError
from ralr_tune.records import Row
from ralr_tune.search.stages import plan_search
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from tests.studies import AMPLIFY, simulated

NARROW = {"low": 0.05, "high": 0.1, "log": True}
WIDE = {"low": 1e-4, "high": 1.0, "log": True}


def resume(spec: StudySpec, out: Path, **options: Any) -> None:
    run(spec, out=out, **({"workers": 1, "devices": "cpu", "launcher": "inprocess", "confirm": False} | options))


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends with a report, which no test here reads."""
    monkeypatch.setattr("ralr_tune.commands.report.make_report", lambda *_, **__: None)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """The study's database, once a run has created it."""
    opened = open_storage(f"sqlite:///{tmp_path}/study.db", create=True)
    yield opened
    opened.dispose()


def rows(storage: Storage) -> list[Row]:
    return Ledger(storage, "sim").rows()


def trials(storage: Storage, arm: str) -> list[FrozenTrial]:
    """Optuna's trials of an arm, in the order of their rows."""
    found = studies.optuna_trials(storage, f"sim/{arm}")
    return [found[row.trial] for row in rows(storage) if row.arm == arm and row.trial is not None]


def small(**changes: Any) -> StudySpec:
    search = {"trials": 4, "sampler_options": {"n_startup_trials": 2}} | changes.pop("search", {})
    if search.get("sampler") in ("qmc", "random"):
        del search["sampler_options"]
    return simulated(search=search, **changes)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_a_wider_range_and_a_larger_budget_are_applied(storage: Storage, tmp_path: Path, sampler: str) -> None:
    resume(small(training={"lr": NARROW}, search={"sampler": sampler}), tmp_path)
    before = {arm: trials(storage, arm) for arm in ("monotone", "ralr")}
    resume(small(training={"lr": WIDE}, search={"sampler": sampler, "trials": 9}), tmp_path)
    for arm, old in before.items():
        found = trials(storage, arm)
        assert [trial.params for trial in found[:4]] == [trial.params for trial in old]
        assert len(found) == 9
        assert {trial.distributions["lr"] for trial in found[4:]} == {FloatDistribution(1e-4, 1.0, log=True)}
        assert any(not 0.05 <= trial.params["lr"] <= 0.1 for trial in found[4:])
    assert [row.state for row in rows(storage)] == ["done"] * 18


def test_every_database_accepts_the_wider_range(storage_url: str, tmp_path: Path) -> None:
    for lr, budget in ((NARROW, 1), (WIDE, 3)):
        spec = small(training={"lr": lr}, search={"sampler": "random", "trials": budget})
        resume(spec, tmp_path, storage=storage_url)
    opened = open_storage(storage_url)
    assert [trial.distributions["lr"].low for trial in trials(opened, "ralr")] == [0.05, 1e-4, 1e-4]  # type: ignore[attr-defined]
    opened.dispose()


@pytest.mark.filterwarnings("error:Inconsistent parameter values")
def test_a_running_trial_keeps_its_parameters(storage: Storage, tmp_path: Path) -> None:
    resume(small(training={"lr": NARROW}, search={"trials": 1}), tmp_path, trials=1)
    spec = small(training={"lr": NARROW}, search={"trials": 2})
    ledger = Ledger(storage, "sim")
    plan_search(ledger, spec, 2)
    row = ledger.claim("another worker", "search")
    assert row is not None
    study = studies.optuna_study(storage, f"sim/{row.arm}")
    trial = studies.ask(study, storage, row.id)
    ledger.attach(row, trial.number)
    sampled_lr = trial.suggest_float("lr", NARROW["low"], NARROW["high"], log=True)  # the trial is interrupted here
    ledger.release(row)
    resume(small(training={"lr": WIDE}, search={"trials": 2}), tmp_path)
    found = trials(storage, row.arm)[1]
    assert (found.number, found.params["lr"]) == (trial.number, sampled_lr)
    assert [row.state for row in rows(storage)] == ["done"] * 4


def test_arms_still_share_the_design_after_a_wider_range(storage: Storage, tmp_path: Path) -> None:
    resume(small(training={"lr": NARROW}, search={"sampler": "qmc"}), tmp_path)
    resume(small(training={"lr": WIDE}, search={"sampler": "qmc", "trials": 6}), tmp_path)
    plain, ralr = ([trial.params["lr"] for trial in trials(storage, arm)] for arm in ("monotone", "ralr"))
    assert plain == ralr
    fresh = tmp_path / "fresh"
    resume(small(training={"lr": WIDE}, search={"sampler": "qmc", "trials": 6}), fresh)
    other = open_storage(f"sqlite:///{fresh}/study.db")
    assert [trial.params["lr"] for trial in trials(other, "ralr")][4:] == ralr[4:]  # depends only on the ordinal
    other.dispose()


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband", "patient"])
def test_pruners_work_with_a_wider_range(storage: Storage, tmp_path: Path, pruner: str) -> None:
    resume(small(training={"lr": NARROW}, search={"pruner": pruner}), tmp_path)
    resume(small(training={"lr": WIDE}, search={"pruner": pruner, "trials": 8}), tmp_path)
    assert [row.outcome in ("complete", "pruned", "diverged") for row in rows(storage)] == [True] * 16


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_runs_may_become_longer(storage: Storage, tmp_path: Path, pruner: str) -> None:
    for high, budget in ((3, 3), (9, 8)):
        spec = small(training={"epochs": {"low": 2, "high": high}}, search={"pruner": pruner, "trials": budget})
        resume(spec, tmp_path)
    assert max(trial.params["epochs"] for trial in trials(storage, "ralr")) > 3
    assert len(rows(storage)) == 16


def test_a_smaller_budget_withdraws_rows_that_have_not_started(storage: Storage, tmp_path: Path) -> None:
    resume(small(search={"trials": 3}), tmp_path)
    resume(small(search={"trials": 2}), tmp_path)
    assert len(rows(storage)) == 6  # started rows stay
    resume(small(search={"trials": 3}), tmp_path, trials=1)
    assert len(rows(storage)) == 6


AUDITED = {"trials": 8, "sampler": "random", "pruner_options": {"n_startup_trials": 1}}


def audits(storage: Storage) -> list[Row]:
    return [row for row in rows(storage) if row.stage == "audit"]


def test_audits_may_be_added_later_and_finished_ones_stay(storage: Storage, tmp_path: Path) -> None:
    resume(small(search=AUDITED), tmp_path)
    before = rows(storage)
    assert {row.stage for row in before} == {"search"}
    resume(small(search=AUDITED | {"audit": 1}), tmp_path)
    pruned = [(row.arm, row.ordinal) for row in before if row.outcome == "pruned"]
    assert pruned
    assert [(row.arm, row.ordinal) for row in audits(storage)] == pruned
    assert {row.outcome for row in audits(storage)} == {"complete"}
    after = rows(storage)
    resume(small(search=AUDITED | {"audit": 0}), tmp_path)
    assert rows(storage) == after
    assert rows(storage)[: len(before)] == before


def test_a_failed_audit_can_be_dropped(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resume(small(search=AUDITED | {"audit": 0}), tmp_path)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise DataError("image 3 is torn")

    with monkeypatch.context() as patch:
        patch.setattr("ralr_tune.kinds.simulated.kind.SimulatedKind.trial", broken)
        with pytest.raises(TrialError, match=r"image 3 is torn; an audit: with audit = 0 under \[search\]"):
            resume(small(search=AUDITED | {"audit": 1}), tmp_path)
    assert "failed" in {row.outcome for row in audits(storage)}
    resume(small(search=AUDITED | {"audit": 0}), tmp_path)
    assert audits(storage) == []
    assert not list((tmp_path / "checkpoints").iterdir())


def test_more_blocks_are_further_searches(storage: Storage, tmp_path: Path) -> None:
    resume(small(search={"trials": 2}), tmp_path)
    resume(small(search={"trials": 2, "blocks": 2}), tmp_path)
    assert sorted({(row.arm, row.block) for row in rows(storage)}) == [
        ("monotone", 1), ("monotone", 2), ("ralr", 1), ("ralr", 2)
    ]  # fmt: skip


def test_an_added_arm_gets_the_whole_budget_and_the_same_seeds(storage: Storage, tmp_path: Path) -> None:
    arms: dict[str, Any] = {"monotone": {}, "ralr": {"amplify": AMPLIFY}}
    resume(small(arms=arms), tmp_path)
    before = rows(storage)
    resume(small(arms={"noise": {"noise": {"std": {"low": 0.1, "high": 1.0}}}, **arms}), tmp_path)
    after = rows(storage)
    assert after[:8] == before
    assert [row.seed for row in after[8:]] == [row.seed for row in before if row.arm == "ralr"]
    assert {row.arm for row in after[8:]} == {"noise"}


def test_an_arm_added_after_the_answer_is_judged_on_the_same_seeds(storage: Storage, tmp_path: Path) -> None:
    confirm, search = {"top": 1, "seeds": 2}, {"trials": 2}
    arms: dict[str, Any] = {"monotone": {}, "ralr": {"amplify": AMPLIFY}}
    resume(small(arms=arms, confirm=confirm, search=search), tmp_path, confirm=True)
    before = rows(storage)
    resume(small(arms=arms | {"late": {}}, confirm=confirm, search=search), tmp_path, confirm=True)
    after = rows(storage)
    assert after[: len(before)] == before
    for stage in ("judge", "test"):
        seeds = {
            arm: [row.seed for row in after if (row.arm, row.stage) == (arm, stage) and row.role == "best"]
            for arm in ("monotone", "late")
        }
        assert seeds["late"] == seeds["monotone"]
        assert len(seeds["late"]) == 2


def test_applied_changes_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resume(small(training={"lr": NARROW}), tmp_path)
    with caplog.at_level(logging.INFO, "ralr_tune.commands.run"):
        resume(small(training={"lr": WIDE}, search={"trials": 5}), tmp_path)
    assert [line for line in caplog.messages if line.startswith("study file changed")] == [
        "study file changed: training.lr: 0.05 to 0.1 (log) -> 0.0001 to 1.0 (log): wider; new trials use it",
        "study file changed: search.trials: 4 -> 5: the budget of every arm and block; trials that have begun are kept",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"lr": NARROW}},
            "training.lr: 0.001 to 1.0 (log) -> 0.05 to 0.1 (log): narrower: earlier trials",
        ),
        ({"training": {"epochs": 9}}, "training.epochs: 4 -> 9: earlier trials were trained with the old value"),
        ({"arms": {"monotone": {}}}, "arms.ralr: a table -> nothing: a planned arm cannot be removed"),
        ({"study": {"seed": 1}}, "study.seed: 0 -> 1: the training seeds"),
        (
            {"search": {"prune_on": "best"}},
            'search.prune_on: "value" -> "best": earlier trials were pruned by another rule',
        ),
    ],
)
def test_a_refusal_names_key_values_and_reason_and_changes_nothing(
    storage: Storage, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    spec = small(search={"trials": 1})
    resume(spec, tmp_path)
    before = rows(storage)
    with pytest.raises(UsageError) as caught:
        resume(small(**{"search": {"trials": 5}} | changes), tmp_path)
    assert said in str(caught.value)
    assert str(caught.value).endswith("Give the study another name, or change the file back")
    assert "search.trials" not in str(caught.value)  # that change is allowed
    assert (rows(storage), studies.stored(storage, "sim").text) == (before, spec.text)


def test_before_any_trial_starts_every_change_is_accepted(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake is noticed after `run --init`: the corrected file must not be refused."""
    digits = {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"}
    init(simulated(task=digits, training={"epochs": 9}), RunOptions(out=tmp_path))
    assert len(rows(storage)) == 8
    arms = {"monotone": {}, "other": {"amplify": AMPLIFY}}
    with caplog.at_level(logging.INFO, "ralr_tune.commands.run"):
        resume(small(arms=arms, search={"trials": 2}), tmp_path)
    assert sorted(row.arm for row in rows(storage)) == ["monotone"] * 2 + ["other"] * 2
    assert "study file changed: training.epochs (no trial has started)" in caplog.messages


def test_interim_analyses_may_be_changed_until_winners_are_judged(tmp_path: Path, storage: Storage) -> None:
    resume(small(confirm={"top": 1}), tmp_path)
    looked_at = small(confirm={"top": 1, "seeds": "auto", "most_seeds": 5})
    resume(looked_at, tmp_path, confirm=True)
    assert len([row for row in rows(storage) if row.stage == "judge" and row.role == "best"]) == 2 * 5
    before = rows(storage)
    with pytest.raises(
        UsageError, match=r"confirm.most_seeds: 5 -> 8: the interim analyses and their correction are fixed"
    ):
        resume(small(confirm={"top": 1, "seeds": "auto", "most_seeds": 8}), tmp_path, confirm=True)
    assert rows(storage) == before


def test_a_study_that_an_earlier_release_began_is_not_mixed_with_another_window(
    storage: Storage, tmp_path: Path
) -> None:
    """Without `window`, that release amplified the warm-up, too; its fingerprint says so."""

    def with_window(**window: Any) -> StudySpec:
        return small(
            schedule={"warmup": 0.5}, arms={"monotone": {}, "ralr": {"amplify": AMPLIFY | window}}, search={"trials": 1}
        )

    now, then = with_window(), with_window(window=[0.0, 1.0])
    resume(then, tmp_path)
    studies.update_text(storage, "sim", text=now.text, fingerprint=then.fingerprint)
    with pytest.raises(UsageError, match=r"arms.ralr.amplify.window: .*0.0, 1.0.* -> nothing"):
        resume(now, tmp_path)
    resume(then, tmp_path)
    assert studies.stored(storage, "sim").text == then.text
