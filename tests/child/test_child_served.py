"""A process that serves trial after trial: what it keeps, what it restores, and when it is replaced."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.child import program
from ralr_tune.child.process import Process
from ralr_tune.child.served import ServedPrograms
from ralr_tune.child.trial import ChildTrial
from ralr_tune.errors import Interrupted, TrialError
from ralr_tune.records import EpochRecord
from tests.child.conftest import plan
from tests.waiting import until

MakeServed = Callable[..., Callable[..., ChildTrial]]

HEAD = """
import json, os, pathlib, random, signal, sys, threading, time

def save(trial, epoch):
    (trial.folder / "state.json").write_text(json.dumps(epoch))
    return "state.json"

def value(trial, epoch):
    return trial.rate(epoch) + epoch / 100
"""
LOOP = """
def train(trial):
    print("trains seed", trial.seed)
    (trial.folder / "pid").write_text(str(os.getpid()))
    if trial.checkpoint:
        assert json.loads(trial.checkpoint.read_text()) == trial.first_epoch - 1
    for epoch in trial.epochs():
        trial.report(value(trial, epoch), checkpoint=save(trial, epoch))
    if trial.stage == "test":
        trial.report_test(7)
"""
"""A function that does everything right."""
VALUES = [0.11, 0.18, 0.09, 0.08]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[MakeServed]:
    """`served(source)(number)` makes trial `number` of a function `train`; all trials of it share processes."""
    made: list[ServedPrograms] = []

    def of_source(source: str, *, name: str = "served_code", reuse: bool = True) -> Callable[..., ChildTrial]:
        (tmp_path / f"{name}.py").write_text(HEAD + source)
        command = [sys.executable, "-m", "ralr_tune.own.serve", f"{name}:train", "--folder", str(tmp_path)]
        made.append(ServedPrograms(command, reuse=reuse))
        programs = made[-1]

        def make(number: int, *, seed: int = 5, **changes: Any) -> ChildTrial:
            description = {"params": {"lr": 0.1}, "seed": seed, "split": "train", "device": "cpu"}
            trial = plan(description=description, grace_s=1.0, **changes)
            return ChildTrial(trial, programs, checkpoint=tmp_path / f"row{number}.1.ckpt")

        return make

    yield of_source
    made.clear()


def run(trial: ChildTrial) -> list[float]:
    return [round(record.value, 9) for record in trial.epochs()]


def written(folder: Path, number: int, name: str) -> str:
    """What trial `number` wrote into its folder."""
    return (folder / f"row{number}.1.files" / name).read_text()


def pids(folder: Path, *numbers: int) -> list[int]:
    return [int(written(folder, number, "pid")) for number in numbers]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---------------------------------------------------------------- one process, or a new one


def test_one_process_trains_trial_after_trial_and_each_has_its_own_log(served: MakeServed, tmp_path: Path) -> None:
    make = served(LOOP)
    assert run(make(1, seed=11)) == VALUES
    with closing(make(2, seed=12).epochs()) as epochs:  # pruned
        next(epochs)
    interrupted = make(3, seed=13).epochs()
    next(interrupted)
    with pytest.raises(Interrupted):
        interrupted.throw(Interrupted("the worker leaves"))
    assert run(make(4, seed=14)) == VALUES
    assert len(set(pids(tmp_path, 1, 2, 3, 4))) == 1
    for number in (1, 2, 3, 4):
        assert written(tmp_path, number, "program.log") == f"trains seed 1{number}\n"


def test_a_new_process_finds_the_folder_of_its_log(served: MakeServed, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Process.__init__

    def checked(process: Process, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        assert (log.parent / "trial.json").exists()
        starting(process, command, log=log, environment=environment)

    monkeypatch.setattr(Process, "__init__", checked)
    assert run(served(LOOP)(1)) == VALUES


def test_it_tests_a_trial_that_it_trained_or_that_is_trained_already(served: MakeServed, tmp_path: Path) -> None:
    make = served(LOOP)
    trial = make(1)
    assert run(trial) == VALUES
    assert trial.evaluate("test") == 7
    assert make(1).evaluate("test") == 7
    assert '"first_epoch": 5' in written(tmp_path, 1, "trial.json")


@pytest.mark.parametrize(
    ("first", "error"),
    [
        ("raise ValueError('no data')", r"failed before it reported epoch 1: ValueError: no data"),
        ("return", r"returned before it reported epoch 1"),
        ("sys.exit(3)", r"failed before it reported epoch 1: SystemExit: 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"was ended by SIGKILL.* before it reported epoch 1"),
        ("trial.report_test(1)", r"failed .*: RuntimeError: trial.stage = \"search\": a test value is allowed only in"),
    ],
)
def test_after_a_failed_trial_the_next_one_gets_a_new_process(
    served: MakeServed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, error: str
) -> None:
    monkeypatch.setattr(program, "_MOMENT_S", 600.0)  # a process that has said why it fails must not be kept waiting
    once = f"\n    if trial.seed == 1:\n        {first}\n"
    make = served(LOOP.replace('    print("trains', f'    {PID}{once}    print("trains'))
    with pytest.raises(TrialError, match=error):
        run(make(1, seed=1))
    assert run(make(2, seed=2)) == VALUES
    before, after = pids(tmp_path, 1, 2)
    assert before != after
    assert gone(before)


PID = '(trial.folder / "pid").write_text(str(os.getpid()))'


@pytest.mark.parametrize("answer", ["stop", "release"])
def test_a_process_that_ignores_the_answer_and_the_signal_is_replaced(
    served: MakeServed, tmp_path: Path, answer: str
) -> None:
    stubborn = """
    if trial.seed == 1:
        signal.signal(signal.SIGTERM, lambda *_: (trial.folder / "asked").write_text("by signal"))
        trial.report(value(trial, 1))
        (trial.folder / "answer").write_text(trial.answer)
        while True:
            time.sleep(600)
