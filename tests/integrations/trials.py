"""Trials for the callbacks of ralr_tune.integrations: what a worker would send and answer, without a worker.

Each test file gives a function that trains a trial with its framework; the checks are the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ralr_tune.own import random_states
from ralr_tune.own.trial import Trial

EPOCHS, LR = 4, 0.05
BASE, FACTORS = [1.0, 0.8, 0.6, 0.4], [1.0, 2.0, 1.0, 1.5]
RATES = [LR * base * factor for base, factor in zip(BASE, FACTORS, strict=True)]

Train = Callable[[Trial], Any]
"""Trains a trial, and returns the learning rates of its epochs and the final weights."""


class Killed(BaseException):
    """The process ends here: no code of the framework may catch it."""


@dataclass
class Worker:
    """Answers reports and records all messages. A trial ends by Killed after epoch `kill`."""

    folder: Path
    answers: Mapping[int, str] = field(default_factory=dict)
    kill: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)

    def exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        self.messages.append(message)
        if message["type"] == "steps":
            steps = message["steps_per_epoch"]
            path = self.folder / "schedule.json"
            tables = {"base": [[each] * steps for each in BASE], "factors": [[each] * steps for each in FACTORS]}
            path.write_text(json.dumps(tables))
            return {"answer": "continue", "schedule": str(path)}
        if message["type"] == "report":
            checkpoint = Path(message["checkpoint"])
            assert checkpoint.is_relative_to(self.folder)
            assert checkpoint.exists()
            if message["epoch"] == self.kill:
                # as a worker keeps it; what the program writes later is lost
                checkpoint.rename(self.folder / f"checkpoint-{self.kill}{checkpoint.suffix}")
                raise Killed
            return {"answer": self.answers.get(message["epoch"], "continue")}
        return {"answer": "continue"}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What was sent of one kind, without paths."""
        found = [message for message in self.messages if message["type"] == kind]
        return [{key: value for key, value in message.items() if key != "checkpoint"} for message in found]


def run(train: Train, worker: Worker, *, stage: str = "search", checkpoint: Path | None = None, first: int = 1) -> Any:
    """Trains as the process of a worker does, from the seed or from a checkpoint."""
    worker.folder.mkdir(exist_ok=True, parents=True)
    content = {
        "params": {"lr": LR}, "seed": 3, "epochs": EPOCHS, "first_epoch": first, "stage": stage, "split": "train",
        "device": "cpu", "folder": str(worker.folder), "checkpoint": checkpoint and str(checkpoint), "base": BASE,
        "factors": FACTORS,
    }  # fmt: skip
    random_states.seed_all(3)
    return train(Trial(content, worker))


def checked_reports(train: Train, folder: Path) -> list[dict[str, Any]]:
    """One report for each epoch, with the study's rates; returns the reports."""
    worker = Worker(folder)
    rates, _ = run(train, worker)
    found = worker.of("report")
    assert [each["epoch"] for each in found] == [1, 2, 3, 4]
    assert len({each["value"] for each in found}) == EPOCHS
    assert rates == [float(f"{rate:.6g}") for rate in RATES]
    assert worker.of("test") == []
    return found


def check_stop(train: Train, folder: Path) -> None:
    """Nothing is trained after the answer "stop"."""
    worker = Worker(folder, answers={2: "stop"})
    rates, _ = run(train, worker)
    assert [each["epoch"] for each in worker.of("report")] == [1, 2]
    assert len(rates) == 2


def check_resume(train: Train, folder: Path) -> None:
    """A training that was killed after epoch 2 and resumed ends, bit for bit, as one that was not."""
    whole, first, second = Worker(folder / "whole"), Worker(folder / "first", kill=2), Worker(folder / "second")
    rates, weights = run(train, whole)
    try:
        run(train, first)
    except Killed:
        (checkpoint,) = (folder / "first").glob("checkpoint-2*")
    resumed, same_weights = run(train, second, checkpoint=checkpoint, first=3)
    assert first.of("report") + second.of("report") == whole.of("report")
    assert rates[2:] == resumed
    assert weights == same_weights


def check_test_stage(train: Train, folder: Path) -> None:
    """From the last checkpoint no epoch is trained, and the value is that of a training from the start."""
    whole, again = Worker(folder / "whole", kill=EPOCHS), Worker(folder / "again")
    try:
        run(train, whole)
    except Killed:
        (checkpoint,) = (folder / "whole").glob("checkpoint-4*")
    rates, _ = run(train, again, stage="test", checkpoint=checkpoint, first=EPOCHS + 1)
    assert (rates, again.of("report")) == ([], [])
    without = Worker(folder / "without")
    run(train, without, stage="test")
    assert again.of("test") == without.of("test")
    assert len(again.of("test")) == 1
