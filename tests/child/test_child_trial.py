"""Trials of scripted programs: what they may do, and what happens when they do not."""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ralr_tune.child.process import Process
from ralr_tune.child.saved import keep
from ralr_tune.child.trial import ChildTrial
from ralr_tune.errors import DataError, Interrupted, TrialError
from ralr_tune.records import EpochRecord
from tests.child.conftest import LOOP
from tests.waiting import until

MakeTrial = Callable[..., ChildTrial]

VALUES = [0.11, 0.18, 0.09, 0.08]


def values(trial: ChildTrial) -> list[float]:
    return [round(record.value, 9) for record in trial.curve]


def run(trial: ChildTrial) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in trial.epochs()]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_whole_training(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial()
    curve = run(trial)
    assert [(record.epoch, record.lr, record.factor) for record in curve] == [
        (1, 0.1, 1.0), (2, 0.16, 2.0), (3, 0.06, 1.0), (4, 0.04, 1.0)
    ]  # fmt: skip
    assert values(trial) == VALUES
    assert [record.train_loss for record in curve] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert trial.finished
    kept = sorted(path.name for path in (tmp_path / "row1.1.files").iterdir())
    assert kept == ["checkpoint-4.json", "program.log", "state.json", "trial.json"]
    assert list(make_trial().epochs()) == []


def test_resumed_equals_uninterrupted_and_old_names_are_the_programs_business(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    whole = run(make_trial(attempt=9))
    for attempt in (1, 2, 3, 4):
        trial = make_trial(attempt=attempt, earlier=tuple(range(attempt - 1, 0, -1)))
        assert len(trial.curve) == attempt - 1
        with closing(trial.epochs()) as epochs:
            next(epochs)
    assert [replace(record, seconds=0.0) for record in trial.curve] == whole
    assert (tmp_path / "row1.1.files" / "checkpoint-1.json").exists()  # an earlier attempt's files are not changed


def test_a_checkpoint_that_its_own_worker_replaces_at_this_moment(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of the earlier attempt was suspended beyond its lease, and now continues."""
    first = make_trial().epochs()
    next(first), next(first)

    def keep_late(checkpoint: Path, target: Path) -> Path:
        monkeypatch.undo()
        next(first)
        return keep(checkpoint, target)

    monkeypatch.setattr("ralr_tune.child.trial.keep", keep_late)
    resumed = make_trial(attempt=2, earlier=(1,))
    first.close()
    assert values(resumed) == VALUES[:3]
    run(resumed)
    assert values(resumed) == VALUES


def test_a_program_without_checkpoints_starts_again(make_trial: MakeTrial) -> None:
    script = LOOP.replace(", checkpoint=save(epoch)", "")
    with closing(make_trial(script).epochs()) as epochs:
        next(epochs)
    trial = make_trial(script, attempt=2, earlier=(1,))
    assert trial.curve == []
    run(trial)
    assert values(trial) == VALUES
    assert make_trial(script, attempt=3, earlier=(2, 1)).finished


def test_the_cost_of_epochs_that_are_trained_again_is_counted(make_trial: MakeTrial) -> None:
    script = LOOP.replace(", checkpoint=save(epoch)", ", seconds=10.0 * epoch")
    for attempt, epochs_, lost in ((1, 1, 0.0), (2, 2, 10.0), (3, 1, 40.0)):
        trial = make_trial(script, attempt=attempt, earlier=tuple(range(attempt - 1, 0, -1)))
        assert trial.lost_s == lost
        with closing(trial.epochs()) as epochs:
            for _ in range(epochs_):
                next(epochs)


def test_a_checkpoint_may_be_a_folder(make_trial: MakeTrial, tmp_path: Path) -> None:
    script = """
if trial.checkpoint:
    assert (trial.checkpoint / "part").read_text() == str(trial.first_epoch - 1)
for epoch in range(trial.first_epoch, trial.epochs + 1):
    path = folder / f"epoch{epoch}"
    path.mkdir()
    (path / "part").write_text(str(epoch))
    if client.report(epoch, value(epoch), checkpoint=path) != client.CONTINUE:
        break
"""
    with closing(make_trial(script).epochs()) as epochs:
        assert [next(epochs).epoch for _ in range(2)] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "row1.1.files").glob("[ce]*")) == ["checkpoint-2", "epoch2"]
    trial = make_trial(script, attempt=2, earlier=(1,))
    run(trial)
    assert values(trial) == VALUES


@pytest.mark.parametrize("damage", ["short", "gone"])
def test_a_damaged_checkpoint_is_not_resumed_from(
    make_trial: MakeTrial, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    with closing(make_trial().epochs()) as epochs:
        next(epochs)
    path = tmp_path / "row1.1.files" / "checkpoint-1.json"
    path.write_text("half") if damage == "short" else path.unlink()
    assert make_trial(attempt=2, earlier=(1,)).curve == []
    assert "is missing or damaged" in caplog.text


def test_a_half_written_checkpoint_does_not_touch_the_last_complete_one(make_trial: MakeTrial) -> None:
    script = """
client.report(1, value(1), checkpoint=save(1))
(folder / "state.tmp").write_text("half")
(folder / "state.tmp").rename(folder / "state.json")
os.kill(os.getpid(), signal.SIGKILL)
"""
    trial = make_trial(script)
    with pytest.raises(TrialError, match=r"ended by SIGKILL.* before it reported epoch 2"):
        run(trial)
    resumed = make_trial(attempt=2, earlier=(1,))
    assert len(resumed.curve) == 1
    run(resumed)
    assert values(resumed) == VALUES


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(("leave", "answer"), [("close", "stop"), ("throw", "release")])
def test_the_caller_decides_the_answer(make_trial: MakeTrial, tmp_path: Path, leave: str, answer: str) -> None:
    script = """
answer = client.report(1, value(1), checkpoint=save(1))
(folder / "answer").write_text(answer)
"""
    epochs = make_trial(script).epochs()
    next(epochs)
    if leave == "close":
        epochs.close()
    else:
        with pytest.raises(Interrupted):
            epochs.throw(Interrupted("the worker leaves"))
    assert (tmp_path / "row1.1.files" / "answer").read_text() == answer


def test_a_program_that_ignores_the_answer_and_the_signal_is_killed_with_its_descendants(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    script = """
signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").write_text("by signal"))
other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
(folder / "pids").write_text(f"{os.getpid()} {other.pid}")
client.report(1, value(1))
while True:
    time.sleep(600)
"""
    with closing(make_trial(script, grace_s=0.2).epochs()) as epochs:
        next(epochs)
    folder = tmp_path / "row1.1.files"
    assert (folder / "asked").read_text() == "by signal"
    assert all(gone(int(pid)) for pid in (folder / "pids").read_text().split())


def test_a_killed_worker_leaves_no_orphan(make_trial: MakeTrial, tmp_path: Path) -> None:
    script = """
other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
client.report(1, value(1))
(folder / "pids.tmp").write_text(f"{os.getpid()} {other.pid}")
(folder / "pids.tmp").rename(folder / "pids")
time.sleep(600)
"""
    pids = tmp_path / "row1.1.files" / "pids"
    worker = os.fork()
    if worker == 0:
        for _ in make_trial(script).epochs():
            pass
        os._exit(0)
    until(pids.exists, "the program runs")
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()), "the program and its child have ended")


def test_an_interrupt_during_an_epoch_ends_the_program(make_trial: MakeTrial, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted("asked to stop")

    before = signal.signal(signal.SIGALRM, interrupt)
    script = """
(folder / "pid").write_text(str(os.getpid()))
os.kill(int((folder / "worker").read_text()), signal.SIGALRM)
time.sleep(600)
"""
    folder = tmp_path / "row1.1.files"
    folder.mkdir()
    (folder / "worker").write_text(str(os.getpid()))
    try:
        with pytest.raises(Interrupted):
            run(make_trial(script))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone(int((folder / "pid").read_text()))


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", r"exited with code 0 before it reported epoch 1: it printed nothing"),
        ("client.report(1, 0.5); raise ValueError('no such file')", r"exited with code 1 .* epoch 2: ValueError: no"),
        ("client.report(1, 0.5); time.sleep(600)", r"was silent for 1 s \(task.report_timeout\) before .* epoch 2"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"was ended by SIGSEGV before it reported epoch 1"),
        ("[client.report(n, 0.5) for n in (1, 2, 3, 4)]; sys.exit(3)", r"exited with code 3 after its last report"),
        ("client.report(2, 0.5)", r"exited with code 1 .*: ralr_tune.client.Refused: epoch = 2: must be 1"),
        ("client.report_test(0.5)", r'Refused: a test value is allowed only in the stage "test"'),
        ("client.report(1, 0.5, checkpoint='../x')", r"Refused: checkpoint = .* must be a file or folder inside of"),
        ("client.report(1, 0.5, checkpoint='x')", r"Refused: checkpoint = \"x\": no such file"),
        ("client.report(1, 0.5); client.report(1, 0.6)", r"Refused: epoch = 1: must be 2, the next one"),
        ("while True: raw(b'junk\\n')", r"flooded the channel .*: it sent more than 1000 messages"),
        ("while True:\n try: raw(b'x' * 70000)\n except OSError: pass", r"flooded .*: a message has at most 65536"),
    ],
)  # fmt: skip
def test_failures_name_what_happened(make_trial: MakeTrial, script: str, message: str) -> None:
    timeout = 1.0 if "sleep" in script else 20.0
    trial = make_trial(script, report_timeout=timeout)
    with pytest.raises(TrialError, match=message) as caught:
        run(trial)
    assert caught.value.kind == "bug"
    assert not trial.finished


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "lost"),
        ("client.report(1, 0.5); os.kill(os.getpid(), signal.SIGTERM)", "lost"),
        ("[client.report(n, 0.5) for n in (1, 2, 3, 4)]; os.kill(os.getpid(), signal.SIGHUP)", "lost"),
        ("print('MemoryError', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "lost"),
        ("print('out of memory', flush=True); os.kill(os.getpid(), signal.SIGABRT)", "bug"),
        ("raise MemoryError", "oom"),
        ("client.report(1, 0.5); sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB')", "oom"),
        ("[client.report(n, 0.5) for n in (1, 2, 3, 4)]; print('Out of memory'); sys.exit(1)", "oom"),
        ("print('out of memory, smaller batches')", "bug"),
        ("print('memory is enough'); sys.exit(1)", "bug"),
    ],
)
def test_how_a_program_ends_says_what_kind_of_failure_it_is(make_trial: MakeTrial, script: str, kind: str) -> None:
    with pytest.raises(TrialError) as caught:
        run(make_trial(script))
    assert caught.value.kind == kind


def test_the_end_of_the_output_is_part_of_the_error(make_trial: MakeTrial) -> None:
    with pytest.raises(TrialError) as caught:
        run(make_trial("print('reading data', flush=True); sys.exit('no data')"))
    assert caught.value.__notes__ == ["the end of the program's output:\nreading data\nno data"]


@pytest.mark.parametrize("value", ["math.nan", "math.inf"])
def test_a_value_that_is_not_finite_is_a_divergence(make_trial: MakeTrial, value: str) -> None:
    trial = make_trial(f"import math\nclient.report(1, 0.5)\nassert client.report(2, {value}) == client.STOP")
    with pytest.raises(TrialError, match="in epoch 2") as caught:
        run(trial)
    assert caught.value.kind == "diverged"
    assert len(trial.curve) == 1


def test_a_report_that_is_repeated_counts_once(make_trial: MakeTrial) -> None:
    script = LOOP.replace("    if client", "    client.report(epoch, value(epoch))\n    if client").replace(
        ", loss=1 / epoch, checkpoint=save(epoch)", ""
    )
    trial = make_trial(script)
    run(trial)
    assert values(trial) == VALUES
    assert all(math.isnan(record.train_loss) for record in trial.curve)


def test_a_program_that_cannot_be_started(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(command=lambda start: [str(tmp_path / "absent")])
    with pytest.raises(TrialError, match=r"exited with code 127 .*absent: cannot be started: No such file"):
        run(trial)


# ---------------------------------------------------------------- what it gets


def test_its_environment(make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, removed = ("HOME", "SLURM_JOB_ID"), ("SLURM_NTASKS", "RAY_ADDRESS", "RALR_TUNE_STORAGE", "MY_DATABASE")
    for name in (*kept, *removed):
        monkeypatch.setenv(name, "postgresql://me:secret@host/db" if name == "MY_DATABASE" else "set")
    script = (
        """
(folder / "environment").write_text(json.dumps({**os.environ, "stdin": sys.stdin.read()}))
"""
        + LOOP
    )
    run(make_trial(script, variables=("SLURM_JOB_ID",)))
    text = (tmp_path / "row1.1.files" / "environment").read_text()
    assert "secret" not in text
    assert '"stdin": ""' in text
    assert [name for name in (*kept, *removed) if f'"{name}"' in text] == list(kept)


def test_only_this_user_reaches_the_socket(make_trial: MakeTrial, tmp_path: Path) -> None:
    script = (
        "(folder / 'mode').write_text(oct(os.stat(os.path.dirname(os.environ['RALR_TUNE_SOCKET'])).st_mode))" + LOOP
    )
    run(make_trial(script))
    assert (tmp_path / "row1.1.files" / "mode").read_text() == "0o40700"


# ---------------------------------------------------------------- test and weights


def test_the_test_resumes_from_the_last_checkpoint(make_trial: MakeTrial, tmp_path: Path) -> None:
    trained = make_trial()
    run(trained)
    assert trained.evaluate("test") == pytest.approx(1.08)
    trained.save_weights(tmp_path / "weights")
    fresh = make_trial(attempt=2)
    fresh.load_weights(tmp_path / "weights")
    assert fresh.evaluate("test") == pytest.approx(1.08)
    assert '"first_epoch": 5' in (tmp_path / "row1.2.files" / "trial.json").read_text()


def test_without_checkpoints_the_test_trains_again(make_trial: MakeTrial, tmp_path: Path) -> None:
    script = LOOP.replace(", checkpoint=save(epoch)", "")
    trained = make_trial(script)
    run(trained)
    trained.save_weights(tmp_path / "weights")
    fresh = make_trial(script, attempt=2)
    fresh.load_weights(tmp_path / "weights")
    assert fresh.evaluate("test") == pytest.approx(1.08)
    assert '"first_epoch": 1' in (tmp_path / "row1.2.files" / "trial.json").read_text()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "exited with code 0 before it reported a test value"),
        ("client.report_test(0.5); sys.exit(2)", "exited with code 2 after its last report"),
        ("client.report(4, 0.5)", "Refused: all epochs are reported"),
    ],
)
def test_a_test_that_fails(make_trial: MakeTrial, script: str, message: str) -> None:
    run(make_trial())
    with pytest.raises(TrialError, match=message):
        make_trial(script).evaluate("test")


@pytest.mark.parametrize("damage", ["absent", "foreign", "short", "changed"])
def test_wrong_weights_are_refused(make_trial: MakeTrial, tmp_path: Path, damage: str) -> None:
    trained = make_trial(identity="other" if damage == "foreign" else "trial")
    run(trained)
    path = tmp_path / "weights"
    if damage != "absent":
        trained.save_weights(path)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:700])
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b'"epoch": 4', b'"epoch": 5'))
    with pytest.raises(DataError, match="weights"):
        make_trial(attempt=2).load_weights(path)


def test_the_interpreter_of_the_scripts_is_this_one(make_trial: MakeTrial, tmp_path: Path) -> None:
    """The scripts above would also pass with another Python, whose client would then be the one that is tested."""
    run(make_trial("(folder / 'python').write_text(sys.version)" + LOOP))
    assert (tmp_path / "row1.1.files" / "python").read_text() == sys.version


def test_a_guard_that_is_killed_takes_the_program_with_it(make_trial: MakeTrial) -> None:
    with pytest.raises(TrialError, match="was ended by SIGKILL") as caught:
        run(make_trial("os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"))
    assert caught.value.kind == "lost"


def test_an_interrupt_while_the_exit_code_is_read_does_not_block_the_end(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's exception may come at any moment, also between reading the code and keeping it."""
    reading = Process.wait

    def interrupted(process: Process, timeout_s: float | None) -> int | None:
        if timeout_s is None and process._code is None and not seen:
            seen.append(process)
            process._ended.read()
            raise Interrupted("asked to stop")
        return reading(process, timeout_s)

    seen: list[Process] = []
    monkeypatch.setattr(Process, "wait", interrupted)
    with pytest.raises(Interrupted):
        run(make_trial("sys.exit(3)"))
    assert seen


def test_an_interrupt_while_the_channel_is_opened_leaves_no_folder(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise Interrupted("asked to stop")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("ralr_tune.child.channel.selectors.DefaultSelector", interrupt)
    with pytest.raises(Interrupted):
        run(make_trial())
    monkeypatch.undo()
    gc.collect()
    assert list(tmp_path.glob("ralr_tune-*")) == []


MEASURES = """
for epoch in range(trial.first_epoch, trial.epochs + 1):
    client.report(epoch, value(epoch), checkpoint=save(epoch), metrics={"nll": 1 / epoch, "f1": 0.5})
"""


def test_declared_metrics_are_in_every_epoch_also_after_a_resume(make_trial: MakeTrial) -> None:
    trial = make_trial(MEASURES, epoch_metrics=("nll",))
    with closing(trial.epochs()) as epochs:
        first = [next(epochs), next(epochs)]
    assert [record.others for record in first] == [{"nll": 1.0}, {"nll": 0.5}]
    resumed = make_trial(MEASURES, epoch_metrics=("nll",), attempt=2, earlier=(1,))
    assert [record.others for record in resumed.curve] == [{"nll": 1.0}, {"nll": 0.5}]
    assert [record.others["nll"] for record in run(resumed)] == [1 / 3, 0.25]


def test_a_report_without_a_declared_metric_is_refused(make_trial: MakeTrial) -> None:
    with pytest.raises(TrialError, match=r"metrics: nll is missing: task\.epoch_metrics says that every report has it"):
        run(make_trial(epoch_metrics=("nll",)))
