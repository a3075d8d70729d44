"""The Slurm launcher: its script, its options, and what it concludes from the queue. Real daemons: tests/engines."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch import slurm
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job
from ralr_tune.launch.registry import make_launcher
from ralr_tune.launch.slurm import Slurm
from ralr_tune.launch.slurm_errors import explained
from tests.launch import fake_slurm
from tests.waiting import until

SECRET = "postgresql://me:s3cret@127.0.0.1/tuning"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    fake_slurm.install(monkeypatch, tmp_path / "slurm")
    monkeypatch.setattr(slurm, "GRACE_S", 0.0)
    return tmp_path / "slurm"


def launcher(**options: object) -> Slurm:
    made = make_launcher("slurm", {"poll-s": "0.01", **options})
    assert isinstance(made, Slurm)
    return made


class Sleeping(Job):
    """A job whose worker runs a shell command."""

    def command(self, place: Place) -> list[str]:
        return ["bash", "-c", COMMANDS[self.study], "worker", "--index", str(place.index)]


COMMANDS: Mapping[str, str] = {
    "sleeps": "trap 'exit 130' TERM; for _ in {1..600}; do sleep 0.1; done",
    "ends": "exit 0",
    "fails": "echo 'error: no such study'; exit 1",
}


def places(count: int) -> list[Place]:
    return [Place(index, "cpu", 1) for index in range(count)]


def test_the_script_holds_options_in_order_and_no_secret(tmp_path: Path) -> None:
    made = launcher(
        partition="gpu", time="04:00:00", gres="gpu:1", cpus="4", line=["module load cuda", "#SBATCH --qos=low"]
    )
    text = made.preview(Job("digits", SECRET, tmp_path / "100% mine"), places(2))
    assert "s3cret" not in text
    head = text.partition("code_file=")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    directives = [line for line in head if line.startswith("#SBATCH")]
    assert head[1 : len(directives) + 1] == directives  # sbatch reads none after a command
    assert {"#SBATCH --partition=gpu", "#SBATCH --time=04:00:00", "#SBATCH --gres=gpu:1", "#SBATCH --qos=low"} < set(
        directives
    )
    assert {"#SBATCH --array=0,1", "#SBATCH --cpus-per-task=4", "#SBATCH --requeue"} < set(directives)
    assert f'#SBATCH --output="{tmp_path}/100%% mine/logs/worker-%a.log"' in directives
    assert "module load cuda" in head
    assert '--index "$SLURM_ARRAY_TASK_ID"' in text


@pytest.mark.parametrize(
    ("options", "devices", "message"),
    [
        (
            {"partition": "nope"},
            "auto",
            r"--launcher slurm \(partition=nope\): no such partition, .* \(Slurm says: invalid partition .*: nope\)$",
        ),
        ({}, "cuda:0", r"--devices cuda:0: with --launcher slurm, allowed: auto, cpu"),
    ],
)
def test_what_slurm_refuses_is_said_before_anything_is_created(
    fake: Path, options: Mapping[str, str], devices: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        launcher(**options).places(devices, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": "0"}, "cpus"),
        ({"line": "a\nb"}, "must be one line"),
        ({"partition": ""}, "must be one line"),
        ({"partitoin": "gpu"}, "did you mean 'partition'"),
        ({"warn-s": "soon"}, "warn_s"),
    ],
)
def test_wrong_options(options: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        launcher(**options)


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"Slurm is not installed here \(sbatch is missing\); run on a login node"):
        launcher().places("auto", 1)


def test_workers_use_the_gpu_that_slurm_assigns(fake: Path) -> None:
    assert [place.device for place in launcher(gres="gpu:1").places("auto", 2)] == ["auto", "auto"]
    assert [place.device for place in launcher().places("auto", 2)] == ["cpu", "cpu"]


def test_all_workers_are_one_array_and_restarts_another(fake: Path, tmp_path: Path) -> None:
    made, job = launcher(), Sleeping("ends", SECRET, tmp_path / "out")
    for place in places(3):
        made.start(job, place)
    until(lambda: None not in made.poll().values(), "the workers end")
    assert made.poll() == {0: 0, 1: 0, 2: 0}
    made.start(job, places(3)[1])
    until(lambda: made.poll() == {0: 0, 1: 0, 2: 0}, "the second one ends again")
    arrays = [file.read_text().partition("--array=")[2].split()[0] for file in sorted(fake.glob("*.sbatch"))]
    assert arrays == ["0,1,2", "1"]


def test_a_task_that_the_user_cancels_is_not_restarted(fake: Path, tmp_path: Path) -> None:
    made = launcher()
    made.start(Sleeping("sleeps", SECRET, tmp_path / "out"), places(1)[0])
    until(lambda: made.poll() == {0: None} and running(fake), "it runs")
    os.killpg(running(fake)[0], signal.SIGTERM)  # what scancel does
    until(lambda: made.poll()[0] is not None, "it ends")
    assert made.ending(made.poll()[0] or 0) is Ending.cancelled


def test_a_task_that_vanishes_was_killed(fake: Path, tmp_path: Path) -> None:
    made = launcher()
    made.start(Sleeping("sleeps", SECRET, tmp_path / "out"), places(1)[0])
    until(lambda: made.poll() == {0: None} and running(fake), "it runs")
    os.killpg(running(fake)[0], signal.SIGKILL)
    until(lambda: made.poll()[0] is not None, "it ends")
    assert made.ending(made.poll()[0] or 0) is Ending.killed


def test_the_next_run_adopts_the_workers_that_a_killed_one_left_in_the_queue(fake: Path, tmp_path: Path) -> None:
    job = Sleeping("sleeps", SECRET, tmp_path / "out")
    before = launcher()
    before.start(job, places(1)[0])
    until(lambda: before.poll() == {0: None} and running(fake), "it runs")
    after = launcher()
    for place in places(2):
        after.start(job, place)
    until(lambda: after.poll() == {0: None, 1: None} and len(running(fake)) == 2, "both run")
    after.stop(60)
    assert after.poll() == {0: 130, 1: 130}
    assert not running(fake)


def test_a_job_inherits_no_secret(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RALR_TUNE_STORAGE", SECRET)
    monkeypatch.setenv("RALR_TUNE_STORAGE_PASSWORD", "s3cret")
    made = launcher()
    made.start(Sleeping("ends", SECRET, tmp_path / "out"), places(1)[0])
    until(lambda: made.poll() == {0: 0}, "it ends")
    assert "s3cret" not in (fake / "environment").read_text()
    secret = tmp_path / "out/slurm/environment-0.sh"
    assert "s3cret" in secret.read_text()
    assert secret.stat().st_mode & 0o077 == 0


def test_a_controller_that_does_not_answer_changes_nothing(
    fake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = launcher()
    made.start(Sleeping("sleeps", SECRET, tmp_path / "out"), places(1)[0])
    until(lambda: made.poll() == {0: None} and running(fake), "it runs")
    squeue = fake / "bin/squeue"
    text = squeue.read_text()
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    made._next_reading = 0.0
    assert made.poll() == {0: None}
    assert "squeue failed (slurm_load_jobs error: Unable to contact slurm controller)" in caplog.text
    squeue.write_text(text)
    made.stop(60)
    assert made.poll() == {0: 130}


def test_the_log_of_a_failed_worker(fake: Path, tmp_path: Path) -> None:
    made = launcher()
    made.start(Sleeping("fails", SECRET, tmp_path / "out"), places(1)[0])
    until(lambda: made.poll() == {0: 1}, "it ends")
    assert made.ending(1) is Ending.gave_up
    assert made.tail(0).splitlines()[-1] == "error: no such study"


def running(fake: Path) -> list[int]:
    pids = [int(file.read_text()) for file in fake.glob("*_*")]
    return [pid for pid in pids if fake_slurm.alive(pid)]


def test_init_writes_what_the_user_submits(fake: Path, tmp_path: Path) -> None:
    made, job = launcher(), Sleeping("ends", SECRET, tmp_path / "out")
    command = made.prepare(job, places(2))
    assert command == f"sbatch {tmp_path}/out/slurm/workers.sbatch"
    assert not list(fake.glob("*.sbatch"))
    assert "#SBATCH --array=0,1\n" in (tmp_path / "out/slurm/workers.sbatch").read_text()
    assert {file.name for file in (tmp_path / "out/slurm").glob("environment-*")} == {
        "environment-0.sh",
        "environment-1.sh",
    }
    assert (tmp_path / "out/logs").is_dir()  # Slurm creates no folder for its output


def test_a_launcher_without_a_script_has_nothing_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--init with --launcher: only launchers that submit a script"):
        make_launcher("inprocess").prepare(Job("digits", SECRET, tmp_path), places(1))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
            "sbatch: error: fetch_config: DNS SRV lookup failed\n"
            "sbatch: fatal: Could not establish a configuration source",
            "not configured: run on a login node",
        ),
        ("allocation failure: Unable to contact slurm controller (connect failure)", "controller .* cannot be reached"),
        ("no answer within 60 s", "controller .* cannot be reached"),
        ("allocation failure: Invalid account or account/partition combination specified", "may not use this account"),
        ("allocation failure: Requested time limit is invalid (missing or exceeds some limit)", "the time limit is"),
        ("allocation failure: Invalid generic resource (gres) specification", "no node .* such a gres"),
        ("allocation failure: Invalid feature specification", "no node .* this constraint"),
        ("allocation failure: Requested node configuration is not available", "no node .* has that much"),
        ("allocation failure: Protocol authentication error", "is munged running"),
        ("sbatch: error: If munged is up, restart with --num-threads=10", "is munged running"),
        ("sbatch: error: the moon is full", "Slurm does not take the job"),
    ],
)
def test_slurms_own_words_come_last(said: str, meant: str) -> None:
    text = explained(CompletedProcess(["sbatch"], 1, "", said))
    assert re.match(rf"[^()]*{meant}", text)
    assert "\n" not in text
    last = said.splitlines()[-1].removeprefix("sbatch: ").removeprefix("error: ").removeprefix("fatal: ")
    assert text.endswith(f"{last})")


def test_what_the_programs_of_this_machine_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not all(map(shutil.which, slurm.COMMANDS)):
        pytest.skip("Slurm is not installed here")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(
        UsageError, match=r"--launcher slurm \(no options\): Slurm is installed here but not configured"
    ):
        launcher().places("auto", 1)
