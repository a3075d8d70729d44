"""Two processes under torchrun train one trial on the CPU: rank 0 talks for both, both obey, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ralr_tune.child.trial import ChildTrial
from ralr_tune.errors import TrialError
from tests.child.conftest import ROOT, trial_of
from tests.waiting import until

pytestmark = pytest.mark.slow

SCRIPT = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import ralr_tune

dist.init_process_group("gloo")
rank = dist.get_rank()
trial = ralr_tune.trial()
torch.manual_seed(trial.seed + rank)  # each rank has random states of its own
model = DistributedDataParallel(torch.nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"], momentum=0.9)
scheduler = trial.schedule(optimizer)
trial.keep(model=model, optimizer=optimizer, scheduler=scheduler)

def note(epoch):
    with (folder.parent / "notes").open("a") as notes:
        total = sum(float(each.detach().sum()) for each in model.parameters())
        notes.write(json.dumps([os.getpid(), rank, epoch, optimizer.param_groups[0]["lr"], total]) + "\\n")

for epoch in trial.epochs():
    inputs = torch.randn(8, 3)
    optimizer.zero_grad()
    loss = ((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()
    loss.backward()
    optimizer.step()
    note(epoch)
    if epoch == HANG and rank == 1:
        time.sleep(1000)  # rank 0 waits for it
    if epoch == FAIL and rank == 1:
        raise RuntimeError("rank 1 fails")
    scheduler.step()
    total = torch.tensor(float(loss.detach()))
    dist.all_reduce(total)
    trial.report(float(total))
if trial.stage == "test":
    trial.report_test(float(next(model.parameters()).sum()))
dist.destroy_process_group()
"""


def torchrun(folder: Path, *, attempt: int = 1, hang: int = 0, fail: int = 0, **options: object) -> ChildTrial:
    """A trial of 4 epochs in two processes. `hang`, `fail`: the epoch in which rank 1 does that."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(folder / "program.py"),
    ]  # fmt: skip
    script = SCRIPT.replace("HANG", str(hang)).replace("FAIL", str(fail))
    return trial_of(folder, script, attempt=attempt, command=lambda start: command, report_timeout=None, **options)


def notes(folder: Path) -> list[list[float]]:
    """Process, rank, epoch, learning rate, sum of all weights, in the order of the epochs."""
    path = folder / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda found: (found[2], found[1]))


def none_left(folder: Path) -> bool:
    """Whether no process runs the program, torchrun's own included."""
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return str(folder / "program.py") not in running


def test_two_processes_make_one_trial(tmp_path: Path) -> None:
    trial = torchrun(tmp_path)
    curve = list(trial.epochs())
    assert [record.epoch for record in curve] == [1, 2, 3, 4]
    found = notes(tmp_path)
    assert [each[1:3] for each in found] == [[rank, epoch] for epoch in (1, 2, 3, 4) for rank in (0, 1)]
    assert [each[3] for each in found[::2]] == pytest.approx([record.lr for record in curve])
    assert all(found[index][3:] == found[index + 1][3:] for index in range(0, 8, 2))  # the ranks have one model
    assert none_left(tmp_path)
    assert trial.evaluate("test") == torchrun(tmp_path).evaluate("test")


def test_resumed_equals_uninterrupted_in_every_rank(tmp_path: Path) -> None:
    whole = [record.value for record in torchrun(tmp_path).epochs()]
    before = notes(tmp_path)
    (tmp_path / "notes").unlink()
    with closing(torchrun(tmp_path, attempt=2).epochs()) as epochs:
        next(epochs)
    rest = torchrun(tmp_path, attempt=3, earlier=(2,))
    list(rest.epochs())
    assert [record.value for record in rest.curve] == whole
    assert [each[1:] for each in notes(tmp_path)] == [each[1:] for each in before]


def test_stop_reaches_every_rank(tmp_path: Path) -> None:
    """After epoch 2 the study prunes: both ranks leave by themselves."""
    with closing(torchrun(tmp_path).epochs()) as epochs:
        next(epochs)
        next(epochs)
    assert [each[1:3] for each in notes(tmp_path)] == [[0, 1], [1, 1], [0, 2], [1, 2]]
    assert "SIGTERM" not in (tmp_path / "row1.1.files" / "program.log").read_text()
    assert none_left(tmp_path)


def test_an_interruption_in_the_middle_of_an_epoch_leaves_nothing(tmp_path: Path) -> None:
    """Rank 1 is busy in epoch 2, and rank 0 waits for it, so that neither hears of it: the worker ends both."""

    def interrupt() -> None:
        until(lambda: len(notes(tmp_path)) == 4, "both ranks are in epoch 2")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        list(torchrun(tmp_path, hang=2).epochs())
    assert none_left(tmp_path)


def test_a_rank_that_fails_ends_all(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="exited with code 1 before it reported epoch 2") as caught:
        list(torchrun(tmp_path, fail=2).epochs())
    assert "rank 1 fails" in (tmp_path / "row1.1.files" / "program.log").read_text()
    assert caught.value.kind == "bug"
    assert none_left(tmp_path)


def test_nothing_is_left_of_a_killed_worker(tmp_path: Path) -> None:
    """In the middle of an epoch, by SIGKILL."""
    lines = [
        "import sys", "from pathlib import Path", f"sys.path.insert(0, {str(ROOT)!r})",
        "from tests.own.test_own_torchrun import torchrun",
        f"list(torchrun(Path({str(tmp_path)!r}), hang=2).epochs())",
    ]  # fmt: skip
    worker = subprocess.Popen([sys.executable, "-c", "\n".join(lines)])
    until(lambda: len(notes(tmp_path)) == 4, "both ranks are in epoch 2")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    until(lambda: none_left(tmp_path), "no process is left")
