"""What pruners see: Optuna's own decisions with "value", and more tolerance for noisy curves with the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import closing
from itertools import accumulate, cycle
from pathlib import Path

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.study import Study, StudyDirection
from optuna.trial import Trial, TrialState

from ralr_tune import run
from ralr_tune.metric import Metric
from ralr_tune.records import EpochRecord
from ralr_tune.search.pruning import SMOOTHING, Judge, amplified_epochs, best_so_far, other_curve, smoothed, waited
from ralr_tune.search.samplers import make_pruner
from ralr_tune.search.trial import work_on
from ralr_tune.seeds import derive_seed
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.sections import PruneOn
from tests.search.conftest import MakeSession
from tests.studies import loaded_task, simulated

EPOCHS = 9
UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
PRUNERS: Mapping[str, Mapping[str, object]] = {
    "median": {"n_startup_trials": 1},
    "asha": {"min_resource": 1, "reduction_factor": 2},
    "hyperband": {"reduction_factor": 3},
    "patient": {"patience": 1},
}


def pruner(name: str) -> BasePruner:
    options = dict(PRUNERS[name])
    return make_pruner(simulated(training={"epochs": EPOCHS}, search={"pruner": name, "pruner_options": options}))


def jittery(number: int, epoch: int) -> float:
    """A rising curve with noise, a pure function of trial and epoch."""
    noise = derive_seed("test", number, epoch) / 2**48 - 0.5
    level = derive_seed("level", number) / 2**48
    return 0.5 + 0.2 * level - 0.3 / (1 + epoch) + 0.3 * noise


def outcomes(study: Study, should_prune: Callable[[Trial], bool], trials: int) -> list[int]:
    """How many epochs each trial ran."""
    found = []
    for number in range(trials):
        trial = study.ask()
        for epoch in range(1, EPOCHS + 1):
            trial.report(jittery(number, epoch), epoch)
            if epoch < EPOCHS and should_prune(trial):
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, jittery(number, EPOCHS))
        found.append(epoch)
    return found


# ---------------------------------------------------------------- the curves themselves


def test_the_average_follows_its_formula_and_starts_at_the_first_value() -> None:
    curve = {3: 0.5, 1: 0.2, 2: 0.8}  # reports of a resumed trial may be out of order
    m = list(accumulate([0.2, 0.8, 0.5], lambda m, v: SMOOTHING * m + (1 - SMOOTHING) * v, initial=0.0))[1:]
    expected = {step: average / (1 - SMOOTHING**step) for step, average in enumerate(m, 1)}
    assert smoothed(curve, UP) == pytest.approx(expected)
    assert smoothed(curve, UP)[1] == pytest.approx(0.2)


def test_an_average_of_equal_values_is_that_value() -> None:
    assert smoothed(dict.fromkeys(range(50), 0.7), DOWN) == pytest.approx(dict.fromkeys(range(50), 0.7))


def test_a_nan_does_not_affect_later_values() -> None:
    shown = smoothed({1: math.nan, 2: 0.5, 3: math.nan, 4: 0.5}, UP)
    assert [math.isnan(shown[step]) for step in (1, 2, 3, 4)] == [True, False, True, False]
    assert (shown[2], shown[4]) == pytest.approx((0.5, 0.5))
    best = best_so_far({1: math.nan, 2: 0.5, 3: math.nan, 4: 0.4}, UP)
    assert math.isnan(best[1])
    assert (best[2], best[3], best[4]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("direction", "best"), [(UP, [2.0, 3.0, 3.0]), (DOWN, [2.0, 2.0, 1.0])])
def test_the_best_so_far_respects_the_direction(direction: StudyDirection, best: Sequence[float]) -> None:
    assert list(best_so_far({1: 2.0, 2: 3.0, 3: 1.0}, direction).values()) == best


# ---------------------------------------------------------------- decisions


@pytest.mark.parametrize("name", PRUNERS)
def test_on_the_value_every_decision_is_optunas(name: str) -> None:
    bare = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    ours = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    expected = outcomes(bare, lambda trial: trial.should_prune(), 40)
    assert outcomes(ours, Judge(ours, "value").should_prune, 40) == expected
    assert min(expected) < EPOCHS  # something is pruned at all


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("prune_on", ["smoothed", "best"])
def test_decisions_are_those_of_optuna_on_transformed_curves(name: str, prune_on: PruneOn) -> None:
    """Compared with plain Optuna, to which the transformed curves are reported."""
    ours = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    bare = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    show = {"smoothed": smoothed, "best": best_so_far}[prune_on]
    found = outcomes(ours, Judge(ours, prune_on).should_prune, 40)
    for number, epochs in enumerate(found):
        trial = bare.ask()
        curve = show({epoch: jittery(number, epoch) for epoch in range(1, EPOCHS + 1)}, UP)
        decisions = []
        for epoch in range(1, epochs + 1):
            trial.report(curve[epoch], epoch)
            decisions.append(epoch < EPOCHS and trial.should_prune())
        assert decisions == [False] * (epochs - 1) + [epochs < EPOCHS], f"trial {number}"
        if epochs < EPOCHS:
            bare.tell(trial, state=TrialState.PRUNED)
        else:
            bare.tell(trial, curve[EPOCHS])
    if (name, prune_on) != ("patient", "best"):  # a study file cannot combine these: a best value never falls
        assert min(found) < EPOCHS


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("prune_on", ["value", "smoothed", "best"])
def test_stored_values_stay_raw(name: str, prune_on: PruneOn) -> None:
    study = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    outcomes(study, Judge(study, prune_on).should_prune, 20)
    for trial in study.trials:
        raw = {epoch: jittery(trial.number, epoch) for epoch in range(1, len(trial.intermediate_values) + 1)}
        assert trial.intermediate_values == raw
        assert trial.value == raw[len(raw)]


def kept(
    name: str, prune_on: PruneOn, own: Sequence[float], *others: Sequence[float], amplified: Container[int] = ()
) -> bool:
    """Whether a trial with the curve `own` is still there at its end, after six with the curves `others` in turn.

    Of a study named s, Hyperband puts the seventh trial and five of the six into one bracket, with rungs at 1, 3, 9.
    """
    study = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    judge = Judge(study, prune_on)
    for _, curve in zip(range(6), cycle(others), strict=False):
        trial = study.ask()
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
            judge.should_prune(trial)  # ASHA stores its rungs here
        study.tell(trial, curve[-1])
    trial = study.ask()
    for epoch, value in enumerate(own, 1):
        trial.report(value, epoch)
        if epoch < len(own) and judge.should_prune(trial, amplified=amplified):
            return False
    return True


STEADY = [0.40, 0.46, 0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62]
JUMP = [0.30, 0.35, 0.75, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70]
"""An amplified epoch at 3."""
LEVEL = [0.70, 0.69, 0.68, 0.69, 0.70, 0.71, 0.72, 0.73, 0.74]
CREEPS = [0.30, 0.60, 0.58, 0.59, 0.60, 0.61, 0.62, 0.66, 0.71]
LATE_JUMP = [0.30, 0.40, 0.50, 0.70, 0.50, 0.55, 0.58, 0.60, 0.65]


def falls_at(epoch: int) -> list[float]:
    """Well ahead of `STEADY`, except for one epoch."""
    return [value + (0.2 if each != epoch else -0.02) for each, value in enumerate(STEADY, 1)]


@pytest.mark.parametrize(
    ("name", "others", "own"),
    [
        ("asha", STEADY, falls_at(4)),
        ("hyperband", STEADY, falls_at(3)),
        ("median", JUMP, LEVEL),
        ("patient", LATE_JUMP, CREEPS),
    ],
)
def test_on_smoothed_values_one_jump_does_not_prune(name: str, others: list[float], own: list[float]) -> None:
    assert not kept(name, "value", own, others)
    assert kept(name, "smoothed", own, others)


@pytest.mark.parametrize(("name", "own"), [("asha", falls_at(4)), ("hyperband", falls_at(3))])
def test_on_the_best_so_far_one_drop_does_not_prune(name: str, own: list[float]) -> None:
    assert not kept(name, "value", own, STEADY)
    assert kept(name, "best", own, STEADY)


def test_the_median_pruner_on_the_best_so_far_prunes_all_that_it_prunes_on_the_value() -> None:
    """It uses the trial's own best so far in any case: see the docstring of `search.pruning`."""
    assert not kept("median", "value", LEVEL, JUMP)
    assert not kept("median", "best", LEVEL, JUMP)
    early, late = [0.3, 0.8, *[0.4] * 7], [0.3, 0.4, 0.8, *[0.4] * 6]  # at no epoch is their median above 0.6
    assert kept("median", "value", [0.65] * 9, early, late)
    assert not kept("median", "best", [0.65] * 9, early, late)