"""
    make = served(LOOP.replace("    for epoch", f"{stubborn}    for epoch"))
    epochs = make(1, seed=1).epochs()
    next(epochs)
    if answer == "stop":
        epochs.close()
    else:
        with pytest.raises(Interrupted):
            epochs.throw(Interrupted("the worker leaves"))
    assert (written(tmp_path, 1, "answer"), written(tmp_path, 1, "asked")) == (answer, "by signal")
    assert run(make(2, seed=2)) == VALUES
    before, after = pids(tmp_path, 1, 2)
    assert before != after
    assert gone(before)


def test_without_reuse_each_trial_gets_its_own_process(served: MakeServed, tmp_path: Path) -> None:
    make = served(LOOP, reuse=False)
    assert [run(make(number)) for number in (1, 2)] == [VALUES, VALUES]
    first, second = pids(tmp_path, 1, 2)
    assert first != second
    assert gone(first)
    assert gone(second)


def test_a_process_that_died_while_it_was_idle_is_replaced(served: MakeServed, tmp_path: Path) -> None:
    make = served(LOOP)
    run(make(1))
    (idle,) = pids(tmp_path, 1)
    os.kill(idle, signal.SIGKILL)
    until(lambda: gone(idle), "the idle process has ended")
    assert run(make(2)) == VALUES
    assert pids(tmp_path, 2) != [idle]


@pytest.mark.parametrize("state", ["training", "idle", "dead"])
def test_a_killed_worker_leaves_no_process_and_no_socket(
    served: MakeServed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    endless = LOOP.replace("checkpoint=save(trial, epoch))", "checkpoint=save(trial, epoch)); time.sleep(600)")
    make = served(endless if state == "training" else LOOP)
    with tempfile.TemporaryDirectory() as sockets:
        monkeypatch.setattr(tempfile, "tempdir", sockets)
        worker = os.fork()
        if worker == 0:
            run(make(1))
            (tmp_path / "idle").touch()
            signal.pause()
        waits_for = tmp_path / ("row1.1.files/checkpoint-1.json" if state == "training" else "idle")
        until(waits_for.exists, "the function has reported, or returned")
        (pid,) = pids(tmp_path, 1)
        if state == "dead":  # before its worker is
            os.kill(pid, signal.SIGKILL)
            until(lambda: gone(pid), "the process has ended")
        assert list(Path(sockets).glob("ralr_tune-*"))
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        until(lambda: gone(pid), "the process has ended")
        until(lambda: not list(Path(sockets).glob("ralr_tune-*")), "its socket is gone")


def test_a_function_that_cannot_be_imported_fails_with_the_reason(served: MakeServed) -> None:
    with pytest.raises(TrialError, match=r"cannot be imported: ZeroDivisionError: division by zero"):
        run(served("1 / 0", name="broken_code")(1))
    with pytest.raises(TrialError, match=r"takes other arguments .*must be a function of one argument, the trial"):
        run(served("def train(): pass", name="other_code")(1))


def test_memory_that_runs_out_is_not_a_bug(served: MakeServed) -> None:
    with pytest.raises(TrialError, match="MemoryError") as caught:
        run(served("def train(trial): raise MemoryError")(1))
    assert caught.value.kind == "oom"


# ---------------------------------------------------------------- one trial does not touch the next


def test_a_message_of_an_earlier_trial_is_refused(served: MakeServed, tmp_path: Path) -> None:
    source = """
