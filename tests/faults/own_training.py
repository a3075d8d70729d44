"""Training code that misbehaves: a program (kind = "command") and a function (kind = "function") of one storm.

Its state is a chain of hashes, so that an epoch that is lost, trained twice or resumed from a wrong checkpoint changes
every later value. What it does wrong is drawn from (seed, epoch, attempt, parameters); in the stage "train", in which a
test trains without a study, it does nothing wrong. It writes what it did to `misbehaviour.log`.

    python -S own_training.py ROOT        ROOT: the folder in which `ralr_tune` lies
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from ralr_tune import client

EPOCH_S = 0.2
LOG = "misbehaviour.log"
MAX_BUGS = 2
"""Failures of kind "bug" in one study; a third equal one would end it."""
MISBEHAVING = 0.2
"""Share of epochs, before and again after their report."""
DIVERGING = 80
"""One epoch in so many is NaN, at the same state in every attempt."""
REFUSED = 1100
"""Wrong messages of a flood: more than a worker accepts."""


def program() -> None:
    """Trains with the client."""
    trial = client.trial()
    state = restored(trial)
    for epoch in range(trial.first_epoch, trial.epochs + 1):
        state = next_state(trial, epoch, state)
        misbehave(trial, epoch, state)
        answer = client.report(epoch, value(state), loss=1 / epoch, checkpoint=save(trial, epoch, state))
        after_report(trial, epoch, state, answer)
        if answer != client.CONTINUE:
            return
    if trial.stage == "test":
        client.report_test(test_value(state))


def train(trial: Any) -> None:
    """Trains with a `ralr_tune.Trial`."""
    state = restored(trial)
    for epoch in trial.epochs():
        state = next_state(trial, epoch, state)
        misbehave(trial, epoch, state)
        trial.report(value(state), loss=1 / epoch, checkpoint=save(trial, epoch, state))
        after_report(trial, epoch, state, trial.answer)
    if trial.stage == "test":
        trial.report_test(test_value(state))


# ---------------------------------------------------------------- the training


def restored(trial: Any) -> str:
    """The state after the epoch before the first one. Raises AssertionError if the checkpoint is of another one."""
    if trial.checkpoint is None:
        return ""
    found = json.loads(Path(trial.checkpoint).read_text())
    assert (found["seed"], found["epoch"]) == (trial.seed, trial.first_epoch - 1), found
    return str(found["state"])


def next_state(trial: Any, epoch: int, state: str) -> str:
    """Trains an epoch."""
    if trial.stage != "train":
        time.sleep(EPOCH_S)
    rate = trial.params["lr"] * trial.multiplier(epoch)
    return hashlib.sha256(f"{state} {trial.seed} {epoch} {rate} {trial.params['width']}".encode()).hexdigest()


def value(state: str) -> float:
    """The metric of an epoch."""
    return math.nan if int(state[:8], 16) % DIVERGING == 0 else int(state[8:16], 16) / 16**8


def test_value(state: str) -> float:
    """The metric on the test split."""
    return int(state[16:24], 16) / 16**8


def save(trial: Any, epoch: int, state: str) -> str:
    """Writes the checkpoint as it should be."""
    content = json.dumps({"seed": trial.seed, "epoch": epoch, "state": state})
    (trial.folder / "state.tmp").write_text(content)
    (trial.folder / "state.tmp").rename(trial.folder / "state.json")
    return "state.json"


# ---------------------------------------------------------------- what it does wrong


def misbehave(trial: Any, epoch: int, state: str) -> None:
    """Before a report: one of the actions below, or nothing."""
    chance = _chance(trial, epoch, "before")
    if trial.stage == "train" or chance.random() > MISBEHAVING:
        return
    action = chance.choice(
        (wrong_messages, flood, other_epochs, half_checkpoint, overwritten_checkpoint, fail, leave_early, start_another)
    )
    if action in (flood, fail, leave_early) and not _may_fail(trial):
        return
    action(trial, epoch, state)


def after_report(trial: Any, epoch: int, state: str, answer: str) -> None:
    """After an answer: reports again, or does not leave."""
    chance = _chance(trial, epoch, "after")
    if trial.stage == "train" or chance.random() > MISBEHAVING or math.isnan(value(state)):
        return
    if answer == client.CONTINUE:
        _done("reported again")
        _send({"type": "report", "epoch": epoch, "value": value(state)})
        _send({"type": "report", "epoch": epoch, "value": value(state) / 2})
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _done(f"ignored {answer} and SIGTERM")
    while True:  # until SIGKILL
        _send({"type": "report", "epoch": epoch + 1, "value": 0.5})
        time.sleep(0.05)


def wrong_messages(trial: Any, epoch: int, state: str) -> None:
    _done("wrong messages")
    for line in (b"\xff\n", b"[" * 900 + b"\n", b"x" * 70_000, b"{}\n" * 50, b'{"v": 1, "type": "test", "value": 1}\n'):
        _raw(line)


def flood(trial: Any, epoch: int, state: str) -> None:
    _done("flood")
    _raw(b"junk\n" * REFUSED)
    time.sleep(600)  # the worker ends it


def other_epochs(trial: Any, epoch: int, state: str) -> None:
    _done("out of order")
    for other in (epoch + 1, epoch - 1, epoch + 2, 10**9):
        _send({"type": "report", "epoch": other, "value": 0.25})


def half_checkpoint(trial: Any, epoch: int, state: str) -> None:
    _done("half a checkpoint, then SIGKILL")
    (trial.folder / "state.tmp").write_text('{"seed": ')
    (trial.folder / "state.tmp").rename(trial.folder / "state.json")
    os.kill(os.getpid(), signal.SIGKILL)


def overwritten_checkpoint(trial: Any, epoch: int, state: str) -> None:
    """In place: the worker's own link shows the same content."""
    _done("checkpoint overwritten in place, then SIGKILL")
    (trial.folder / "state.json").write_text('{"seed": ')
    os.kill(os.getpid(), signal.SIGKILL)


def fail(trial: Any, epoch: int, state: str) -> None:
    _done("exception")
    raise ValueError("a bug of the program")


def leave_early(trial: Any, epoch: int, state: str) -> None:
    _done("exit code 0 too early")
    sys.exit(0)


def start_another(trial: Any, epoch: int, state: str) -> None:
    """A process that outlives this one unless the guard ends it."""
    _done("started another process")
    subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)", str(trial.folder)], start_new_session=True
    )


def _chance(trial: Any, epoch: int, when: str) -> random.Random:
    return random.Random(f"{trial.folder.name} {trial.seed} {trial.stage} {epoch} {trial.params} {when}")


def _may_fail(trial: Any) -> bool:
    for number in range(MAX_BUGS):
        try:
            Path(f"{trial.params['study']}.bug{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def _done(what: str) -> None:
    with Path(LOG).open("a") as log:
        log.write(f"{what}\n")


def _send(message: dict[str, Any]) -> None:
    _raw(json.dumps({"v": 1, **message}).encode() + b"\n")


def _raw(content: bytes) -> None:
    """Sends bytes, and reads one answer if there is one; the worker may be gone."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(2)
        try:
            channel.connect(os.environ[client.SOCKET])
            channel.sendall(content)
            channel.recv(65536)
        except OSError:
            pass


if __name__ == "__main__":
    program()
