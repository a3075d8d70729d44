"""Deciding on replayed curves: policies, figures, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.decisions import __main__ as command
from benchmarks.decisions import habits, package, ray_asha
from benchmarks.decisions.decision import Decision, Policy
from benchmarks.decisions.measures import DIFFERENCES, figures, outcome
from benchmarks.decisions.proposals import space_of
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.replays import Results, Task, known, replayed
from benchmarks.decisions.tables import FOLDER, Plan, Table
from benchmarks.decisions.worlds import Curve, Match, Params, World
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.records import Row
from ralr_tune.search.stages import advance
from ralr_tune.search.trial import work_on
from ralr_tune.store.reading import read_study
from tests.calibration import recorded, recorded_importance
from tests.calibration.importance import Cell, sampler_of
from tests.calibration.searches import record_of
from tests.search.mirror import file_of, prepared

# ---------------------------------------------------------------- policies


@dataclass(frozen=True)
class Raised:
    """A world with a constant added to all values."""

    world: RecordedWorld
    constant: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def offered(self, params: Params, tried: Collection[Params]) -> Params:
        return self.world.offered(params, tried)

    def curve(self, params: Params, seed: int, *, amplified: bool = True) -> Curve:
        return self.world.curve(params, seed, amplified=amplified) + self.constant

    def mean(self, params: Params) -> float:
        return self.world.mean(params) + self.constant


def raised(world: RecordedWorld) -> World:
    return Raised(world, 0.0625)  # exact in binary


def test_a_constant_does_not_change_a_search(world: RecordedWorld) -> None:
    one, other = (habits.optuna_search(Match(each, 1)) for each in (world, raised(world)))
    assert (one.recipes, one.epochs) == (other.recipes, other.epochs)
    assert 0 < one.epochs < 2 * habits.TRIALS * 4
    policy = package.Package(blocks=2, trials=12)
    rows = [[_known(row) for row in policy.search(Match(each, 1)).rows] for each in (world, raised(world))]
    assert rows[0] == rows[1]
    assert {row.outcome for row in policy.search(Match(world, 1)).rows} >= {"complete", "pruned"}


def _known(row: Row) -> Row:
    return replace(row, id=0, value=None)


def test_no_configuration_is_tried_twice(world: RecordedWorld) -> None:
    found = package.Package(blocks=2, trials=20).search(Match(world, 3))
    for arm in found.spec.arms:
        for block in (1, 2):
            tried = [str(row.params) for row in found.rows if (row.arm, row.block, row.stage) == (arm, block, "search")]
            assert len(set(tried)) == len(tried) == 20
            assert set(tried) <= {str(each) for each in world.table.plan.params[1]}


def test_the_replayed_study_is_the_one_that_a_worker_runs(tmp_path: Path) -> None:
    """Same trials, prunings, divergences, audits, seeds, winners and verdict as a study in a database."""
    spec = file_of("accuracy", "tpe", "median", trials=10)
    with prepared(spec, tmp_path / "real") as session:
        while (stage := advance(session.ledger, session.storage, spec, "judge")) is not None:
            while (row := session.ledger.claim(session.owner, stage)) is not None:
                work_on(session, row)
        real = read_study(session.storage, spec.name)
    replayed = record_of(spec)
    assert {row.outcome for row in real.rows()} == {"complete", "pruned", "diverged"}
    assert {row.stage for row in real.rows()} == {"search", "audit", "choose", "judge"}
    for name, arm in real.arms.items():
        rows = [sorted(map(_essence, each.rows)) for each in (arm, replayed.arms[name])]
        assert rows[0] == rows[1]
    made = [arm_verdicts(each, "validation").made for each in (real, replayed)]
    assert made[0] == made[1] != ()


def _essence(row: Row) -> tuple[Any, ...]:
    params = sorted(row.params.items())
    place = (row.stage, row.block, row.ordinal, row.role, row.source or 0)
    return (*place, row.seed, params, row.outcome, row.epoch, row.value or 0.0)


@pytest.mark.parametrize("difference", [0.0, 30.0])
def test_every_policy_decides(world: RecordedWorld, difference: float) -> None:
    """A difference of 30 standard deviations is seen by all: the better arm is claimed and returned."""
    match = Match(world, 1)
    for policy in (*habits.POLICIES, *package.POLICIES[:2]):
        decision = policy.decide(match, policy.search(match), match.shifts(difference))
        found = outcome(match, decision, difference)
        assert found.regret >= 0
        assert found.epochs.keys() <= {"search", "confirm", "twins"}
        if difference:
            assert (decision.claim, decision.returned, found.right) == (1, 1, True), policy.name
        else:
            assert found.right is False


def test_epochs_are_counted_by_stage(world: RecordedWorld) -> None:
    match = Match(world, 0)
    found = package.Package(trials=8).search(match)
    decision = package.Package(trials=8).decide(match, found, (0.0, 0.0))
    searched = sum(row.epoch for row in found.rows if row.stage == "search")
    assert decision.epochs["search"] == searched
    runs = 2 * 2 * 3 + 2 * 5  # two finalists an arm on three choosing seeds, each winner on five
    assert 0.5 * runs * 4 < decision.epochs["confirm"] <= runs * 4  # less if runs diverge
    assert decision.epochs["twins"] == 2 * 5 * 4


def test_asha_of_ray(world: RecordedWorld) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    one, other = (ray_asha.asha_search(Match(each, 1)) for each in (world, raised(world)))
    assert one.recipes == other.recipes
    assert 2 * habits.TRIALS < one.epochs < 2 * habits.TRIALS * 4


# ---------------------------------------------------------------- figures


def test_outcomes_are_measured_against_the_truth(world: RecordedWorld) -> None:
    every = sorted(world.table.plan.params[1], key=world.mean)
    best, worse = every[-1], every[10]
    match = Match(world, 1)  # the second arm is the better one
    right = outcome(match, Decision(1, (worse, best), 1, {"search": 3}), 1.0)
    assert (right.right, right.wrong, right.recipes_wrong) == (True, False, False)
    assert right.regret == pytest.approx(0)
    wrong = outcome(match, Decision(0, (worse, best), 0, {}), 1.0)
    assert (wrong.right, wrong.wrong, wrong.recipes_wrong) == (False, True, True)
    assert wrong.regret == pytest.approx(1 + (world.best - world.mean(worse)) / world.sd)
    equal = outcome(match, Decision(1, (worse, best), 1, {}), 0.0)
    assert (equal.claimed, equal.right, equal.recipes_wrong) == (True, False, False)  # true of the recipes alone
    none = outcome(match, Decision(None, (best, best), 0, {}), 2.0)
    assert (none.claimed, none.wrong, none.right) == (False, False, False)
    assert outcome(match, Decision(0, (best, best), 0, {}), 0.0).recipes_wrong


def test_figures_of_a_policy(world: RecordedWorld) -> None:
    best = world.offered(world.table.plan.params[1][0], ())
    outcomes = [
        outcome(Match(world, n), Decision(1 if n < 5 else None, (best, best), 0, {"search": n}), difference)
        for n in range(20)
        for difference in DIFFERENCES
    ]
    found = figures("some", outcomes)
    assert found.replays == 20
    assert found.false_claims.value == 5 / 20
    assert (found.false_claims.low, found.false_claims.high) == pytest.approx((0.0866, 0.4910), abs=1e-4)  # tables
    assert found.right[1.0].value == 2 / 20  # the second arm is better in odd replays
    assert found.wrong[1.0].value == 3 / 20
    assert found.epochs["search"].value == 9.5
    assert found.epochs["search"].error == pytest.approx(np.std(range(20), ddof=1) / np.sqrt(20))
    with pytest.raises(ValueError, match="no replay at a true difference of 2"):
        figures("some", [each for each in outcomes if each.difference < 2])


def test_finished_replays_are_kept(plan: Plan, table: Table, tmp_path: Path) -> None:
    folder = plan.file.parent
    results = Results(tmp_path / "results.jsonl", folder)
    names = ["tiny, ralr", "tiny, monotone"]
    policies = ["Optuna, best trial", "one recipe"]
    tasks = results.waiting(names, policies, 2)
    assert [(task.world, task.replay) for task in tasks] == [(name, n) for n in (0, 1) for name in names]
    results.add(tasks[0], replayed(tasks[0], folder))
    with results.file.open("a") as file:
        file.write('{"world": "tiny, ra')  # killed within a line
    assert results.waiting(names, policies, 2) == tasks[1:]
    results.add(tasks[1], replayed(tasks[1]._replace(policies=("one recipe",)), folder))
    assert results.waiting(names, policies, 2)[0] == Task("tiny, monotone", 0, ("Optuna, best trial",))
    assert [row.policy for row in results.figures(names[:1], policies, 2)["tiny, ralr"]] == policies
    other = results.file.read_text().replace('"fingerprint": "', '"fingerprint": "x')
    results.file.write_text(other)
    assert results.waiting(names, policies, 2) == tasks  # of other code or another table


def test_the_command(plan: Plan, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--replays", "2", "--worlds", "tiny, monotone", "--policies", "recipe", "--processes", "1"]
    assert command.main([*arguments, "--out", str(tmp_path / "made")], plan.file.parent) == 0
    page = capsys.readouterr().out
    assert page.endswith((tmp_path / "made.md").read_text())
    assert "| one recipe | 100% (16 to 100) |" in page
    held = json.loads((tmp_path / "made.json").read_text())
    (row,) = held["tiny, monotone"]["policies"]
    assert (row["replays"], row["total"]["0.0"]["value"]) == (2, 2 * 3 * 4)


def test_verdicts_are_calibrated_on_recorded_curves(plan: Plan, table: Table) -> None:
    rows = recorded.table(plan.file.parent).rows
    assert len(rows) == 2 * 2  # two worlds, one block and several
    counted = rows[0](1)
    assert (counted.what, counted.studies) == ("tiny, monotone: 1 block, the two recipes", 1)
    assert counted.counts["wrong"] <= counted.counts["claimed"]


def test_importance_is_calibrated_on_recorded_curves(plan: Plan, table: Table) -> None:
    (found,) = recorded_importance.tables(plan.file.parent)
    assert list(found.columns)[:3] == ["amplify.probability", "amplify.width", "lr"]
    assert len(found.rows) == 4  # 30 configurations are too few for cells of 50 trials
    counted = found.rows[0](3)
    assert (counted.what, counted.studies, counted.more) == ("tiny-random-none-20", 3, {"pruned": "0%"})
    assert counted.counts["lr"] == 3
    assert counted.broken == []


def test_an_importance_without_a_null_is_seen_on_recorded_curves(
    plan: Plan, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["ralr_tune.analysis.importance"]  # the function of that name hides it
    monkeypatch.setattr(module, "_verdict", lambda value, by_chance: "matters")
    (found,) = recorded_importance.tables(plan.file.parent)
    assert [fault.split(" at most")[0] for fault in found.rows[1](8).broken] == [
        "tiny-random-median-20: amplify.probability",
        "tiny-random-median-20: amplify.width",
    ]


def test_ignored_parameters_are_proposed_freely_and_acting_ones_are_recorded(plan: Plan, table: Table) -> None:
    world = recorded_importance.IgnoringWorld.of("tiny", plan.file.parent)
    cell = Cell("tiny", "random", "none", 20)
    once, again = (recorded_importance.recorded_study(world, cell, 5).trials for _ in range(2))
    assert [(trial.params, trial.value) for trial in once] == [(trial.params, trial.value) for trial in again]
    rates = [trial.params["lr"] for trial in once]
    assert len(set(rates)) == 20
    assert set(rates) <= {each["lr"] for each in plan.params[0]}
    sampler, space = sampler_of(cell, 5), space_of(world)
    own = optuna.create_study(sampler=sampler).ask(space).params  # without the table
    assert {name: once[0].params[name] for name in world.ignored} == {name: own[name] for name in world.ignored}
    for trial in once:
        at = [each["lr"] for each in plan.params[0]].index(trial.params["lr"])
        curve = np.array(list(trial.intermediate_values.values()), np.float32)
        assert curve.tolist() in table.values[0, at].tolist()  # of the arm without amplification


def test_a_table_of_too_few_seeds_has_no_importance(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "tiny.toml").write_text(plan.text)
    assert recorded_importance.tables(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--replays", "0"], "--replays 0 --processes 2: must be at least 1"),
        (["--worlds", "mars"], "--worlds mars: unknown; known: simulated, monotone; simulated, ralr"),
        (["--policies", "hope"], "--policies hope: unknown; known: Optuna, best trial"),
    ],
)
def test_bad_input(
    plan: Plan, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert command.main([*arguments, "--out", str(tmp_path / "x")], plan.file.parent) == 2
    assert error in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said() -> None:
    there = known(FOLDER)
    tables = {path.stem for path in FOLDER.glob("*.toml")}
    left_out = {line.split()[1].rstrip(":") for line in there.missing if line.startswith("table ")}
    shown = {name.split(",")[0] for name in there.worlds} - {"simulated"}
    assert shown | left_out == tables
    assert (ray_asha.POLICY.name in there.policies) == (ray_asha.missing() is None)
    assert all(isinstance(each, Policy) and each.settings for each in there.policies.values())