from ralr_tune import client
earlier = []

def train(trial):
    for epoch in trial.epochs():
        for other in earlier:
            for late in (lambda: other.report(0.99), lambda: other.log(1, loss=0.99)):
                try:
                    late()
                except client.Refused as refused:
                    (trial.folder / "refused").open("a").write(f"{refused}\\n")
        trial.report(value(trial, epoch), metrics={"epoch": epoch})
    earlier.append(trial)
"""
    make = served(source)
    with closing(make(1).epochs()) as epochs:
        next(epochs)
    second = make(2)
    assert run(second) == VALUES
    assert [series.name for series in second.metrics] == ["epoch"]
    assert written(tmp_path, 2, "refused").splitlines() == ["token: of another trial, which is over"] * 8


def test_the_surroundings_of_the_first_trial_are_restored(served: MakeServed, tmp_path: Path) -> None:
    source = """
def train(trial):
    seen = {"folder": os.getcwd(), "arguments": sys.argv[1:], "path": sys.path[:1], "added": os.environ.get("ADDED"),
            "home": os.environ.get("HOME")}
    (trial.folder / "seen").write_text(json.dumps(seen))
    os.chdir(trial.folder)
    sys.argv.append("--changed")
    sys.path.insert(0, "changed")
    os.environ["ADDED"] = "changed"
    os.environ.pop("HOME")
    for epoch in trial.epochs():
        trial.report(value(trial, epoch))
"""
    make = served(source)
    assert [run(make(number)) for number in (1, 2)] == [VALUES, VALUES]
    first = json.loads(written(tmp_path, 1, "seen"))
    assert json.loads(written(tmp_path, 2, "seen")) == first
    assert first["folder"] == os.getcwd()
    assert (first["arguments"], first["added"], first["home"]) == ([], None, os.environ.get("HOME"))


def test_random_numbers_follow_from_the_seed_in_every_trial(served: MakeServed) -> None:
    source = """
import numpy as np

def train(trial):
    for epoch in trial.epochs():
        trial.report(trial.rate(epoch) + random.random() + np.random.rand())
"""
    make = served(source)
    first, other, later = (run(make(number, seed=seed)) for number, seed in ((1, 5), (2, 6), (3, 5)))
    assert first == later
    assert all(one != another for one, another in zip(first, other, strict=True))


# ---------------------------------------------------------------- rates that change within an epoch

BY_STEP = """
def train(trial):
    trial.declare_steps(3)
    for epoch in trial.epochs():
        trial.report(sum(trial.rate(epoch, step) for step in range(3)))
"""


def rates(epochs: list[EpochRecord]) -> list[tuple[float, float]]:
    return [(round(record.value, 9), record.lr) for record in epochs]


STEP_RATES = [(0.3, 0.1), (0.48, 0.16), (0.18, 0.06), (0.12, 0.04)]


def test_a_function_gets_the_rate_of_every_step_that_it_declares(served: MakeServed) -> None:
    assert rates(list(served(BY_STEP)(1, by_step=True).epochs())) == STEP_RATES
    assert rates(list(served(BY_STEP)(2, by_step=False).epochs())) == STEP_RATES


def test_a_program_gets_the_rate_of_every_step_that_it_declares(make_trial: Callable[..., ChildTrial]) -> None:
    script = """
trial.declare_steps(3)
for epoch in range(trial.first_epoch, trial.epochs + 1):
    client.report(epoch, sum(trial.rate(epoch, step) for step in range(3)))
"""
    assert rates(list(make_trial(script, by_step=True).epochs())) == STEP_RATES


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("trial.multiplier(1)", "changes the rate at every step: call declare_steps"),
        ("trial.report(0.5)", "the study's schedule was not applied"),
        ("client.report(1, 0.5)", "changes the rate at every step: declare the steps of an epoch before you train"),
    ],
)
def test_a_function_that_does_not_declare_its_steps_is_refused(served: MakeServed, source: str, error: str) -> None:
    code = f"from ralr_tune import client\ndef train(trial):\n    {source}\n"
    with pytest.raises(TrialError, match=error):
        run(served(code)(1, by_step=True))


def test_a_program_that_does_not_declare_its_steps_is_refused(make_trial: Callable[..., ChildTrial]) -> None:
    with pytest.raises(TrialError, match="Refused: this study changes the rate at every step: declare the steps"):
        list(make_trial("client.report(1, 0.5)", by_step=True).epochs())
