from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.child.plan import Plan, Schedule, Start
from ralr_tune.child.single import SinglePrograms
from ralr_tune.child.trial import ChildTrial

ROOT = Path(__file__).parents[2]

HEAD = f"""
import json, os, signal, socket, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from ralr_tune import client
trial = client.trial()
folder = trial.folder

def save(epoch, name="state.json"):
    (folder / "state.tmp").write_text(json.dumps({{"epoch": epoch, "seed": trial.seed}}))
    (folder / "state.tmp").rename(folder / name)
    return name

def value(epoch):
    return trial.params["lr"] * trial.multiplier(epoch) + epoch / 100

def raw(*lines):
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(os.environ["RALR_TUNE_SOCKET"])
        channel.sendall(b"".join(lines))
        return [json.loads(line) for line in channel.makefile("rb")] if not lines[-1].endswith(b"\\n") else [
            json.loads(channel.makefile("rb").readline())]
"""
"""What every scripted program begins with."""

LOOP = """
if trial.checkpoint:
    assert json.loads(trial.checkpoint.read_text()) == {"epoch": trial.first_epoch - 1, "seed": trial.seed}
for epoch in range(trial.first_epoch, trial.epochs + 1):
    if client.report(epoch, value(epoch), loss=1 / epoch, checkpoint=save(epoch)) != client.CONTINUE:
        sys.exit(0)
if trial.stage == "test":
    client.report_test(value(trial.epochs) + 1)
"""
"""A program that does everything right."""

MakeTrial = Callable[..., ChildTrial]


@pytest.fixture
def make_trial(tmp_path: Path) -> MakeTrial:
    """A trial of 4 epochs whose program is a script: HEAD and the given lines."""
    return lambda script=LOOP, **options: trial_of(tmp_path, script, **options)


def trial_of(
    folder: Path, script: str, *, attempt: int = 1, earlier: tuple[int, ...] = (), **changes: Any
) -> ChildTrial:
    path = folder / "program.py"
    path.write_text(HEAD + script)
    command: Callable[[Start], list[str]] = changes.pop("command", lambda start: [sys.executable, "-S", str(path)])
    programs = SinglePrograms(command, changes.pop("variables", ()))
    place = {number: folder / f"row1.{number}.ckpt" for number in (attempt, *earlier)}
    return ChildTrial(
        plan(**changes), programs, checkpoint=place[attempt], earlier=[place[number] for number in earlier]
    )


def plan(**changes: Any) -> Plan:
    """Four epochs at a base rate of 0.1."""
    given: dict[str, Any] = {
        "identity": "trial",
        "epochs": 4,
        "stage": "search",
        "description": {"params": {"lr": 0.1}, "seed": 5, "split": "train", "device": "cpu"},
        "schedule": schedule,
        "by_step": False,
        "report_timeout": 20.0,
        "grace_s": 10.0,
    }
    return Plan(**{**given, **changes})


def schedule(steps: int) -> Schedule:
    """Epochs of constant rate."""
    base, factors = [1.0, 0.8, 0.6, 0.4], [1.0, 2.0, 1.0, 1.0]
    rates = [round(0.1 * one * other, 9) for one, other in zip(base, factors, strict=True)]
    base_, factors_, rates_ = ([[each] * steps for each in values] for values in (base, factors, rates))
    return Schedule(base_, factors_, rates_)
