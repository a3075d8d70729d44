"""Worlds of replayed curves, and the recorder of real ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.decisions import record
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.tables import ARMS, Plan, Table, plan_of
from benchmarks.decisions.worlds import Match, Params, SimulatedWorld
from ralr_tune.errors import UsageError
from ralr_tune.machine.locks import FileLock
from ralr_tune.search.tasks import Tasks
from tests.benchmarks.conftest import TINY
from tests.waiting import until

ROOT = Path(__file__).parents[2]

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