# ---------------------------------------------------------------- amplified epochs


def amplified(pruner: str = "median", **options: object) -> StudySpec:
    arm = {"amplify": {"probability": 0.4, "lower": 1.5, "width": 2.0} | options}
    return simulated(training={"epochs": EPOCHS}, arms={"monotone": {}, "ralr": arm}, search={"pruner": pruner})


PARAMS = {"lr": 0.1, "weight_decay": 1e-4}


@pytest.mark.parametrize("options", [{}, {"window": [0.3, 0.9], "probability": 0.8}])
def test_amplified_epochs_are_those_that_a_trial_records(options: Mapping[str, object]) -> None:
    spec, found = amplified(**options), set[int]()
    configuration, task = spec.configuration("ralr", PARAMS), loaded_task(spec)
    for seed in range(10):
        epochs = amplified_epochs(spec, configuration, seed)
        assert epochs == {
            each.epoch for each in spec.kind.trial(task, configuration, seed=seed).epochs() if each.factor > 1
        }
        found |= epochs
    assert found == (set(range(4, EPOCHS + 1)) if options else set(range(1, EPOCHS + 1)))


def test_nothing_waits_without_amplified_epochs_or_at_rungs() -> None:
    """ASHA would compare a later epoch with the earlier ones of other trials."""
    for spec, arm in [
        (amplified(), "monotone"), (amplified(granularity="step"), "ralr"), (amplified("asha"), "ralr"),
        (amplified("hyperband"), "ralr"),
    ]:  # fmt: skip
        assert not any(amplified_epochs(spec, spec.configuration(arm, PARAMS), seed) for seed in range(20))


