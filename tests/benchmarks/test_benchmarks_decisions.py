"""Deciding on replayed curves: worlds, recorded tables, policies, figures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.decisions import __main__ as command
from benchmarks.decisions import habits, package, ray_asha, record
from benchmarks.decisions.decision import Decision, Policy
from benchmarks.decisions.measures import DIFFERENCES, figures, outcome
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.replays import Results, Task, known, replayed
from benchmarks.decisions.tables import ARMS, FOLDER, Plan, Table, plan_of
from benchmarks.decisions.worlds import Curve, Match, Params, SimulatedWorld, World
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.errors import UsageError
from ralr_tune.machine.locks import FileLock
from ralr_tune.records import Row
from ralr_tune.search.stages import advance
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.trial import work_on
from ralr_tune.store.reading import read_study
from tests.calibration import recorded
from tests.calibration.searches import record_of
from tests.search.mirror import file_of, prepared
from tests.waiting import until

ROOT = Path(__file__).parents[2]

TINY = """
[study]
name = "tiny"
baseline = "monotone"
[task]
kind = "simulated"
data = { jitter = 0.03, diverges_above = 3.0 }
[training]
epochs = 4
lr = { low = 1e-2, high = 1.0, log = true }
[arms.monotone]
[arms.ralr]
amplify = { probability = { low = 0.1, high = 0.9 }, lower = 1.0, width = { low = 0.0, high = 4.0 } }
[search]
sampler = "qmc"
trials = 30
[confirm]
seeds = 6
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of a small table of simulated runs."""
    file = tmp_path_factory.mktemp("tables") / "tiny.toml"
    file.write_text(TINY)
    return Plan(file)


@pytest.fixture(scope="module")
def table(plan: Plan) -> Table:
    """All its runs, recorded in this process and saved."""
    found, tasks = Table.of(plan), Tasks(plan.spec, device="cpu")
    for key in found.waiting():
        found.add(*record.train(plan, tasks, key))
    found.save()
    return found


@pytest.fixture(scope="module")
def world(table: Table) -> RecordedWorld:
    """Its RALR arm, with noise of each run: the simulated kind gives all runs of a seed the same, and a paired test of
    five equal differences claims nothing."""
    noise = np.random.default_rng(0).normal(0, 0.003, table.values.shape).astype(np.float32)
    return RecordedWorld(replace(table, values=table.values + noise), "ralr")


# ---------------------------------------------------------------- worlds


@pytest.mark.parametrize("params", [{"lr": 0.05, "weight_decay": 3e-4}, {"lr": 0.98, "weight_decay": 1e-3}])
def test_the_mean_of_the_simulated_world_is_exact(params: dict[str, float]) -> None:
    amplify = {"amplify.probability": 0.5, "amplify.lower": 1.5, "amplify.width": 4.0}
    world = SimulatedWorld("ralr")
    match = Match(world, 0)
    finals = np.array([match.final({**params, **amplify}, seed) for seed in range(150)])
    error = finals.std() / np.sqrt(len(finals))
    assert abs(finals.mean() - world.mean({**params, **amplify})) < 4 * error
    assert (finals == 0).any() == (params["lr"] == 0.98)  # diverged


def test_the_simulated_world_shares_half_of_the_noise_by_seed() -> None:
    world = SimulatedWorld("monotone")
    one, other = ({"lr": lr, "weight_decay": 3e-4} for lr in (0.05, 0.06))
    assert world.mean(one) == world.best
    finals = np.array([[world.curve(params, seed)[-1] for params in (one, other)] for seed in range(200)])
    assert finals[:, 0].std() == pytest.approx(world.sd, rel=0.2)  # four standard errors
    assert np.corrcoef(finals.T)[0, 1] == pytest.approx(0.5, abs=0.2)


def test_a_proposal_becomes_the_nearest_configuration_that_was_not_tried(world: RecordedWorld) -> None:
    every = world.table.plan.params[1]
    wanted = {**every[7], "lr": every[7]["lr"] * 1.001}
    tried: list[Params] = []
    for _ in every:
        tried.append(world.offered(wanted, tried))
    assert tried[0] == every[7]
    assert sorted(map(str, tried)) == sorted(map(str, every))
    with pytest.raises(UsageError, match="table tiny: a search of more than 30 configurations"):
        world.offered(wanted, tried)


def test_seeds_are_drawn_from_the_recorded_ones(world: RecordedWorld) -> None:
    index = int(np.argmin(np.isnan(world.table.values[1]).sum(axis=(1, 2))))  # no seed diverges
    params, recorded = world.table.plan.params[1][index], world.table.values[1, index]
    drawn = np.array([world.curve(params, seed) for seed in range(600)])
    rows = [next(s for s in range(6) if np.array_equal(recorded[s], curve, equal_nan=True)) for curve in drawn]
    assert np.bincount(rows, minlength=6).min() > 60  # of 100 each
    assert world.mean(params) == pytest.approx(recorded[:, -1].mean())
    twin = world.table.values[0, index, rows[3]]
    assert np.array_equal(world.curve(params, 3, amplified=False), twin, equal_nan=True)


def test_runs_of_a_seed_are_paired_over_configurations_and_arms(table: Table) -> None:
    worlds = [RecordedWorld(table, arm) for arm in ARMS]
    for seed in range(20):
        found = {
            next(s for s in range(6) if np.array_equal(table.values[arm, c, s], curve, equal_nan=True))
            for arm, world in enumerate(worlds)
            for c in (0, 11)
            if not np.isnan(curve := world.curve(table.plan.params[arm][c], seed)).all()
        }
        assert len(found) == 1


def test_good_configurations_give_the_unit_of_differences(world: RecordedWorld) -> None:
    finals = np.nan_to_num(world.table.values[1, :, :, -1].astype(float))
    best = np.argsort(-finals.mean(axis=1))[:3]  # a tenth of 30
    assert world.sd == pytest.approx(np.median(finals[best].std(axis=1)))
    assert world.best == pytest.approx(finals.mean(axis=1).max())


# ---------------------------------------------------------------- recording


def test_shared_parameters_are_paired(plan: Plan) -> None:
    monotone, ralr = plan.params
    assert [each["lr"] for each in monotone] == [each["lr"] for each in ralr]
    assert len({each["lr"] for each in monotone}) == 30
    thirds = np.bincount([int(3 * np.log10(each["lr"] / 1e-2) / 2) for each in monotone])
    assert set(thirds) <= {9, 10, 11}  # spread evenly on the logarithmic scale


@pytest.mark.parametrize("name", ["digits", "cifar"])
def test_the_tables_of_the_benchmark_are_large_enough(name: str) -> None:
    arms, configurations, seeds, epochs = plan_of(name).shape
    least = {"digits": (300, 16, 12), "cifar": (48, 8, 6)}[name]
    assert arms == 2
    assert all(own >= other for own, other in zip((configurations, seeds, epochs), least, strict=True))
    assert arms * configurations * seeds * (4 * epochs + 5) < 5_000_000  # bytes, uncompressed


def test_a_table_that_is_stopped_early_is_balanced(table: Table) -> None:
    part = replace(table, done=np.zeros_like(table.done))
    order = part.waiting()
    assert len(order) == 2 * 30 * 6
    for key in order[: 2 * 30 * 2 + 31]:
        part.done[key] = True
    counts = part.done.sum(axis=2)
    assert counts.max() - counts.min() == 1
    assert abs(int(counts[0].sum() - counts[1].sum())) <= 1
    assert part.complete_seeds == 2
    assert part.waiting() == order[2 * 30 * 2 + 31 :]


def test_recording_continues_and_repeats_itself(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    plan = plan_of("tiny", folder=tmp_path)
    begun, tasks = Table.of(plan), Tasks(plan.spec, device="cpu")
    for key in begun.waiting()[:100]:
        begun.add(*record.train(plan, tasks, key))
    begun.values[begun.waiting()[-1]] = 0.5  # is not done: will be replaced
    begun.save()
    assert record.main(["tiny", "--workers", "1"], folder=tmp_path) == 0
    assert "tiny: 360 of 360 runs, 6 of 6 seeds complete" in capsys.readouterr().out
    whole = Table.of(plan)
    assert np.array_equal(whole.values, table.values, equal_nan=True)
    assert len(whole.recorded_with) == 1
    assert np.isnan(whole.values).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.npz", "tiny.toml"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_recorder_may_be_killed_and_stopped(tmp_path: Path, how: str) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("jitter = 0.03,", "jitter = 0.03, seconds_per_epoch = 0.05,"))
    plan = plan_of("tiny", folder=tmp_path)
    code = (
        "import sys; from pathlib import Path; from benchmarks.decisions import record; record.SAVE_S = 0.1\n"
        f"if __name__ == '__main__': sys.exit(record.main(['tiny'], Path({str(tmp_path)!r})))"
    )
    program = tmp_path / "program.py"  # a file: the workers are new interpreters, which import it
    program.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(program)], env=environment, start_new_session=True)
    until(plan.values_file.exists, "the first save")
    if how == "kill":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGTERM)  # as an engine does: the training processes get it, too
    assert process.wait(60) == (-signal.SIGKILL if how == "kill" else 0)
    until(lambda: not of_session(process.pid), "the end of the training processes")
    saved = Table.of(plan)
    assert 0 < saved.done.sum() < saved.done.size
    run = tuple(int(place[0]) for place in np.nonzero(saved.done))
    again = record.train(plan, Tasks(plan.spec, device="cpu"), (run[0], run[1], run[2]))
    assert np.array_equal(saved.values[run], again.curve, equal_nan=True)


def of_session(session: int) -> list[int]:
    """Processes of this session that still run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["tony"], "table 'tony': unknown; known: tiny"),
        (["tiny", "--minutes", "0"], "--minutes 0 --workers 2: must be above 0"),
        (["tiny", "--status"], "tiny.npz: recorded from another tiny.toml"),
        (["tiny"], "table tiny: another process records it"),
    ],
)
def test_bad_input_of_the_recorder(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    (tmp_path / "tiny.npz").write_bytes(table.plan.values_file.read_bytes())
    (tmp_path / "tiny.toml").write_text(TINY + "# another file\n")
    lock = FileLock(tmp_path / "tiny.lock")
    assert lock.acquire()
    assert record.main(arguments, folder=tmp_path) == 2
    lock.release()
    assert error in capsys.readouterr().err


def test_data_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["cifar", "--data", "no/such.npz"]) == 2
    assert "--data no/such.npz: no such file" in capsys.readouterr().err


def test_too_few_seeds_are_no_world(table: Table) -> None:
    done = table.done.copy()
    done[0, 3, 3:] = False
    with pytest.raises(UsageError, match="table tiny: 3 complete seeds; needs at least 4"):
        RecordedWorld(replace(table, done=done), "ralr")


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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--replays", "0"], "--replays 0 --processes 2: must be at least 1"),
        (["--worlds", "mars"], "--worlds mars: unknown; known: simulated, monotone; simulated, ralr"),
        (["--policies", "hope"], "--policies hope: unknown; known: Optuna, best trial"),
    ],
)
def test_bad_input(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
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