def test_a_trial_never_waits_twice_in_a_row() -> None:
    assert waited([1, 2, 3, 4, 5, 6], {1, 2, 3, 5, 6}) == {1, 3, 5}
    assert waited([4, 8, 12], {1, 2, 3, 5, 8, 12}) == {8}  # evaluated every four epochs


@pytest.mark.parametrize("prune_on", ["value", "smoothed", "best"])
def test_a_trial_is_not_judged_after_an_epoch_that_it_waits_for(prune_on: PruneOn) -> None:
    assert not kept("median", prune_on, falls_at(1), STEADY)
    assert kept("median", prune_on, falls_at(1), STEADY, amplified={1})
    hopeless = [value - 0.1 for value in STEADY]
    assert not kept("median", prune_on, hopeless, STEADY, amplified=range(1, EPOCHS))


def test_after_waiting_the_pruners_interval_is_judged_late_and_not_left_out() -> None:
    options = {"n_startup_trials": 1, "n_warmup_steps": 2, "interval_steps": 3}
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(**options))
    judge, decisions = Judge(study, "value"), []
    for level in (1.0, 0.0):
        trial = study.ask()
        for epoch in range(1, 8):
            trial.report(level, epoch)
            decisions.append(judge.should_prune(trial, amplified={2, 5}))
        study.tell(trial, level)
    assert decisions[7:] == [False, False, True, False, False, True, False]


def test_a_worker_waits(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda *_: True)
    session = make_session(amplified())
    while (row := session.ledger.claim(session.owner, "search")) is not None:
        work_on(session, row)
    rows = read_study(session.storage, "sim").rows()
    for row in rows:
        amplifies = amplified_epochs(session.spec, session.spec.configuration(row.arm, row.params), row.seed)
        assert row.epoch == (2 if 1 in amplifies else 1)
    assert {row.epoch for row in rows if row.arm == "ralr"} == {1, 2}


# ---------------------------------------------------------------- in a study


def test_samplers_still_see_hyperbands_brackets(make_session: MakeSession) -> None:
    """If a study's pruner is Hyperband's, Optuna's samplers use only the trials of one bracket."""
    session = make_session(simulated(search={"pruner": "hyperband", "prune_on": "smoothed"}))
    name = studies.optuna_name("sim", "ralr")
    study = studies.optuna_study(session.storage, name, pruner=make_pruner(session.spec))
    Judge(study, "smoothed")
    assert isinstance(study.pruner, HyperbandPruner)


# ---------------------------------------------------------------- another metric


def measured(number: int, epochs: int) -> list[EpochRecord]:
    """Epochs whose value says nothing and whose loss mirrors `jittery`."""
    return [
        EpochRecord(epoch, 0.5, 1.0, 0.1, 1.0, 0.1, {"loss": -jittery(number, epoch)}) for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("prune_on", ["value", "smoothed", "best"])
def test_another_metric_is_pruned_on_in_its_own_direction(name: str, prune_on: PruneOn) -> None:
    """A loss that is exactly the negative of a curve must be pruned where that curve is, while Optuna maximizes
    something else."""
    loss = Metric("loss", "minimize")
    plain = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    study = optuna.create_study(study_name="s", direction="maximize", pruner=pruner(name))
    expected = outcomes(plain, Judge(plain, prune_on).should_prune, 40)
    judge, found = Judge(study, prune_on, loss), []
    for number in range(40):
        trial = study.ask()
        for epoch in range(1, EPOCHS + 1):
            trial.report(0.5, epoch)
            curve = measured(number, epoch)
            if pruned := epoch < EPOCHS and judge.should_prune(trial, curve):
                break
        for key, value in other_curve(loss, curve).items():
            trial.set_user_attr(key, value)
        study.tell(trial, None if pruned else 0.5, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
        found.append(epoch)
    assert found == expected
    assert {value for trial in study.trials for value in trial.intermediate_values.values()} == {0.5}
    assert study.direction == UP


def test_a_metric_that_not_every_epoch_has_keeps_its_epochs() -> None:
    """With `evaluate_every = 4`, a trial is compared at its epoch 4 with the other trials at their epoch 4."""
    loss, study = Metric("loss", "minimize"), optuna.create_study(direction="maximize", pruner=pruner("median"))
    judge, decisions = Judge(study, "value", loss), []
    for number in range(12):
        trial, worse = study.ask(), number == 11
        curve = [EpochRecord(at, 0.5, 1.0, 0.1, 1.0, 0.1, {"loss": 9.0 if worse else 12.0 - at}) for at in (4, 8, 12)]
        for seen, record in enumerate(curve[:2], 1):
            trial.report(record.value, record.epoch)
            decisions.append(judge.should_prune(trial, curve[:seen]))
        for key, value in other_curve(loss, curve).items():
            trial.set_user_attr(key, value)
        study.tell(trial, 0.5)
    # 9 is worse than the 8 of the others at epoch 4
    assert decisions == [False] * 22 + [True, True]


SEEN = {"task": {"data": {"optimum": 0.1, "loss": True}}, "training": {"epochs": 6}, "confirm": {"top": 1, "seeds": 2}}
SEARCH = {"trials": 12, "pruner_options": {"n_startup_trials": 2}, "audit": 1.0}


def test_a_study_pruned_on_a_mirrored_loss_takes_the_same_decisions(tmp_path: Path) -> None:
    """The simulated loss orders trials as their accuracy does; the audit, the report and Optuna keep the accuracy."""
    records = []
    for folder, more in (("value", {}), ("loss", {"prune_metric": "loss"})):
        spec = simulated(**SEEN, search=SEARCH | more)
        report = run(spec, workers=1, launcher="inprocess", out=tmp_path / folder)
        assert report.address is not None
        storage = open_storage(report.address.url)
        records.append((read_study(storage, "sim"), report))
        trials = studies.optuna_trials(storage, "sim/ralr").values()
        assert all(0 <= value <= 1 for trial in trials for value in trial.intermediate_values.values())
        assert any("loss by epoch" in trial.user_attrs for trial in trials) == bool(more)
    (plain, _), (on_loss, report) = records
    assert [row.outcome for row in plain.rows()] == [row.outcome for row in on_loss.rows()]
    assert any(row.outcome == "pruned" for row in on_loss.rows())
    assert any(row.stage == "audit" and row.outcome == "complete" for row in on_loss.rows())
    (series,) = on_loss.arms["ralr"].search()[0].metrics
    assert (series.name, series.axis) == ("loss", "epoch")
    assert "Pruned on validation loss (minimize)" in report.page.read_text()


def test_a_resumed_trial_shows_the_pruner_its_earlier_epochs(tmp_path: Path) -> None:
    spec = simulated(**SEEN, search={"prune_metric": "loss"})
    task, configuration = loaded_task(spec), spec.configuration("monotone", {"lr": 0.1, "weight_decay": 1e-4})
    checkpoint = tmp_path / "trial.ckpt"
    trial = spec.kind.trial(task, configuration, seed=1, checkpoint=checkpoint)
    with closing(trial.epochs()) as epochs:
        first = next(epochs)
    assert spec.kind.trial(task, configuration, seed=1, checkpoint=checkpoint).curve == [first]
    assert first.others.keys() == {"loss"}
